"""What a run refuses to destroy, and what lifts that; and what of a dead run's is taken back. A stand-in for the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import stub
from delta_reader import read_delta
from entitymill import settings
from entitymill.commands import extract as command
from entitymill.errors import RejectedError, SettingsError
from entitymill.run import extraction
from entitymill.tables import Tables, layout
from entitymill.tables.publisher import Publisher

from .conftest import Job
from .delta_source import FEED, Source

TEN = [(f"d{i}", f"Anna Berlin {i}") for i in range(10)]


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "open_engine", stub.open_stub)


def ids(job: Job) -> set[str]:
    return {row["doc_id"] for row in read_delta(job.output / "documents").to_pylist()}


@pytest.mark.parametrize("full", [False, True])
def test_more_documents_gone_than_allowed_stop_the_run_before_it_changes_any(job: Job, full: bool) -> None:
    job.texts(TEN).run()
    job.texts(TEN[:7])
    with pytest.raises(RejectedError, match=r"3 of the 10 documents of .*/out are not in .*max_removed_ratio 0\.2 allows"):
        job.run("limits.max_removed_ratio=0.2", full=full)
    assert len(ids(job)) == len(read_delta(job.output / "entities").to_pylist()) / 2 == 10
    job.texts(TEN[:8]).run("limits.max_removed_ratio=0.2", full=full)
    assert len(ids(job)) == 8


def test_a_person_may_allow_removals_once(job: Job) -> None:
    job.texts(TEN).run()
    job.texts(TEN[:2])
    options = [item for option in job.options("limits.max_removed_ratio=0.2") for item in ("--set", option)]
    log = ["--set", f"log={job.directory}/run.log"]
    assert command.main([*options, *log]) == 4
    assert command.main([*options, *log, "--allow-removals"]) == 0
    assert len(ids(job)) == 2


def test_a_slice_counts_its_own_documents_alone(job: Job) -> None:
    days = ["mon"] * 8 + ["tue"] * 2
    table = pa.table({"id": [key for key, _ in TEN], "text": [text for _, text in TEN], "day": days})
    slices = [
        ("output.replace_slice=true", f"source.where=day = '{day}'", "limits.max_removed_ratio=0.2")
        for day in ("mon", "tue")
    ]
    for one in slices:
        job.texts(table).run(*one)
    job.texts(table.slice(0, 9))
    with pytest.raises(RejectedError, match="1 of the 2 documents"):
        job.run(*slices[1])
    assert job.run(*slices[0]).removed == 0


def test_another_source_takes_an_output_over_only_if_that_is_said(job: Job) -> None:
    job.texts(TEN).run()
    (job.directory / "texts.parquet").rename(job.directory / "others.parquet")
    others = f"source.path={job.directory}/others.parquet"
    with pytest.raises(SettingsError, match=r"/out is of .*/texts\.parquet.*give .*/others\.parquet an output of its own"):
        job.run(others)
    assert job.run(others, "output.adopt_source=true").removed == 0
    job.run(others)


def test_removed_documents_go_though_nothing_of_the_first_unit_is_there_any_more(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a source that is no Delta table: the changed row is gone by the time it is read again."""
    job.texts(TEN).run()
    job.texts([("d0", "Bob Cairo 0"), *TEN[1:8]])
    units = extraction.units.cut

    def late(*arguments: object) -> object:
        job.texts(TEN[1:8])
        return units(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(extraction.units, "cut", late)
        job.run()
    assert ids(job) <= {"d0", *(key for key, _ in TEN[1:8])}
    job.run()
    assert ids(job) == {key for key, _ in TEN[1:8]}


class Died(BaseException):
    """As a kill, it is nothing that the run could write down."""


@pytest.fixture
def dies_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[Job, str, str], None]:
    """Let a run die in its last unit, before it commits to a table."""

    def run(job: Job, table: str, *overrides: str) -> None:
        def instead(publisher: Publisher, name: str, *rest: object, of: Callable[..., None], **named: object) -> None:
            if name == table:
                raise Died
            of(publisher, name, *rest, **named)

        with monkeypatch.context() as patched:
            for method in ("_append", "_replace", "_exchange"):
                of = getattr(Publisher, method)
                patched.setattr(Publisher, method, lambda *rest, of=of, **named: instead(*rest, of=of, **named))
            with pytest.raises(Died):
                job.run(*overrides)

    return run


