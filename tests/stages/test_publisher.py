"""Test how recognized documents are written to the tables, and removed from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.run.summary import Summary, count_unit_results
from entitymill.run_row import RunRow
from entitymill.tables import Tables, publisher, recovery, table_setup
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.publisher import Provenance, Publisher, RejectsWriter, Unit, UnitIds
from entitymill.tables.runs import Runs

from .conftest import DAY, SCHEMAS, Writing, frame_of, read_rows, tables_at

ODD = "c'\\${user}"
"""An id of characters that all have a special meaning in Spark SQL."""
FIRST = (("a", "Anna Berlin x"), ("b", "Bob Cairo x"), (ODD, "Cleo Delhi x"))


@pytest.fixture(scope="module")
def with_first(spark: SparkSession, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish FIRST to an output, for tests to copy: a copy takes less time than publishing."""
    place = tmp_path_factory.mktemp("first")
    Writing(tables_at(spark, place)).publish(*FIRST, known=False)
    return place


@pytest.fixture
def writing(spark: SparkSession, with_first: Path, tmp_path: Path) -> Writing:
    shutil.copytree(with_first, tmp_path, dirs_exist_ok=True)
    holding = Writing(tables_at(spark, tmp_path))
    holding.epoch = 2
    return holding


@pytest.mark.parametrize("few", [1000, 0], ids=["by name", "by a merge"])
def test_documents_are_exchanged_whole(writing: Writing, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(publisher, "MAX_LISTED_IDS", few)
    writing.publish(("a", "Ada Essen x"), ("d", "Dora Fulda x"), known=True, removed=(ODD,))
    assert writing.held() == ({"a": ["Ada", "Essen"], "b": ["Bob", "Cairo"], "d": ["Dora", "Fulda"]}, ["a", "b", "d"])
    operations = [row["operation"] for row in writing.tables.history("documents").orderBy("version").collect()]
    assert operations == ["CREATE TABLE", "WRITE", "WRITE" if few else "MERGE"]


@pytest.mark.parametrize("few", [True, False])
def test_documents_alone_are_removed(writing: Writing, few: bool) -> None:
    """A unit may have no documents and no known ids: its documents were gone when the source was read a second time."""
    if not few:
        counts = count_unit_results(writing.recognized(), collect_ids=True).collect()
        assert Summary("run", DAY).add_counts(counts, ids_collected=True) == UnitIds()
    writing.publish(known=True, removed=("a", "b"), few=few)
    assert writing.held() == ({ODD: ["Cleo", "Delhi"]}, [ODD])


def test_an_older_epoch_changes_nothing(writing: Writing) -> None:
    writing.epoch = 5
    writing.publish(("a", "Ada Essen x"), known=True)
    writing.epoch = 4
    writing.publish(("a", "Old Olpe x"), ("b", "Old Olpe x"), known=True)
    assert writing.held()[0]["a"] == ["Ada", "Essen"]


def test_rows_of_an_older_epoch_are_not_added(tables: Tables) -> None:
    runs = Runs(tables)
    runs.create()
    for name, epoch in (("young", 5), ("old", 4)):
        Commits(tables, name, epoch).append(runs._build_frame(RunRow(name, DAY, status="done")), "runs")
    assert [row["run_id"] for row in read_rows(tables, "runs")] == ["young"]


def test_documents_are_removed_though_rows_carry_columns_and_annotations(tables: Tables) -> None:
    """The empty frame that replaces the documents has neither passthrough columns nor annotations."""
    carried = [T.StructField("lang", T.StringType(), nullable=False)]
    commits = Commits(tables, "run", 1)
    wanted = {**SCHEMAS, "entities": schemas.entities_schema(carried), "annotations": schemas.ANNOTATION_TABLE}
    recovery.create_missing(tables, wanted)
    publisher = Publisher(tables, commits, Writing(tables).provenance(), carried, annotations=True)
    rows = Writing(tables).recognized(*FIRST[:2]).withColumn("passthrough", F.struct(F.lit("en").alias("lang")))
    none = {field.name: F.lit(None).cast(field.dataType) for field in schemas.ANNOTATIONS}
    publisher.publish(Unit(rows.withColumns(none), False, UnitIds("a", "b", ["a", "b"])))
    publisher.remove(frame_of(tables.spark, [("a",)], "doc_id string"))
    for name in ("entities", "annotations", "documents"):
        assert {row["doc_id"] for row in read_rows(tables, name)} == {"b"}
    assert {row["lang"] for row in read_rows(tables, "entities")} == {"en"}


def test_a_slice_replaces_its_own_rejects_without_an_id(tables: Tables) -> None:
    table_setup.create_table(tables, "rejects", schemas.REJECTS)
    columns = "doc_id string, stage string, code string, detail string"

    def rejected(*ids: str | None) -> DataFrame:
        rows = [(one, "source", "null_id" if one is None else "null_text", "why") for one in ids]
        return frame_of(tables.spark, rows, columns)

    for number, name in enumerate(("north", "south", "north"), start=1):
        own = Provenance(f"run {number}", DAY, "/texts", "m", "f", "v", slice=name)
        writer = RejectsWriter(tables, Commits(tables, f"run {number}", number), own)
        found = rejected(None, name)
        writer.replace_for_ids(found.select("doc_id"), found, any_rejected=True, any_stale=number > 1)
    held = [(row["doc_id"], row["slice"], row["run_id"]) for row in read_rows(tables, "rejects")]
    assert sorted(held, key=str) == [
        ("north", "north", "run 3"),
        ("south", "south", "run 2"),
        (None, "north", "run 3"),
        (None, "south", "run 2"),
    ]


def test_a_document_that_is_unknown_by_now_is_not_moved_to_a_slice(writing: Writing) -> None:
    """Spark may compute the documents again, after the source has changed; new ids must not get a row."""
    own = Provenance("run 2", DAY, "/texts", "m", "f", "v", slice="north")
    moving = Publisher(writing.tables, Commits(writing.tables, "run 2", writing.epoch), own, [], annotations=False)
    moving.move_to_slice(writing.tables.spark.createDataFrame([("a",), ("unknown",)], "doc_id string"))
    held = {row["doc_id"]: row["slice"] for row in writing.tables.read("documents").collect()}
    assert held == {"a": "north", "b": None, ODD: None}
