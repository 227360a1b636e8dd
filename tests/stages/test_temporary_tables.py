"""Test, with a real catalog, that a temporary table leaves no texts behind."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import SparkSession

from entitymill.tables.temporary_tables import TemporaryTable

from .conftest import frame_of, tables_at


def test_texts_that_a_frozen_run_wrote_after_its_table_was_dropped_are_deleted(spark: SparkSession, tmp_path: Path) -> None:
    """The run that took over has dropped the table, and tasks of the frozen run create the table's directory again."""
    spark.sql(f"CREATE DATABASE lake_of_texts LOCATION '{tmp_path}/lake'")
    try:
        tables = tables_at(spark, tmp_path, "output.schema=lake_of_texts", "output.path=null")
        frozen = TemporaryTable(tables, 7)
        frozen.write(frame_of(spark, [("a", "secret")], "doc_id string, text string"))
        tables.drop("units_7")
        directory = tmp_path / "lake" / "entitymill_units_7"
        assert not directory.exists()
        directory.mkdir()
        (directory / "part-0.parquet").write_text("secret", encoding="utf8")
        frozen.close()
        assert not directory.exists()
    finally:
        spark.sql("DROP DATABASE lake_of_texts CASCADE")
