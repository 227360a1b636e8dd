"""What Python programs rely on by name: a change here is a change for them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect

import pytest

import entitymill
import pages
from entitymill import errors


def test_what_can_be_imported() -> None:
    assert set(entitymill.__all__) == {"Mention", "TextTagger", "extract", "load", *kinds()}
    names = [*entitymill.__all__, *(field.name for field in dataclasses.fields(entitymill.Mention))]
    assert all(f"`{name}" in page for name in names)
    for name, kind in kinds().items():
        assert name == "EntityMillError" or f"| `{name}` | {kind.exit_code} |" in page
    code = pages.block("docs/python.md", "entitymill.load(")
    with contextlib.chdir(pages.ROOT):
        exec(code, {})  # noqa: S102  # what the page says
    assert f"# {capsys.readouterr().out}" in code


def test_exit_codes() -> None:
    codes = {kind.__name__: kind.exit_code for kind in kinds().values() if kind.exit_code != 1}
    assert codes == {"SettingsError": 2, "SourceError": 3, "RejectedError": 4, "ModelError": 5, "DriftError": 6}


def kinds() -> dict[str, type[errors.EntityMillError]]:
    return {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)
