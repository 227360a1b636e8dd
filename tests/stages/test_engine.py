"""Test how a run inspects and then loads its engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from entitymill.errors import EntityMillError
from entitymill.recognition import hardware
from entitymill.recognition.tagger import bundle
from entitymill.workers.engine_choice import open_engine

from .conftest import chosen

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("what", ["model", "detector"])
def test_what_was_replaced_while_a_run_waited_is_not_used(spark: SparkSession, tmp_path: Path, what: str) -> None:
    """The results would have the fingerprint of the model or detector that was replaced, so loading must fail."""
    model, detector = tmp_path / "demo", tmp_path / "sentence_detector"
    for place in (model, detector):
        shutil.copytree(MODELS / place.name, place)
    engine = open_engine(spark, chosen(tmp_path, f"model.path={model}", f"segmentation.model={detector}"))
    (detector / "README.md").write_text("Another one.")  # does not affect results
    engine.load()
    if what == "model":
        told = json.loads((model / bundle.MANIFEST).read_text())
        (model / bundle.MANIFEST).write_text(json.dumps({**told, "max_length": 64}))
    else:
        [metadata] = (detector / "metadata").glob("part-*")
        metadata.write_text(metadata.read_text() + " ")
    with pytest.raises(EntityMillError, match="was replaced while this run waited for another run; run again") as refused:
        engine.load()
    assert refused.value.exit_code == 1


def test_a_precision_that_this_processor_computes_slowly_is_logged(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hardware, "read_processor", lambda: hardware.Processor("old", frozenset({"avx2"})))
    for precision, count in (("f32", 0), ("int8", 1)):
        open_engine(spark, chosen(tmp_path, f"model.path={MODELS}/demo", f"recognition.precision={precision}"))
        assert caplog.text.count("int8 is slower than f32 on a processor without VNNI, such as this one") == count
