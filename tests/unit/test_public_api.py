"""What Python programs rely on by name: a change here is a change for them."""

from __future__ import annotations

import dataclasses
import inspect

import entitymill
from entitymill import errors


def test_what_can_be_imported() -> None:
    assert set(entitymill.__all__) == {"Mention", "TextTagger", "extract", "load", *kinds()}
    assert all(getattr(entitymill, name) is getattr(errors, name) for name in kinds())


def test_how_things_are_called() -> None:
    assert parameters(entitymill.load) == ["model", "detector", "detector_model", "precision", "trim", "threads"]
    assert parameters(entitymill.extract) == ["config", "overrides", "spark", "full", "dry_run"]
    assert [field.name for field in dataclasses.fields(entitymill.Mention)][:5] == [
        "begin",
        "end",
        "entity",
        "label",
        "confidence",
    ]


def test_exit_codes() -> None:
    codes = {kind.__name__: kind.exit_code for kind in kinds().values() if kind.exit_code != 1}
    assert codes == {"SettingsError": 2, "SourceError": 3, "RejectedError": 4, "ModelError": 5, "DriftError": 6}


def kinds() -> dict[str, type[errors.EntityMillError]]:
    return {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)
