"""A slice's rerun replaces exactly its own rows, whatever the order, and also when it finds none."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from entitymill.errors import SettingsError
from truth import POOL, Truth

from .conftest import Job

DAYS = [dt.date(2026, 11, day) for day in (1, 2, 3)]
Rows = dict[str, tuple[dt.date, str]]


def write(job: Job, rows: Rows) -> None:
    days, texts = [day for day, _ in rows.values()], [text for _, text in rows.values()]
    job.texts(pa.table({"id": list(rows), "day": pa.array(days, pa.date32()), "text": pa.array(texts, pa.string())}))


def run(job: Job, day: dt.date, *overrides: str) -> int:
    return job.run(f"source.where=day = '{day}'", "output.replace_slice=true", *overrides).documents


def check(truth: Truth, job: Job, *parts: Rows) -> None:
    truth.check(job.output, {key: text for part in parts for key, (_, text) in part.items()})


def of(rows: Rows, day: dt.date) -> Rows:
    return {key: row for key, row in rows.items() if row[0] == day}


@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_slices_in_any_order_and_again(job: Job, truth: Truth, format_: str) -> None:
    kind = f"output.format={format_}"
    rows: Rows = {f"d{i}": (DAYS[i % 3], POOL[i]) for i in range(6)}
    write(job, rows)
    assert [run(job, DAYS[day], kind) for day in (2, 0, 1)] == [2, 2, 2]
    check(truth, job, rows)

    # The first day changes and shrinks, the second is emptied, the third is not run again.
    changed: Rows = {"d0": (DAYS[0], POOL[7]), "d2": (DAYS[2], POOL[8]), "d5": rows["d5"]}
    write(job, changed)
    assert [run(job, DAYS[1], kind), run(job, DAYS[0], kind)] == [0, 1]
    check(truth, job, of(changed, DAYS[0]), of(rows, DAYS[2]))
    assert run(job, DAYS[2], kind) == 1
    check(truth, job, changed)


def test_a_document_that_moves_to_another_slice_stays_one(job: Job, truth: Truth) -> None:
    rows: Rows = {"stays": (DAYS[0], POOL[0]), "moves": (DAYS[0], POOL[1])}
    write(job, rows)
    run(job, DAYS[0])
    moved: Rows = {**rows, "moves": (DAYS[1], POOL[1])}
    write(job, moved)
    run(job, DAYS[1])
    check(truth, job, moved)
    run(job, DAYS[0])
    check(truth, job, moved)


def test_a_whole_run_takes_every_document_over(job: Job, truth: Truth) -> None:
    rows: Rows = {"moves": (DAYS[0], POOL[1]), "falls": (DAYS[0], POOL[2])}
    write(job, rows)
    run(job, DAYS[0])
    write(job, {**rows, "moves": (DAYS[1], POOL[1])})
    assert job.run().documents == 0
    run(job, DAYS[0])
    assert {row.doc_id for row in job.read("documents").collect()} == {"moves", "falls"}

    job.run()
    write(job, {"moves": rows["moves"], "falls": (DAYS[0], None)})  # type: ignore[dict-item]
    run(job, DAYS[0], "limits.max_reject_ratio=1")
    check(truth, job, {"moves": rows["moves"]})


def test_rejects_are_those_of_the_slices_last_runs(job: Job) -> None:
    lenient = "limits.max_reject_ratio=1"
    write(job, {"a": (DAYS[0], None), "b": (DAYS[1], None)})  # type: ignore[dict-item]
    run(job, DAYS[0], lenient)
    run(job, DAYS[1], lenient)
    assert job.rejects() == [("a", "null_text"), ("b", "null_text")]
    write(job, {"a": (DAYS[0], POOL[0]), "b": (DAYS[1], None)})  # type: ignore[dict-item]
    run(job, DAYS[0], lenient)
    assert job.rejects() == [("b", "null_text")]


def test_a_slice_is_never_made_with_full(job: Job) -> None:
    write(job, {"a": (DAYS[0], POOL[0])})
    with pytest.raises(SettingsError, match="--full"):
        job.run(f"source.where=day = '{DAYS[0]}'", "output.replace_slice=true", full=True)
