"""Test that a run publishes unit by unit, and that the next run continues where a run died."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from delta.tables import DeltaTable
from pyspark import Accumulator
from pyspark.sql import DataFrame, SparkSession

from entitymill import settings
from entitymill.errors import LimitError
from entitymill.run import extraction, work_units
from entitymill.run.work_units import UnitSizes
from entitymill.settings import Settings
from entitymill.source.changes import Changes, Mode
from entitymill.tables import Tables, maintenance
from entitymill.tables.publisher import Publisher, Unit
from entitymill.tables.temporary_tables import TemporaryTable
from entitymill.workers.engine_choice import Engine, open_engine
from expected_tables import TEXT_POOL, ExpectedTables

from .conftest import Job

SOURCE = {f"d{i:02}": text for i, text in enumerate(TEXT_POOL[:9])}
SMALL = "limits.unit_rows=3"


def dies_in_the_second_unit(job: Job, monkeypatch: pytest.MonkeyPatch, *overrides: str, full: bool = False) -> None:
    """Start a run that raises an error in its second unit; tests/faults kills real processes instead."""
    publish, numbers = Publisher.publish, itertools.count(1)

    def instead(publisher: Publisher, unit: Unit, *others: Any, **named: Any) -> None:
        if next(numbers) == 2:
            raise RuntimeError("died")
        publish(publisher, unit, *others, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Publisher, "publish", instead)
        with pytest.raises(RuntimeError, match="died"):
            job.run(*overrides, full=full)


def published(job: Job, name: str) -> int:
    """Return the number of commits that wrote a unit to a Delta table."""
    history = DeltaTable.forPath(job.spark, str(job.output / name)).history()
    return history.where("operation = 'WRITE' AND userMetadata LIKE '%unit%'").count()


@pytest.mark.deep
@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_a_run_that_died_is_continued(
    job: Job, truth: ExpectedTables, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    chosen = (SMALL, f"output.format={format_}")
    name = "entities" if format_ == "delta" else "entities_delta"
    source = dict(itertools.islice(SOURCE.items(), 6))
    job.texts(list(source.items()))
    dies_in_the_second_unit(job, monkeypatch, *chosen)
    assert published(job, name) == 1
    if format_ == "delta":
        truth.check(job.output, dict(itertools.islice(source.items(), 3)))
    else:
        assert not (job.output / "entities").exists(), "an export is made at a run's end"
    summary = job.run(*chosen)

    assert (summary.mode, summary.documents, summary.removed) == ("compare", 3, 0)
    truth.check(job.output, source)
    assert sorted(row.status for row in job.read("runs").collect()) == ["done", "failed"]
    assert published(job, name) == 2


@pytest.mark.deep
def test_full_recomputes_every_document_in_place_and_continues_where_it_died(
    job: Job, truth: ExpectedTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dict(itertools.islice(SOURCE.items(), 6))
    job.texts(list(source.items())).run()
    before = {label for *_, label in job.mentions()}
    kept = [*list(source)[:5], "other"]
    without_persons = dict(zip(kept, (TEXT_POOL[place] for place in (2, 4, 5, 10, 2, 4)), strict=True))
    job.texts(list(without_persons.items()))
    chosen = (SMALL, "limits.max_removed_ratio=0.2")
    dies_in_the_second_unit(job, monkeypatch, *chosen, full=True)
    # Each document has either its old results or its new ones.
    [latest] = job.read("runs").orderBy("started_at", ascending=False).limit(1).collect()
    dead = str(latest.run_id)
    documents = {row.doc_id: row.run_id for row in job.read("documents").collect()}
    finished = {key for key, run_id in documents.items() if run_id == dead}
    assert 0 < len(finished) < len(without_persons)
    truth.check(job.output, {key: (without_persons if key in finished else source)[key] for key in documents})

    summary = job.run(*chosen, full=True)

    assert (summary.mode, summary.documents) == ("full", len(without_persons) - len(finished))
    truth.check(job.output, without_persons)
    assert "PER" in before - {label for *_, label in job.mentions()}
    assert sorted(row.status for row in job.read("runs").collect()) == ["done", "done", "failed"]
    assert sorted(path.name for path in job.output.glob("_*")) == []

    # After a completed full run, the next full run recomputes all documents.
    assert job.run(*chosen, full=True).documents == len(without_persons)


def counted(rows: DataFrame, counter: Accumulator[int]) -> DataFrame:
    """Return the same rows, and increase `counter` each time that Spark computes a row."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            counter.add(batch.num_rows)
            yield batch

    return rows.mapInArrow(count, rows.schema)


