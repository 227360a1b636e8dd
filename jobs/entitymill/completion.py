"""The settings as a JSON Schema, with which editors complete and check a YAML of them: `python -m entitymill.completion`."""

from __future__ import annotations

import json
import sys
from typing import Any

from entitymill.settings import Settings

FILE = "schema.json"
LINE = f"# yaml-language-server: $schema={FILE}"
"""First line of a YAML that lies beside the schema; editors that know no such line skip it."""


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


if __name__ == "__main__":
    sys.stdout.write(schema())
