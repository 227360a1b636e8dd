from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import settings_page
from entitymill.settings import json_schema, list_keys

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "settings.md"
FILES = sorted(path.name for path in CONF.glob("*.yaml"))


@pytest.fixture
def carried() -> Any:
    return json.loads((CONF / json_schema.SCHEMA_FILE).read_text(encoding="utf8"))


def test_the_schema_is_the_settings_own() -> None:
    assert (CONF / json_schema.SCHEMA_FILE).read_text(encoding="utf8") == json_schema.build_schema(), "run `make schema`"


def test_the_page_is_the_settings_own() -> None:
    assert PAGE.read_text(encoding="utf8") == settings_page.update_page(PAGE.read_text(encoding="utf8")), "run `make schema`"


def test_the_page_gets_every_setting_under_its_section() -> None:
    written = PAGE.read_text(encoding="utf8")
    emptied = re.sub(r"^\| `.*\n", "", written, flags=re.MULTILINE)
    assert "| `" not in emptied
    page = settings_page.update_page(emptied)
    sections = {key for key in list_keys() if any(other.startswith(f"{key}.") for other in list_keys())}
    assert (page, [key for key in list_keys() if key not in sections and f"| `{key}` |" not in page]) == (written, [])
    with pytest.raises(ValueError, match="no heading `## limits`"):
        settings_page.update_page(page.replace("## limits", "## bounds"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_settings_names_the_schema_and_is_valid_by_it(carried: Any, name: str) -> None:
    text = (CONF / name).read_text(encoding="utf8")
    assert text.startswith(json_schema.SCHEMA_COMMENT + "\n")
    jsonschema.validate(yaml.safe_load(text), carried)


def test_every_setting_is_described(carried: Any) -> None:
    """Each setting must have a description, which editors show."""
    found = {}

    def walk(section: Any, prefix: str) -> None:
        for key, value in section["properties"].items():
            found[prefix + key] = value
            if "$ref" in value:
                walk(carried["$defs"][value["$ref"].rpartition("/")[2]], f"{prefix}{key}.")

    walk(carried, "")
    assert set(found) == set(list_keys())
    assert [key for key, value in found.items() if "$ref" not in value and "description" not in value] == []


@pytest.mark.parametrize(
    ("content", "valid"),
    [
        ("{source: {path: a, passthrough: year}, spark: {conf: {spark.sql.shuffle.partitions: 8}}}", True),
        ("{source: {path: a, passthrough: [year]}, log: null}", True),
        ("{source: {pth: a}}", False),
        ("{source: {format: csv}}", False),
        ("{limits: {max_reject_ratio: 2}}", False),
    ],
)
def test_an_editor_sees_what_a_run_would_say(carried: Any, content: str, valid: bool) -> None:
    assert jsonschema.Draft202012Validator(carried).is_valid(yaml.safe_load(content)) == valid
