"""What an erasure finds in the source."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from entitymill.errors import SourceError
from entitymill.run import erasure
from entitymill.run_row import RunRow
from entitymill.tables import Tables, erasure_from_runs
from entitymill.tables.runs import Runs

from .conftest import DAY, chosen, frame_of


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


def test_an_erasure_deletes_no_file_of_the_delta_log(spark: SparkSession, tables: Tables) -> None:
    """With column mapping, old files cannot be searched, so all of them are deleted; a checkpoint is a Parquet file, too."""
    runs = Runs(tables)
    runs.append_idle(RunRow("r1", DAY, status="failed", mode="none", error="the row 'mrs jones' has no text"))
    properties = {"delta.columnMapping.mode": "name", "delta.minReaderVersion": 2, "delta.minWriterVersion": 5}
    listed = ", ".join(f"'{name}' = '{value}'" for name, value in {**properties, "delta.checkpointInterval": 1}.items())
    spark.sql(f"ALTER TABLE {tables.sql_name('runs')} SET TBLPROPERTIES ({listed})")
    tables.forget()
    runs.append_idle(RunRow("r2", DAY, status="done", mode="none"))
    directory = Path(tables.location("runs").removeprefix("file:"))
    checkpoints = sorted(directory.glob("_delta_log/*.checkpoint.parquet"))
    before = set(directory.rglob("part-*.parquet"))
    erasure_from_runs.erase_ids(tables, ["mrs jones"], erasure_from_runs.list_files(tables))
    assert checkpoints
    assert set(checkpoints) <= set(directory.glob("_delta_log/*.checkpoint.parquet"))
    assert before - set(directory.rglob("part-*.parquet")), "the file with the id is deleted"
    assert tables.read("runs").where("error LIKE '%jones%'").count() == 0
