"""Test that a run on a slice replaces exactly the rows of this slice, in any order of slices, even if the slice is empty."""

from __future__ import annotations

import datetime as dt
import io
import shutil

import pyarrow as pa
import pytest
from rich.console import Console

from delta_reader import read_delta
from entitymill import settings
from entitymill.errors import LimitError, OutputError, SettingsError
from entitymill.run.extraction import extract
from entitymill.tables import Tables
from entitymill.terminal import summaries
from expected_tables import TEXT_POOL, ExpectedTables
from integration.conftest import Job

DAYS = [dt.date(2026, 11, day) for day in (1, 2)]
LENIENT = "limits.max_reject_ratio=1"
Rows = dict[str, tuple[dt.date, str | None]]


def write(job: Job, rows: Rows) -> None:
    days, texts = [day for day, _ in rows.values()], [text for _, text in rows.values()]
    job.texts(pa.table({"id": list(rows), "day": pa.array(days, pa.date32()), "text": pa.array(texts, pa.string())}))


def of_day(day: int, *overrides: str) -> tuple[str, ...]:
    return (f"source.where=day = '{DAYS[day]}'", "output.replace_slice=true", LENIENT, *overrides)


def check(truth: ExpectedTables, job: Job, rows: Rows) -> None:
    """Check the tables against all rows whose text is not null."""
    truth.check(job.output, {key: text for key, (_, text) in rows.items() if text is not None})


@pytest.mark.deep
def test_slices_in_any_order_and_again(job: Job, truth: ExpectedTables) -> None:
    rows: Rows = {
        "d0": (DAYS[0], TEXT_POOL[0]), "d1": (DAYS[0], TEXT_POOL[1]), "x0": (DAYS[0], None),
        "d2": (DAYS[1], TEXT_POOL[2]), "d3": (DAYS[1], TEXT_POOL[3]), "x1": (DAYS[1], None),
    }  # fmt: skip
    write(job, rows)
    assert [job.run(*of_day(day)).documents for day in (1, 0)] == [2, 2]
    check(truth, job, rows)
    assert job.rejects() == [("x0", "null_text"), ("x1", "null_text")]

    # Change d0, move d1 to the second day, remove d2 and d3, and give x0 a text.
    changed: Rows = {
        "d0": (DAYS[0], TEXT_POOL[4]), "x0": (DAYS[0], TEXT_POOL[5]), "d1": (DAYS[1], TEXT_POOL[1]), "x1": (DAYS[1], None),
    }  # fmt: skip
    write(job, changed)
    summary = job.run(*of_day(1))
    assert (summary.documents, summary.removed) == (0, 2)  # d1 only changes its slice
    check(truth, job, {**changed, "d0": rows["d0"], "x0": rows["x0"]})
    assert job.rejects() == [("x0", "null_text"), ("x1", "null_text")]

    summary = job.run(*of_day(0))
    assert (summary.documents, summary.removed) == (2, 0)
    check(truth, job, changed)
    assert job.rejects() == [("x1", "null_text")]

    # Remove all rows of the second day.
    left = {key: row for key, row in changed.items() if row[0] == DAYS[0]}
    write(job, left)
    summary = job.run(*of_day(1))
    assert (summary.documents, summary.removed) == (0, 1)
    check(truth, job, left)
    assert job.rejects() == []

    # A run over the whole source removes all documents from their slices, but recomputes none.
    assert {row.slice is None for row in job.read("documents").collect()} == {False}
    assert job.run().documents == 0
    assert [row.slice for row in job.read("documents").collect()] == [None] * len(left)
    check(truth, job, left)

    # If a table was lost, a run on one slice must fail, because it would not restore the rows of other slices.
    shutil.rmtree(job.output / "entities")
    before = read_delta(job.output / "documents").sort_by("doc_id").to_pylist()
    said = r"a table of .*/out is missing.* Run once with output\.replace_slice=false"
    with pytest.raises(OutputError, match=said):
        extract(job.spark, settings.load(None, job.options(*of_day(0)), {}), dry_run=True)
    with pytest.raises(OutputError, match=said):
        job.run(*of_day(0))
    assert read_delta(job.output / "documents").sort_by("doc_id").to_pylist() == before
    assert not (job.output / "entities").exists()


