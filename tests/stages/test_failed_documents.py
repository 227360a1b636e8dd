"""Documents that no worker survived, in a run; the shares are counted in tests/unit."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bench.stub import stub_tagger
from entitymill.engines.engine import Engine
from entitymill.errors import RejectedError
from entitymill.run import extraction
from entitymill.tables import Tables

from .conftest import chosen


def failing(documents: DataFrame) -> DataFrame:
    """Of the first two letters none survives."""
    failure = F.struct(F.lit("tagger_crashed").alias("code"), F.lit("killed").alias("detail"))
    return stub_tagger(documents).withColumn("failure", F.when(F.col("doc_id") < "c", failure))


def test_too_many_publish_nothing(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"id": list("abcd"), "text": ["Anna Berlin x"] * 4}), tmp_path / "texts.parquet")
    monkeypatch.setattr(extraction, "open_engine", lambda *_: Engine("stub", "stub", lambda: failing))
    source = ("source.format=parquet", f"source.path={tmp_path}/texts.parquet")
    loaded = chosen(tmp_path, *source, "limits.max_reject_ratio=0")
    with pytest.raises(RejectedError, match=r"2 of 4 documents of a unit of .* crash or hang the tagger"):
        extraction.extract(spark, loaded)
    tables = Tables(spark, loaded.output)
    assert [tables.read(name).count() for name in ("entities", "documents", "rejects")] == [0, 0, 2]
