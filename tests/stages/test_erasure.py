"""What an erasure finds in the source."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from entitymill.errors import SourceError
from entitymill.run import erasure

from .conftest import chosen, frame_of


def test_every_id_that_the_source_still_has_is_counted(spark: SparkSession, tmp_path: Path) -> None:
    ids = [f"d{at:04}" for at in range(1500)]
    pq.write_table(pa.table({"id": ids, "text": ids}), tmp_path / "texts.parquet")
    erased = frame_of(spark, [(key,) for key in (*ids, "gone")], "doc_id string")
    source = f"source.path={tmp_path}/texts.parquet"
    settings = chosen(tmp_path, source, "source.format=parquet", "source.where=id > 'd0099'")
    with pytest.raises(
        SourceError, match=r"still has 1500 of the documents \(for example 'd0000'\), 100 of them in rows that source\.where"
    ):
        erasure._check_absent_from_source(spark, settings, erased)
