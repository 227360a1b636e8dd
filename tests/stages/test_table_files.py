"""Test the files of the tables, and their constraints, statistics and deletion vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill.tables import Tables, data_files, maintenance, table_setup

from .conftest import Writing, tables_at

PREFIX = "https://example.org/a/very/long/path/that/all/documents/have/in/common/"
TEN = [(f"{PREFIX}d{i}", f"Anna Berlin {i}") for i in range(10)]
LABELS = ("LOC", "PER")


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Writing:
    """Publish two units of new documents."""
    writing = Writing(tables_at(spark, tmp_path_factory.mktemp("files")))
    writing.publish(*TEN[:8], known=False)
    writing.publish(*TEN[8:], known=False)
    return writing


def place(writing: Writing, name: str) -> Path:
    return Path(writing.tables.address(name).removeprefix("file:"))


def added(writing: Writing, name: str) -> list[dict[str, Any]]:
    """Return all `add` actions in the Delta log of a table."""
    logs = (place(writing, name) / "_delta_log").glob("*.json")
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [line["add"] for line in lines if "add" in line]


def statistics(writing: Writing, name: str) -> list[dict[str, dict[str, str]]]:
    return [json.loads(file["stats"]) for file in added(writing, name)]


def test_a_table_that_cannot_be_described_is_not_taken_for_an_empty_one(
    written: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a run took the table for an empty one, it would append all documents a second time."""
    monkeypatch.setattr(Tables, "detail", lambda *_: None)
    assert not written.tables.is_empty("documents")
    with pytest.raises(PySparkException, match="annotations"):  # a table that is missing is not taken for an empty one
        written.tables.is_empty("annotations")


def test_files_are_compacted_though_somebody_removed_runs(writing: Writing) -> None:
    writing.publish(("a", "Anna Berlin x"), known=False)
    assert not writing.tables.exists("runs")
    assert [change.name for change in maintenance.optimize(writing.tables)] == ["entities", "documents", "rejects"]


def test_rows_that_the_caller_has_cached_are_not_taken_for_current_ones(writing: Writing) -> None:
    writing.publish(("a", "Anna Berlin x"), known=False)
    cached = writing.tables.read("documents").cache()
    try:
        assert cached.count() == 1
        other = DeltaTable(str(place(writing, "documents"))).to_pyarrow_table()
        write_deltalake(str(place(writing, "documents")), other, mode="append")  # another program
        assert writing.tables.read("documents").count() == 1, "Spark takes the cached row"
        assert writing.tables.read_latest("documents").count() == 2
    finally:
        cached.unpersist()


@pytest.mark.parametrize(
    ("name", "column", "wrong"),
    [("entities", "end", 0), ("entities", "confidence", 1.5), ("documents", "status", "perhaps")],
)
def test_rows_that_cannot_be_are_refused_by_the_tables(written: Writing, name: str, column: str, wrong: object) -> None:
    frame = written.tables.read(name)
    changed = frame.withColumn(column, F.lit(wrong).cast(frame.schema[column].dataType))
    with pytest.raises(Exception, match="CHECK constraint"):
        changed.write.format("delta").mode("append").save(str(place(written, name)))


@pytest.mark.parametrize("name", ["entities", "documents"])
def test_ids_that_begin_alike_are_told_apart_by_the_statistics(written: Writing, name: str) -> None:
    found = statistics(written, name)
    between = {(file["minValues"]["doc_id"], file["maxValues"]["doc_id"]) for file in found}
    assert between == {(f"{PREFIX}d0", f"{PREFIX}d7"), (f"{PREFIX}d8", f"{PREFIX}d9")}


def test_files_tell_no_entity(written: Writing) -> None:
    found = statistics(written, "entities")
    assert len(found) == 2 * len(LABELS)
    for file in found:
        assert not {name for name in file["minValues"] if name.startswith("entity")}
        assert "Anna" not in json.dumps(file)


def test_a_unit_adds_one_small_file_a_label(written: Writing) -> None:
    labels = [file["partitionValues"]["label"] for file in added(written, "entities")]
    assert sorted(labels) == sorted(LABELS * 2)
    assert len(added(written, "documents")) == 2


@pytest.mark.parametrize("vectors", [True, False])
def test_a_change_copies_no_neighbours_where_readers_know_deletion_vectors(
    spark: SparkSession, tmp_path: Path, vectors: bool
) -> None:
    writing = Writing(tables_at(spark, tmp_path, f"output.deletion_vectors={vectors}"))
    writing.publish(*TEN, known=False)
    first = set(place(writing, "entities").glob("label=PER/*.parquet"))
    writing.publish((TEN[0][0], "Bob Cairo 0"), known=True)
    more = set(place(writing, "entities").glob("label=PER/*.parquet")) - first
    assert sorted(pq.ParquetFile(file).metadata.num_rows for file in more) == ([1] if vectors else [1, 9])
    assert writing.tables.properties("entities")["delta.enableDeletionVectors"] == str(vectors).lower()
    assert writing.held()[0][TEN[0][0]] == ["Bob", "Cairo"]
    assert any(place(writing, "entities").rglob("deletion_vector_*.bin")) == vectors
    rows = data_files.read_all_files(writing.tables, "entities", "doc_id string, entity string", skip_unreadable=False)
    found = {row["entity"] for row in rows.where(F.col("doc_id") == TEN[0][0]).collect()}
    assert found == {"Anna", "Berlin", "Bob", "Cairo"}, "files of older versions are searched, too"


def test_a_table_gets_deletion_vectors_when_it_is_large_and_a_row_is_replaced(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = Writing(tables_at(spark, tmp_path))
    for number, (size, known, expected) in enumerate([(2**30, False, "false"), (1, False, "false"), (1, True, "true")]):
        monkeypatch.setattr(table_setup, "LARGE_BYTES", size)
        writing.tables.forget()
        writing.publish(TEN[number % 2], known=known)
        assert writing.tables.properties("entities")["delta.enableDeletionVectors"] == expected
    features = [
        json.loads(line) for log in (place(writing, "entities") / "_delta_log").glob("*.json") for line in log.open()
    ]
    assert "deletionVectors" in str([line["protocol"] for line in features if "protocol" in line][-1])
    assert writing.tables.properties("rejects")["delta.enableDeletionVectors"] == "false"


def test_too_many_small_files_are_joined(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(0, 8, 2):
        writing.publish(*TEN[at : at + 2], known=False)
    before = writing.held()
    monkeypatch.setattr(maintenance, "SMALL_PART", 1)
    for most, files in ((10, {"documents": 4, "entities": 8}), (3, {"documents": 1, "entities": 2})):
        monkeypatch.setattr(maintenance, "MAX_FILES", most)
        writing.tables.forget()
        maintenance.compact_small_files(writing.tables)
        writing.tables.forget()
        found = {name: writing.tables.detail(name) for name in files}
        assert {name: row and row["numFiles"] for name, row in found.items()} == files
    assert writing.held() == before
