"""Test that saved Spark NLP models that are made to run code are refused, in a real Spark that could run the code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from entitymill.errors import ModelError
from entitymill_sparknlp import pipeline_stages
from unit import hostile


def load(spark: SparkSession, directory: Path) -> None:
    """Inspect and load a model in the order in which the engine does so."""
    pipeline_stages.load_pipeline(pipeline_stages.inspect_model(spark, str(directory)), [])


def test_a_java_object_in_the_vocabulary_is_not_built(spark: SparkSession, tmp_path: Path) -> None:
    directory = hostile.saved_model(tmp_path / "model", field=hostile.java_object("evil.Gadget"))
    with pytest.raises(ModelError, match=r"part-00001 contains a Java object \(class 'evil\.Gadget'\)"):
        load(spark, directory)


def test_the_metadata_that_spark_reads_first_name_no_module(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_stage.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    directory = hostile.pipeline(tmp_path / "model", "evil_stage.Stage")
    other = hostile.pipeline(tmp_path / "other", "evil_stage.Stage", paramMap={"stageUids": ["a"], "language": "Python"})
    # PySpark reads the metadata file that the file system lists first.
    for number in range(20):
        shutil.copy(other / "metadata" / "part-00000", directory / "metadata" / f"a{number}")

    with pytest.raises(ModelError, match="which Spark might read: copy the model again"):
        load(spark, directory)
    assert not (tmp_path / "ran").exists()


def test_a_detector_is_looked_at_too(spark: SparkSession, tmp_path: Path) -> None:
    directory = hostile.detector(tmp_path / "detector")
    (directory / "fields" / "x").mkdir(parents=True)
    (directory / "fields" / "x" / "part-00000").write_bytes(b"SEQ")
    with pytest.raises(ModelError, match="x/part-00000 is not a SequenceFile"):
        pipeline_stages.load_detector(spark, "dl", str(directory))
