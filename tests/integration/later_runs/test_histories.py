"""Test sources that change during or between runs: the tables must be those of one clean run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from delta_reader import read_delta
from entitymill.run import work_units
from expected_tables import TEXT_POOL, ExpectedTables
from integration.conftest import Job
from integration.delta_source import FEED, Source


@pytest.mark.deep
def test_a_source_rewritten_during_a_run_is_read_at_one_version(
    job: Job, truth: ExpectedTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run reads the source twice: first to count, then for the texts. A commit in between must change nothing."""
    source = Source(job)
    source.append({"d8": TEXT_POOL[14]})
    before, cut = dict(source.rows), work_units.split_work

    def rewriting(*arguments: Any, **options: Any) -> Iterator[work_units.PlannedUnit]:
        source.table.optimize().executeCompaction()
        source.delete("d0", "d4")
        source.overwrite({"d0": TEXT_POOL[16], "d9": TEXT_POOL[17]})
        yield from cut(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(work_units, "split_work", rewriting)
        assert job.run(*source.options(), "limits.unit_rows=4").units_done == 2
    assert source.rows != before
    truth.check(job.output, before)
    assert [row["source_version"] for row in read_delta(job.output / "runs").to_pylist()] == ["1"], (
        "the next goes on from it"
    )


HISTORIES = {
    "feed": [
        ("nothing", "first"),
        ("several", "feed"),
        ("overwrite", "feed"),
        # If a column is dropped and created again, every row changes, but the change feed has no event.
        ("columns", "compare"),
        ("anew", "compare"),
    ],
    "plain": [
        ("append", "first"),
        ("append", "arrivals"),
        ("optimize and vacuum", "feed"),
        ("delete and overwrite", "compare"),
        ("rename", "compare"),
    ],
}
"""Kind of source -> pairs of a change to the source, and the mode of the next run."""
PROPERTIES = {
    "feed": {**FEED, "delta.enableDeletionVectors": "true"},
    "plain": {},
}


def other(chance: random.Random, text: str | None = None) -> str:
    return chance.choice([one for one in TEXT_POOL if one != text])


def change(source: Source, step: str, chance: random.Random, fresh: Iterator[str]) -> None:
    one, another = chance.sample(sorted(source.rows), 2)
    text = source.rows[one]
    match step:
        case "several":
            source.change({one: other(chance, text), next(fresh): other(chance)})
            source.delete(another)
            source.append({next(fresh): other(chance)})
            assert any('"deletionVector"' in commit.read_text() for commit in source.commit.parent.glob("*.json"))
            source.table.optimize().executeCompaction()
        case "append":
            source.append({next(fresh): other(chance)})
            source.append({next(fresh): other(chance)})
        case "delete and overwrite":
            source.delete(one)
            source.overwrite({**source.rows, another: other(chance, source.rows[another])})
        case "overwrite":
            source.overwrite({**source.rows, one: other(chance, text)})
        case "columns":
            source.alter("ADD COLUMN lang STRING")
            source.delete(one)
        case "rename":
            mapped = "'delta.columnMapping.mode' = 'name', 'delta.minReaderVersion' = '2', 'delta.minWriterVersion' = '5'"
            source.alter(f"SET TBLPROPERTIES ({mapped})")
            source.rename("body")
        case "anew":
            source.make_anew({one: other(chance, text)})
        case "optimize and vacuum":
            source.table.optimize().executeCompaction()
            source.table.vacuum()


@pytest.mark.parametrize("kind", ["plain", pytest.param("feed", marks=pytest.mark.deep)])
def test_after_any_history_the_tables_are_those_of_a_clean_run(job: Job, truth: ExpectedTables, kind: str) -> None:
    """Each run must recognize exactly the documents that are new or changed, and remove those that are missing."""
    chance = random.Random(kind)  # noqa: S311  # seeded, not secret
    fresh = (f"e{i}" for i in range(100))
    source = Source(job, **PROPERTIES[kind])
    before: dict[str, str] = {}
    for step, mode in HISTORIES[kind]:
        change(source, step, chance, fresh)
        summary = job.run(*source.options(), "limits.unit_rows=4")

        differ = sum(before.get(key) != text for key, text in source.rows.items())
        gone = len(before.keys() - source.rows.keys())
        assert (summary.mode, summary.documents, summary.removed) == (mode, differ, gone), step
        truth.check(job.output, source.rows)
        runs = {row["run_id"]: row["source_version"] for row in read_delta(job.output / "runs").to_pylist()}
        assert runs[summary.run_id] == str(int(source.commit.stem)), step
        before = dict(source.rows)
