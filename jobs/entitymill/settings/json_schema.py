"""The settings as a JSON Schema, with which editors complete and check a YAML of them, and as tables of the documentation.

`python -m entitymill.settings.json_schema` writes the schema, with the page's name the page, its tables made anew.
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
"""First line of a YAML that lies beside the schema; editors that know no such line skip it."""


def build_schema() -> str:
    """The schema's text, for conf/schema.json: of one layer of settings, so that no key is required."""
    whole = {"title": "Settings of Entity Mill", **_simplify(Settings.model_json_schema(by_alias=True))}
    return json.dumps(whole, indent=1) + "\n"


def _simplify(part: Any) -> Any:
    """What pydantic says, as an editor needs it: without what is another layer's, and with numbers where texts are taken."""
    if isinstance(part, list):
        return [_simplify(item) for item in part]
    if not isinstance(part, dict):
        return part
    # Titles that are texts are pydantic's capitalized names, which say nothing new.
    titles = {"title"} if isinstance(part.get("title"), str) else set()
    kept = {key: _simplify(value) for key, value in part.items() if key not in {"required", *titles}}
    if kept.get("type") == "string" and "enum" not in kept:
        kept["type"] = ["string", "number"]
    return kept


def update_page(text: str) -> str:
    """A page with the tables of its settings made anew: one under each section's heading.

    Args:
        text: of docs/settings.md.

    Raises:
        ValueError: a section has no heading, or no table under it.
    """
    whole = Settings.model_json_schema(by_alias=True)
    alone = {name: field for name, field in whole["properties"].items() if "$ref" not in field}
    tables = {"At the top level": _table_rows("", alone, ())}
    for name in whole["properties"].keys() - alone.keys():
        section = whole["$defs"][whole["properties"][name]["$ref"].rpartition("/")[2]]
        tables[name] = _table_rows(f"{name}.", section["properties"], section.get("required", ()))
    for heading, rows in tables.items():
        table = "".join(f"{row}\n" for row in rows)
        under = re.compile(rf"(^## {heading}\n(?:(?!##|\|).*\n)*)(?:\|.*\n)+", re.MULTILINE)
        text, found = under.subn(lambda place, table=table: place[1] + table, text)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"docs/settings.md has no heading `## {heading}` with a table under it: write one")
    return text


def _table_rows(prefix: str, fields: dict[str, Any], required: Any) -> Iterator[str]:
    yield from ("| setting | default | values | meaning |", "|---|---|---|---|")
    for name, field in fields.items():
        default = "required" if name in required else _format_default(field.get("default", {}))
        yield f"| `{prefix}{name}` | {default} | {_format_values(field)} | {field['description']} |"


def _format_default(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _format_values(field: dict[str, Any]) -> str:
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
    sys.stdout.write(update_page(Path(sys.argv[1]).read_text(encoding="utf8")) if sys.argv[1:] else build_schema())
