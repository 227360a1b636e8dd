"""Test the names that Python programs rely on: a change here breaks those programs."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re

import pytest

import entitymill
import page_code
from entitymill import errors


def test_what_can_be_imported() -> None:
    assert set(entitymill.__all__) == {"Mention", "TextTagger", "extract", "load", "mentions", "udf", *kinds()}
    assert all(getattr(entitymill, name) is getattr(errors, name) for name in kinds())


def test_how_things_are_called() -> None:
    assert parameters(entitymill.load) == [
        "model",
        "detector",
        "detector_model",
        "precision",
        "trim",
        "decoding",
        "consistent_labels",
        "markup",
        "threads",
    ]
    assert parameters(entitymill.extract) == ["config", "overrides", "spark", "full", "dry_run", "allow_removals"]
    assert fields()[:5] == ["begin", "end", "entity", "label", "confidence"]


def test_the_page_has_every_name_and_what_it_says_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    page = (page_code.ROOT / "docs" / "python.md").read_text(encoding="utf8")
    assert [name for name in [*entitymill.__all__, *fields()] if f"`{name}" not in page] == []
    for name, kind in kinds().items():
        assert name == "EntityMillError" or f"| `{name}` | {kind.exit_code} |" in page
    code = page_code.read_code_block("docs/python.md", "entitymill.load(")
    with contextlib.chdir(page_code.ROOT):
        exec(code, {})  # noqa: S102  # the example of the page
    assert f"# {capsys.readouterr().out}" in code


def test_the_reference_has_every_name_once() -> None:
    page = (page_code.ROOT / "docs" / "api.md").read_text(encoding="utf8")
    assert sorted(re.findall(r"^::: entitymill\.(\w+)$", page, re.MULTILINE)) == sorted(entitymill.__all__)


def test_exit_codes() -> None:
    codes = {kind.__name__: kind.exit_code for kind in kinds().values() if kind.exit_code != 1}
    assert codes == {
        "SettingsError": 2,
        "SourceError": 3,
        "RejectedError": 4,
        "ModelError": 5,
        "DriftError": 6,
        "LimitError": 7,
    }


def kinds() -> dict[str, type[errors.EntityMillError]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.EntityMillError)
    }


def fields() -> list[str]:
    return [field.name for field in dataclasses.fields(entitymill.Mention)]


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)