@pytest.mark.deep
def test_the_model_runs_once_over_known_documents(job: Job, truth: ExpectedTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model must run only once per document, although a unit's commits read the results several times.

    A commit drops the cached rows that depend on its table, so a unit's cached results must not depend on an output table.
    """
    vectors = "output.deletion_vectors=true"  # so the old file stays
    job.texts(list(SOURCE.items())).run(vectors)
    recognized = job.spark.sparkContext.accumulator(0)

    def counting(spark: SparkSession, settings: Settings) -> Engine:
        engine = open_engine(spark, settings)

        def load() -> Callable[..., Any]:
            recognize = engine.load()
            return lambda rows: counted(recognize(rows), recognized)

        return replace(engine, load=load)

    monkeypatch.setattr(extraction, "open_engine", counting)
    # With these limits, the run compacts the files of its units at its end; the old file counts as large.
    monkeypatch.setattr(maintenance, "MAX_FILES", 0)
    monkeypatch.setattr(maintenance, "SMALL_PART", 1)
    changed = {**SOURCE, **dict(zip(SOURCE, TEXT_POOL[12:16], strict=False))}
    (job.output / "_units_7").mkdir()  # left by a run that could not remove its temporary table
    assert job.texts(list(changed.items())).run("limits.unit_rows=2", vectors).units == 2
    assert not list(job.output.glob("_units*"))
    assert recognized.value == 4
    truth.check(job.output, changed)
    [detail] = job.spark.sql(f"DESCRIBE DETAIL delta.`{job.output}/documents`").collect()
    assert detail.numFiles == 2


def test_a_unit_reads_its_own_rows_and_no_others(job: Job) -> None:
    read = job.spark.sparkContext.accumulator(0)
    rows = job.spark.range(1000).selectExpr("format_string('%04d', id) AS doc_id", "1L AS chars", "false AS in_output")
    found = Changes(
        mode=Mode.FIRST, documents=counted(rows, read), removed=rows, rejected=rows, compared_ids=None, adopted=rows,
        rows=1000, reject_counts={}, to_recognize=1000, to_remove=0, to_adopt=0, chars=1000, to_replace=0,
    )  # fmt: skip
    sizes = UnitSizes(rows=100, chars=10**9, task_chars=10**6)
    sampled = None
    seen: list[str] = []
    table = TemporaryTable(Tables(job.spark, settings.load(None, job.options(), {}).output), 7)
    for piece in work_units.split_work(found, sizes, table.write):
        sampled = sampled or read.value
        ids = [row.doc_id for row in piece.documents.collect()]
        assert (len(ids), len(piece.documents.inputFiles()), piece.in_output, piece.removed) == (piece.rows, 1, False, None)
        assert min(ids) > max(seen, default="")
        seen += ids
    assert len(seen) == len(set(seen)) == 1000
    assert read.value == sampled, "what the work is made of is not computed again for a unit"
    assert [path.name for path in job.output.iterdir()] == ["_units_7"]
    table.close()
    assert not list(job.output.iterdir())


def test_removed_documents_go_with_the_unit_they_lie_in(job: Job) -> None:
    """A removed document must be in the unit of its id range, so that no commit searches the files of other units."""
    ids = job.spark.range(100).selectExpr("format_string('%02d', id) AS doc_id")
    removed = ids.where("doc_id >= '60'")
    documents = ids.where("doc_id < '50'").selectExpr("doc_id", "1L AS chars", "doc_id >= '40' AS in_output")
    found = Changes(
        mode=Mode.COMPARE, documents=documents, removed=removed, rejected=ids, compared_ids=None, adopted=ids, rows=100,
        reject_counts={}, to_recognize=50, to_remove=40, to_adopt=0, chars=50, to_replace=10,
    )  # fmt: skip
    table = TemporaryTable(Tables(job.spark, settings.load(None, job.options(), {}).output), 7)
    last, rows, gone = "", 0, 0
    for piece in work_units.split_work(found, UnitSizes(rows=30, chars=10**9, task_chars=10**6), table.write):
        done = sorted(row.doc_id for row in piece.documents.collect())
        out = sorted(row.doc_id for row in piece.removed.collect()) if piece.removed is not None else []
        assert min([*done, *out]) > last
        assert (len(done), piece.in_output) == (piece.rows, max(done, default="") >= "40")
        last, rows, gone = max([*done, *out]), rows + len(done), gone + len(out)
    assert (rows, gone) == (50, 40)
    table.close()


@pytest.mark.deep
def test_a_run_stops_at_its_core_hours_and_the_next_one_continues(job: Job, truth: ExpectedTables) -> None:
    """A run that reaches `limits.max_core_hours` must keep its finished units, and the Parquet export must have them."""
    job.texts(list(SOURCE.items()))
    chosen = "output.format=parquet"
    with pytest.raises(LimitError, match=r"core-hours, after it published 3 of 9 documents; the next"):
        job.run(chosen, "limits.unit_rows=3", "limits.max_core_hours=0.000001")
    truth.check(job.output, dict(itertools.islice(SOURCE.items(), 3)))
    [stopped] = job.read("runs").collect()
    assert (stopped.status, stopped.exit_code, stopped.units_done, stopped.settled) == ("stopped", 7, 1, True)
    assert stopped.core_hours > 0.000001
    assert stopped.cores == job.spark.sparkContext.defaultParallelism
    assert stopped.chars == sum(len(text) for text in itertools.islice(SOURCE.values(), 3))
    assert 0 < stopped.cpu_seconds["recognition"] < stopped.cpu_seconds["job"]
    plan = extraction.extract(job.spark, settings.load(None, job.options(chosen), {}), dry_run=True).plan
    assert plan is not None
    assert (plan.new, plan.same_model) == (6, True)
    assert plan.hours
    assert job.run(chosen).documents == 6
    truth.check(job.output, SOURCE)
