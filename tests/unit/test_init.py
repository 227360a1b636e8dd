"""The settings file that `entitymill init` writes, without Spark."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from entitymill.commands import init
from entitymill.settings.sections import SourceSettings
from entitymill.source.column_proposal import ColumnProfile, Proposal

COLUMN = ColumnProfile("id", "string", atomic=True, text=True, unique=True, length=1.0, exclusion="")


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("articles.yaml", "articles.yaml"),
        ("my articles.yaml", "'my articles.yaml'"),
        ("it's.yaml", """'it'"'"'s.yaml'"""),
        ("$HOME.yaml", "'$HOME.yaml'"),
        ("é.yaml", "'é.yaml'"),
    ],
)
def test_the_command_for_the_next_step_can_be_copied(name: str, argument: str) -> None:
    proposal = Proposal(1, COLUMN, COLUMN, [], [], [], [])
    text = init.render_configuration(Path(name), SourceSettings(path="texts"), proposal, "out", "build/jars", "")
    assert f"\n#   entitymill extract --config {argument} --dry-run\n" in text


@pytest.mark.parametrize("name", ["two\nlines: x", "next\x85line: x", "separated\u2028line: x"])
def test_a_column_of_several_lines_stays_in_its_comment(name: str) -> None:
    proposal = Proposal(1, COLUMN, COLUMN, [], [], [], [(name, "a map")])
    text = init.render_configuration(Path("x.yaml"), SourceSettings(path="texts"), proposal, "out", "build/jars", "")
    assert set(yaml.safe_load(text)["source"]) == {"format", "path", "id_column", "text_column", "passthrough"}


@pytest.mark.parametrize("name", ["two\nlines: x", "next\x85line: x", "separated\u2028line: x"])
def test_a_name_of_several_lines_stays_in_its_comment(name: str) -> None:
    proposal = Proposal(1, COLUMN, COLUMN, [], [], [], [])
    text = init.render_configuration(Path(name), SourceSettings(path="texts"), proposal, "out", "build/jars", "")
    assert set(yaml.safe_load(text)) == {"source", "output", "model"}
