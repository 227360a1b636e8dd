"""Test which rows of the source become documents, and with which code other rows are rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from entitymill.settings.sections import SourceSettings
from entitymill.source import row_checks
from entitymill.source.reader import Source, open_source
from entitymill.source.row_checks import REJECT_CODE


def test_each_row_gets_the_code_of_what_is_wrong_with_it(source_of: Callable[..., Source]) -> None:
    rows = [("a", "Anna"), ("b", ""), (None, "x"), ("c", None), ("d", "y" * 11), ("e", "1"), ("e", "2"), ("f", "y" * 10)]
    judged = source_of(*rows, max_chars=10).validate_rows()
    codes = {(row["doc_id"], row["text"]): row[REJECT_CODE] for row in judged.collect()}
    assert codes == {
        ("a", "Anna"): None, ("b", ""): None, (None, "x"): "null_id", ("c", None): "null_text",
        ("d", "y" * 11): "text_too_long", ("e", "1"): "duplicate_id", ("e", "2"): "duplicate_id", ("f", "y" * 10): None,
    }  # fmt: skip
    assert {row["doc_id"] for row in row_checks.select_documents(judged).collect()} == {"a", "b", "f"}
    details = {row["doc_id"]: row["detail"] for row in row_checks.select_rejects(judged, 10).collect()}
    assert details["d"] == "11 code points, source.max_chars is 10"
    assert details["e"] == "2 rows that this run read have this id"


def test_rows_that_the_caller_has_cached_are_not_taken_for_the_sources(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "text": ["Anna"]}), tmp_path / "1.parquet")
    cached = spark.read.parquet(str(tmp_path)).cache()
    try:
        assert cached.count() == 1
        pq.write_table(pa.table({"id": ["b"], "text": ["Bob"]}), tmp_path / "2.parquet")
        assert spark.read.parquet(str(tmp_path)).count() == 1, "Spark takes the cached rows"
        settings = SourceSettings(path=str(tmp_path), format="parquet", id_column="id")
        assert open_source(spark, settings).rows.count() == 2
    finally:
        cached.unpersist()


def test_code_points_are_counted_not_utf_16_units(source_of: Callable[..., Source]) -> None:
    [row] = source_of(("a", "👩‍👩‍👧"), max_chars=5).validate_rows().collect()
    assert (row["chars"], row[REJECT_CODE]) == (5, None)


@pytest.mark.parametrize(("column", "octets"), [("doc_id", "eda080"), ("text", "eda080"), ("text", "416eff")])
def test_what_is_no_utf_8_is_refused(spark: SparkSession, column: str, octets: str) -> None:
    """The octets are half a surrogate pair, which Java might write, and a word in Latin-1."""
    values = {"doc_id": "'a'", "text": "'Anna'", column: f"cast(unhex('{octets}') as string)"}
    rows = spark.sql(f"SELECT {', '.join(f'{value} AS {name}' for name, value in values.items())}, 1L AS copies")
    assert [row[REJECT_CODE] for row in row_checks.validate_rows(rows, 100).collect()] == [
        f"malformed_{column.removeprefix('doc_')}"
    ]


def test_more_duplicates_than_are_broadcast(source_of: Callable[..., Source], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_checks, "BROADCAST_DUPLICATES", 1)
    judged = source_of(("a", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("c", "5")).validate_rows()
    assert sorted((row["doc_id"], row[REJECT_CODE]) for row in judged.collect() if row[REJECT_CODE] is None) == [("c", None)]
