"""Generate the JSON Schema with which editors complete and check settings files."""

from __future__ import annotations

import json
from typing import Any

from entitymill.settings import Settings

SCHEMA_FILE = "schema.json"
SCHEMA_COMMENT = f"# yaml-language-server: $schema={SCHEMA_FILE}"
"""First line of a settings file: a comment from which editors learn that the schema is in the same directory."""


def build_schema() -> str:
    """Return the JSON Schema of all settings, as the text of the file conf/schema.json.

    In this schema, no key is required, since each settings file may contain only some of the settings.
    """
    document = {"title": "Settings of Entity Mill", **_simplify(Settings.model_json_schema(by_alias=True))}
    return json.dumps(document, indent=1) + "\n"


def _simplify(part: Any) -> Any:
    """Return a part of pydantic's schema as a changed copy: no key is required, and a string may also be a number.

    But a string that must be one of a list of values stays a string. The copy has no titles, because they only repeat the
    names of the settings.
    """
    if isinstance(part, list):
        return [_simplify(item) for item in part]
    if not isinstance(part, dict):
        return part
    # If `title` is not a string, it is not a title, but the schema of a setting with the name `title`.
    titles = {"title"} if isinstance(part.get("title"), str) else set()
    simplified = {key: _simplify(value) for key, value in part.items() if key not in {"required", *titles}}
    if simplified.get("type") == "string" and "enum" not in simplified:
        simplified["type"] = ["string", "number"]
    return simplified
