"""Test runs with documents that crash the tagger; tests/unit tests which share of them is allowed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bench.stub_engine import open_stub, stub_tagger
from entitymill.errors import RejectedError
from entitymill.run import extraction
from entitymill.tables import Tables
from entitymill.workers.engine_choice import Engine

from .conftest import chosen


def failing(documents: DataFrame) -> DataFrame:
    """Recognize documents with the stub engine, but let the documents a and b crash the tagger."""
    failure = F.struct(F.lit("tagger_crashed").alias("code"), F.lit("killed").alias("detail"))
    return stub_tagger(documents).withColumn("failure", F.when(F.col("doc_id") < "c", failure))


def test_too_many_publish_nothing(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"id": list("abcd"), "text": ["Anna Berlin x"] * 4}), tmp_path / "texts.parquet")
    monkeypatch.setattr(extraction, "open_engine", lambda *_: Engine("stub", "stub", lambda: failing))
    source = ("source.format=parquet", f"source.path={tmp_path}/texts.parquet")
    loaded = chosen(tmp_path, *source, "limits.max_reject_ratio=0")
    with pytest.raises(RejectedError, match=r"2 of 4 documents of a unit of .* crash the tagger or make it hang"):
        extraction.extract(spark, loaded)
    tables = Tables(spark, loaded.output)
    assert [tables.read(name).count() for name in ("entities", "documents", "rejects")] == [0, 0, 2]


@pytest.mark.deep
def test_a_document_that_failed_once_is_tried_again_though_nothing_changed(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids to retry are in `rejects`, and the run changes this table before it reads the texts of the documents."""
    rows = spark.createDataFrame([(key, "Anna Berlin x") for key in "abcd"], "id string, text string")
    rows.write.format("delta").save(f"{tmp_path}/texts")
    loaded = chosen(tmp_path, "source.format=delta", f"source.path={tmp_path}/texts", "limits.max_reject_ratio=1")
    monkeypatch.setattr(extraction, "open_engine", lambda *_: Engine("stub", "stub", lambda: failing))
    assert extraction.extract(spark, loaded).rejects == {"tagger_crashed": 2}
    monkeypatch.setattr(extraction, "open_engine", open_stub)
    healed = extraction.extract(spark, loaded)
    assert (healed.mode, healed.documents, healed.rejects) == ("feed", 2, {})
    tables = Tables(spark, loaded.output)
    assert [tables.read(name).count() for name in ("entities", "documents", "rejects")] == [8, 4, 0]
