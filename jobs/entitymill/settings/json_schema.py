"""The settings as a JSON Schema, with which editors complete and check a YAML of them, and as a page of the documentation.

`python -m entitymill.settings.json_schema` writes the schema, with `--page` the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from entitymill.settings import Settings

FILE = "schema.json"
LINE = f"# yaml-language-server: $schema={FILE}"
"""First line of a YAML that lies beside the schema; editors that know no such line skip it."""

_HEAD = """\
# Settings

This page is for everyone who writes or reads a YAML of settings.
`make schema` makes it from `jobs/entitymill/settings/sections.py`.

## Layers

Later layers win:

1. `base.yaml` beside the named file. `conf/base.yaml` lists every setting with its default.
2. The file that `--config` names.
3. Environment variables, such as `ENTITYMILL__SOURCE__PATH` for `source.path`.
4. `--set key.path=value`, once for each setting.

`--print-config` shows the settings in force, with secrets masked.

An unknown key is refused. The message names its file and line, and the known key that looks like it.
A key that a file has twice is refused too, and so is a variable that is almost one of these.
Every number has two ends; one that is out of bounds ends the run with exit 2.

Editors complete and check the keys by `conf/schema.json`, where they know the first line of the files in `conf/`:
`# yaml-language-server: $schema=schema.json`. VS Code's YAML extension, JetBrains and Neovim do.

In the tables below, "none" stands for an empty value, written `null` in YAML.
"""
_NOTES = {
    "source": """\
- `path` may be on any file system that Spark reads. A relative path counts from where you start the job.
- With `format: table` the path is the table's name. It has up to three levels, as SQL writes them.
- CSV and JSON are not read: [troubleshooting](troubleshooting.md#csv-and-json) has the way to make a table of them.
- Wildcards are not read. All Parquet files under a directory are one table, and `where` chooses among them.
- An id is written to the tables as a string. A single column of `passthrough` may stand without brackets.
""",
    "output": """\
- One of `path` and `schema` is required, and not both.
- `format: parquet` promises less than Delta: see [promises](promises.md).
- With `replace_slice` a run replaces exactly what an earlier run of the same condition wrote: see
  [incremental runs](incremental.md#slices).
- `deletion_vectors`: a change marks old rows and copies no neighbours. [Operating](operating.md#deletion-vectors) lists
  the readers that were tried.
- `annotations` holds one row per document: see [migration](migration.md#pipelines-downstream).
""",
    "segmentation": """\
- `dl` is a SentenceDetectorDLModel, `rules` is Spark NLP's rule-based SentenceDetector.
- `sentencex` needs engine `openvino`. [Performance](performance.md#sentences) compares the three.
- With engine `sparknlp`, `model` may also be `pretrained:NAME/LANGUAGE`, where the models hub can be reached.
""",
    "model": """\
A bundle may be on any file system that Spark reads. [Models](models.md) says how to make one.
""",
    "recognition": """\
- Engine `sparknlp` runs Spark NLP's own stages in the JVM, and needs `make jars-sparknlp`:
  see [migration](migration.md).
- Encoding `sparknlp` is for proof and migration.
- The carried model's weights are 8-bit, and run in all three precisions.
""",
    "mentions": """\
With trimming, "America's" and "America" are one entity. A mention without a letter or digit is none.
""",
    "incremental": """\
[Incremental runs](incremental.md#when-a-document-is-done-again) says what each value does.
""",
    "limits": """\
- `max_reject_ratio` counts a second thing too: the documents of a unit that crash or hang the tagger.
  Above the ratio that unit is not published. One such document is always allowed.
  Those that failed in an earlier run do not count.
- `batch_seconds` is for engine `openvino`. After it the documents of the window are tried one by one.
  Each may take as long.
- Keep `wait_seconds` above `lease_seconds`, so that a retry outwaits the lease of a dead run.
""",
    "report": """\
[Report](report.md) describes the page and the comparison.
""",
    "metrics": """\
[Report](report.md#metrics) lists the figures.
""",
    "lineage": """\
[Report](report.md#lineage) says what a receiver is told.
""",
    "spark": """\
- `jars` is `build/jars-spark4` on Spark 4. With commas also `build/jars-s3` and `build/jars-sparknlp`.
- `conf` is laid over `conf/spark-defaults.conf`.
- Without `partitions` there is one task per 250,000 characters.
""",
}
"""Section -> what its fields' descriptions have no room for."""


def schema() -> str:
    """The schema's text, for conf/schema.json: of one layer of settings, so that no key is required."""
    whole = {"title": "Settings of Entity Mill", **_layer(Settings.model_json_schema(by_alias=True))}
    return json.dumps(whole, indent=1) + "\n"


def _layer(part: Any) -> Any:
    """What pydantic says, as an editor needs it: without what is another layer's, and with numbers where texts are taken."""
    if isinstance(part, list):
        return [_layer(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _layer(value) for key, value in part.items() if key != "required" and not _is_title(key, value)}
    if kept.get("type") == "string" and "enum" not in kept:
        kept["type"] = ["string", "number"]
    return kept


def _is_title(key: str, value: Any) -> bool:
    """Whether it is pydantic's capitalized name, which says nothing new."""
    return key == "title" and isinstance(value, str)


def page() -> str:
    """The page's text, for docs/settings.md: a table for each section, and what its descriptions have no room for."""
    whole = Settings.model_json_schema(by_alias=True)
    parts = [_HEAD]
    alone: dict[str, Any] = {}
    for name, field in whole["properties"].items():
        if "$ref" not in field:
            alone[name] = field
            continue
        section = whole["$defs"][field["$ref"].rpartition("/")[2]]
        lines = _rows(f"{name}.", section["properties"], section.get("required", ()))
        parts.append("\n".join([f"## {name}", "", section["description"], "", *lines, ""]))
        parts.extend([_NOTES[name]] if name in _NOTES else [])
    parts.append("\n".join(["## At the top level", "", *_rows("", alone, ()), ""]))
    return "\n".join(parts)


def _rows(prefix: str, fields: dict[str, Any], required: Any) -> Iterator[str]:
    yield from ("| setting | default | values | meaning |", "|---|---|---|---|")
    for name, field in fields.items():
        default = "required" if name in required else _shown(field.get("default", {}))
        yield f"| `{prefix}{name}` | {default} | {_values(field)} | {field['description']} |"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _values(field: dict[str, Any]) -> str:
    """What a setting may be: words, a range, or a kind of value."""
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    bounds = kinds[0]
    if "maximum" in bounds:
        low = bounds["minimum"] if "minimum" in bounds else f"over {bounds['exclusiveMinimum']}"
        return f"{low} to {bounds['maximum']}"
    names = {"boolean": "true, false", "object": "by name", "array": "a list"}
    said = (kind["type"][0] if isinstance(kind["type"], list) else kind["type"] for kind in kinds)
    return " or ".join(names.get(kind, kind) for kind in said)


if __name__ == "__main__":
    sys.stdout.write(page() if "--page" in sys.argv[1:] else schema())
