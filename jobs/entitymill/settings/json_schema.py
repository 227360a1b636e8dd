"""Generate the JSON Schema with which editors complete and check settings files."""

from __future__ import annotations

import json
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
    """Return a part of pydantic's schema, changed for editors: no key is required, and a string may also be a number.

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
