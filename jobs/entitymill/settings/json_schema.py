"""Generate the JSON Schema with which editors complete and check settings files, and the tables of docs/settings.md.

`python -m entitymill.settings.json_schema` prints the schema. `python -m entitymill.settings.json_schema docs/settings.md`
prints the text of that page with regenerated tables.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entitymill.settings import Settings

SCHEMA_FILE = "schema.json"
SCHEMA_COMMENT = f"# yaml-language-server: $schema={SCHEMA_FILE}"
"""First line of a YAML file in the schema's directory: it tells editors which schema to use."""


def build_schema() -> str:
    """Return the text of conf/schema.json. The schema requires no key, since a file may contain only some settings."""
    document = {"title": "Settings of Entity Mill", **_simplify(Settings.model_json_schema(by_alias=True))}
    return json.dumps(document, indent=1) + "\n"


def _simplify(part: Any) -> Any:
    """Return part of pydantic's schema for editors: no key is required, and a string setting also allows a number.

    Titles are removed, because in them pydantic only repeats the names in capitals.
    """
    if isinstance(part, list):
        return [_simplify(item) for item in part]
    if not isinstance(part, dict):
        return part
    # A `title` that is not a string is a setting with this name.
    titles = {"title"} if isinstance(part.get("title"), str) else set()
    simplified = {key: _simplify(value) for key, value in part.items() if key not in {"required", *titles}}
    if simplified.get("type") == "string" and "enum" not in simplified:
        simplified["type"] = ["string", "number"]
    return simplified


def update_page(text: str) -> str:
    """Return the text of docs/settings.md with regenerated tables, one under the heading of each section.

    Raise a ValueError if the page has no heading for a section, or no table under it.
    """
    schema = Settings.model_json_schema(by_alias=True)
    top_level = {name: field for name, field in schema["properties"].items() if "$ref" not in field}
    tables = {"At the top level": _format_table_lines("", top_level, ())}
    for name in schema["properties"].keys() - top_level.keys():
        section = schema["$defs"][schema["properties"][name]["$ref"].rpartition("/")[2]]
        tables[name] = _format_table_lines(f"{name}.", section["properties"], section.get("required", ()))
    for heading, rows in tables.items():
        table = "".join(f"{row}\n" for row in rows)
        under = re.compile(rf"(^## {heading}\n(?:(?!##|\|).*\n)*)(?:\|.*\n)+", re.MULTILINE)
        text, count = under.subn(lambda match, table=table: match[1] + table, text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"docs/settings.md has no heading `## {heading}` with a table under it: add one")
    return text


def _format_table_lines(prefix: str, fields: dict[str, Any], required: Any) -> Iterator[str]:
    """Yield the lines of a Markdown table of settings: two lines of heading, then one line per setting.

    `prefix` is the beginning of the key paths, such as `source.`. `fields` is name of a setting -> its JSON Schema.
    `required` lists the settings without a default.
    """
    yield from ("| setting | default | values | meaning |", "|---|---|---|---|")
    for name, field in fields.items():
        default = "required" if name in required else _format_default(field.get("default", {}))
        yield f"| `{prefix}{name}` | {default} | {_format_values(field)} | {field['description']} |"


def _format_default(value: Any) -> str:
    """Return a default as Markdown code; for None, the word none without backquotes."""
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _format_values(field: dict[str, Any]) -> str:
    """Return the text that describes the allowed values of a setting: a list of words, a range (`1 to 10`), or a type."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    if "enum" in kinds[0]:
        return ", ".join(f"`{word}`" for word in kinds[0]["enum"])
    if "const" in kinds[0]:
        return ", ".join([f"`{kinds[0]['const']}`", *map(_format_values, kinds[1:])])
    bounds = kinds[0]
    if "maximum" in bounds:
        low = bounds["minimum"] if "minimum" in bounds else f"over {bounds['exclusiveMinimum']}"
        return f"{low} to {bounds['maximum']}"
    names = {"boolean": "true, false", "object": "by name", "array": "a list"}
    types = (kind["type"][0] if isinstance(kind["type"], list) else kind["type"] for kind in kinds)
    return " or ".join(names.get(kind, kind) for kind in types)


if __name__ == "__main__":
    sys.stdout.write(update_page(Path(sys.argv[1]).read_text(encoding="utf8")) if sys.argv[1:] else build_schema())