def test_a_unit_that_was_published_half_is_taken_back(job: Job, dies_before: Callable[..., None]) -> None:
    """Though the source is back at what `documents` says: nobody else would look at it again."""
    source = Source(job, **FEED)
    job.run(*source.options())
    before = read_delta(job.output / "entities").sort_by("mention_id").to_pylist()
    text = source.rows["d1"]
    source.change({"d1": "Zoe Zurich came."})
    dies_before(job, "documents", *source.options())
    assert "Zoe" in {row["entity"] for row in read_delta(job.output / "entities").to_pylist()}

    source.change({"d1": text})
    job.run(*source.options())

    assert read_delta(job.output / "entities").sort_by("mention_id").to_pylist() == before
    assert [row.status for row in job.read("runs").orderBy("started_at").collect()] == ["done", "failed", "done"]


def test_where_it_cannot_be_taken_back_everything_is_done_again(job: Job, dies_before: Callable[..., None]) -> None:
    """As after a VACUUM by somebody else, in which the old files went."""
    copied = "output.deletion_vectors=false"
    job.texts(TEN).run(copied)
    old = list((job.output / "entities").glob("label=*/*.parquet"))
    job.texts([("d0", "Bob Cairo 0"), *TEN[1:]])
    dies_before(job, "documents", copied)
    for data in old:
        data.unlink()
    assert job.run(copied).documents == 10
    entities = read_delta(job.output / "entities").to_pylist()
    assert sorted(row["entity"] for row in entities if row["doc_id"] == "d0") == ["Bob", "Cairo"]
    assert len(entities) == 20


def test_ids_that_begin_alike_are_told_apart_by_the_statistics(job: Job) -> None:
    prefix = "https://example.org/a/very/long/path/that/all/documents/have/in/common/"
    job.texts([(prefix + key, text) for key, text in TEN]).run()
    log = "".join(path.read_text() for path in Path(job.output / "documents" / "_delta_log").glob("*.json"))
    added = [json.loads(json.loads(line)["add"]["stats"]) for line in log.splitlines() if line.startswith('{"add"')]
    assert (added[0]["minValues"]["doc_id"], added[0]["maxValues"]["doc_id"]) == (prefix + "d0", prefix + "d9")


@pytest.mark.parametrize("vectors", [True, False])
def test_a_change_copies_no_neighbours_where_readers_know_deletion_vectors(job: Job, vectors: bool) -> None:
    chosen = f"output.deletion_vectors={vectors}"
    job.texts(TEN).run(chosen)
    first = set((job.output / "entities").glob("label=PER/*.parquet"))
    job.texts([("d0", "Bob Cairo 0"), *TEN[1:]]).run(chosen)
    added = set((job.output / "entities").glob("label=PER/*.parquet")) - first
    assert sorted(pq.ParquetFile(file).metadata.num_rows for file in added) == ([1] if vectors else [1, 9])
    loaded = Tables(job.spark, settings.load(None, job.options(), {}).output)
    assert loaded.properties("entities")["delta.enableDeletionVectors"] == str(vectors).lower()


def test_too_many_small_files_are_joined_by_the_run_that_finds_them(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_FILES", 3)
    monkeypatch.setattr(layout, "SMALL_PART", 1)
    job.texts(TEN[:8]).run("limits.unit_rows=2")
    before = read_delta(job.output / "documents").num_rows
    job.texts(TEN).run()
    files = job.spark.sql(f"DESCRIBE DETAIL delta.`{job.output}/documents`").collect()[0]["numFiles"]
    assert (before, read_delta(job.output / "documents").num_rows) == (8, 10)
    assert files < 4


def test_tables_of_the_version_before_are_taken_over(job: Job) -> None:
    job.texts(TEN).run("output.deletion_vectors=false")
    runs = str(job.output / "runs")
    made = job.read("runs")
    made.select("epoch").write.format("delta").save(str(job.output / "_lease"))
    old = made.drop("epoch", "process", "until")
    rows = job.spark.createDataFrame(old.collect(), old.schema)
    rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true").partitionBy().save(runs)
    for name in ("runs", "documents", "entities", "rejects"):
        job.spark.sql(f"ALTER TABLE delta.`{job.output}/{name}` SET TBLPROPERTIES ('entitymill.schema' = '2')")

    summary = job.texts([("d0", "Bob Cairo 0"), *TEN[1:]]).run()

    assert (summary.mode, summary.documents) == ("compare", 1)
    assert job.texts(TEN).run().documents == 1
    tables = Tables(job.spark, settings.load(None, job.options(), {}).output)
    assert {tables.properties(name)["entitymill.schema"] for name in ("runs", "documents", "entities", "rejects")} == {"3"}
    found = job.read("runs").orderBy("started_at").collect()
    assert [row.epoch is None for row in found] == [True, False, False]
    assert found[2].epoch == found[1].epoch + 1
