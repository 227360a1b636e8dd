"""Write conf/schema.json, and the tables of docs/settings.md, from the settings in the code.

`python utils/settings_page.py`, in the repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entitymill.settings import Settings, json_schema

ROOT = Path(__file__).parents[1]
PAGE, SCHEMA = ROOT / "docs" / "settings.md", ROOT / "conf" / json_schema.SCHEMA_FILE


def main() -> None:
    """Rewrite both files."""
    SCHEMA.write_text(json_schema.build_schema(), encoding="utf8")
    PAGE.write_text(update_page(PAGE.read_text(encoding="utf8")), encoding="utf8")


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
    main()
