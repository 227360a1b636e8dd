from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from entitymill import python_api
from entitymill.errors import ModelError
from unit import tiny

MADE: dict[str, Callable[[Path], Path]] = {
    "a Hugging Face directory": lambda into: tiny.copied("distilbert", into),
    "a saved Spark NLP model": lambda into: tiny.saved_onnx(into / "saved"),
    "an ONNX directory": lambda into: tiny.onnx_directory(into / "exported"),
}


@pytest.mark.parametrize("kind", MADE)
def test_another_model_is_called_what_it_is(tmp_path: Path, kind: str) -> None:
    place = MADE[kind](tmp_path)
    with pytest.raises(ModelError) as refused:
        python_api.load(place)
    assert str(refused.value) == (
        f"{place} is {kind}, not a model bundle: run prepare_model.py {place} DEST (or entitymill prepare), "
        "and name DEST (docs/models.md)."
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("dslim/distilbert-NER", "hf download dslim/distilbert-NER --local-dir DIRECTORY"),
        ("pretrained:distilbert_base/en", "is on Spark NLP's models hub, which recognition.sparknlp_model names"),
        ("/nowhere/at/all", "nothing is at /nowhere/at/all; name a model bundle"),
    ],
)
def test_a_model_that_is_not_there_is_said_how_to_get(path: str, message: str) -> None:
    with pytest.raises(ModelError) as refused:
        python_api.load(path)
    assert message in str(refused.value)


def test_a_directory_of_anything_else_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no manifest\.json: it is not a model bundle; prepare_model\.py makes one"):
        python_api.load(tmp_path)