def test_a_run_that_stops_early_leaves_documents_in_their_slices(job: Job, truth: ExpectedTables) -> None:
    """If limits.max_core_hours stops a run over the whole source, a run on a slice can still remove documents."""
    rows: Rows = {f"d{number}": (DAYS[number // 3], TEXT_POOL[number]) for number in range(6)}
    write(job, rows)
    for day in (0, 1):
        job.run(*of_day(day))
    left = {**rows, "d0": (DAYS[0], TEXT_POOL[9])}
    del left["d5"]
    write(job, left)
    with pytest.raises(LimitError, match="it published 1 of 1 documents"):
        job.run("limits.unit_rows=1", "limits.max_core_hours=0.000001")
    assert job.run(*of_day(1)).removed == 1
    check(truth, job, left)


@pytest.mark.parametrize("stopped", [pytest.param(False, marks=pytest.mark.deep), True], ids=["", "stopped"])
def test_a_whole_run_ends_all_slices_although_runs_has_lost_them(job: Job, truth: ExpectedTables, *, stopped: bool) -> None:
    """Somebody deletes the rows of `runs`. Later, a run on the slice must not remove a document that has left the slice."""
    rows: Rows = {f"d{number}": (DAYS[number % 2], TEXT_POOL[number]) for number in range(4)}
    write(job, rows)
    job.run(LENIENT)
    job.run(*of_day(0))
    job.spark.sql(f"DELETE FROM delta.`{job.output}/runs`")
    if stopped:
        rows |= {"d2": (DAYS[0], TEXT_POOL[8]), "d3": (DAYS[1], TEXT_POOL[9])}
        write(job, rows)
        with pytest.raises(LimitError):
            job.run(LENIENT, "output.adopt_source=true", "limits.unit_rows=1", "limits.max_core_hours=0.000001")
    job.run(LENIENT, "output.adopt_source=true")
    assert [row.slice for row in job.read("documents").collect()] == [None] * len(rows)
    moved = {**rows, "d0": (DAYS[1], TEXT_POOL[0])}
    write(job, moved)
    assert job.run(*of_day(0)).removed == 0
    check(truth, job, moved)


def test_sentences_are_shown_of_documents_that_the_source_has(job: Job) -> None:
    """The tables also have documents of other slices, and documents that were deleted after the run had read them."""
    rows: Rows = {f"d{number}": (DAYS[number % 2], TEXT_POOL[number]) for number in range(4)}
    write(job, rows)
    for day in (0, 1):
        job.run(*of_day(day))
    write(job, {"d3": rows["d3"]})
    screen = io.StringIO()
    loaded = settings.load(None, job.options(*of_day(1)), {})
    summaries.print_entities(Console(file=screen, width=200), job.spark, loaded, Tables(job.spark, loaded.output))
    assert [f"d{number}  " in screen.getvalue() for number in range(4)] == [False, False, False, True]


@pytest.mark.deep
def test_slices_of_plain_parquet(job: Job, truth: ExpectedTables) -> None:
    kind = "output.format=parquet"
    rows: Rows = {f"d{i}": (DAYS[i % 2], TEXT_POOL[i]) for i in range(4)}
    write(job, rows)
    assert [job.run(*of_day(day, kind)).documents for day in (1, 0)] == [2, 2]

    # Change both days, but run only the first one, which also loses a document.
    write(job, {"d0": (DAYS[0], TEXT_POOL[7]), "d1": (DAYS[1], TEXT_POOL[8]), "d3": rows["d3"]})
    summary = job.run(*of_day(0, kind))
    assert (summary.documents, summary.removed) == (1, 1)
    check(truth, job, {"d0": (DAYS[0], TEXT_POOL[7]), "d1": rows["d1"], "d3": rows["d3"]})


def test_a_slice_is_never_made_with_full(job: Job) -> None:
    write(job, {"a": (DAYS[0], TEXT_POOL[0])})
    with pytest.raises(SettingsError, match="--full"):
        job.run(*of_day(0), full=True)
