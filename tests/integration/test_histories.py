"""A source that changes while a run reads it, or from run to run: the tables are those of one clean run."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from entitymill.tables.publisher import Publisher
from truth import POOL, Truth

from .conftest import Job
from .delta_source import FEED, Source


@pytest.mark.parametrize("how", ["overwrite", "optimize", "delete"])
def test_a_source_rewritten_during_a_run_is_read_at_one_version(
    job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    source = Source(job)
    source.append({"d8": POOL[14]})
    before, publish, units = dict(source.rows), Publisher.publish, itertools.count(1)

    def rewriting(publisher: Publisher, *rest: Any, **named: Any) -> None:
        if next(units) == 2:
            match how:
                case "overwrite":
                    source.overwrite({"d0": POOL[16], "d9": POOL[17]})
                case "optimize":
                    source.table.optimize().executeCompaction()
                case "delete":
                    source.delete("d0", "d4")
        publish(publisher, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Publisher, "publish", rewriting)
        job.run(*source.options(), "limits.unit_rows=3")
    assert next(units) > 2
    truth.check(job.output, before)
    job.run(*source.options())
    truth.check(job.output, source.rows)


STEPS = {
    "feed": ["append", "change", "delete", "optimize", "overwrite", "change", "nothing"],
    "plain": ["append", "optimize", "append", "delete", "vacuum", "change", "append"],
}


@pytest.mark.parametrize("kind", STEPS)
def test_after_any_history_the_tables_are_those_of_a_clean_run(job: Job, truth: Truth, kind: str) -> None:
    chance = random.Random(kind)  # noqa: S311  # seeded, not secret
    source = Source(job, **(FEED if kind == "feed" else {}))
    fresh = (f"e{i}" for i in range(100))
    for step in STEPS[kind]:
        some = chance.sample(sorted(source.rows), 2)
        match step:
            case "append":
                source.append({next(fresh): chance.choice(POOL)})
            case "change":
                source.change({some[0]: chance.choice(POOL), next(fresh): chance.choice(POOL)})
            case "delete":
                source.delete(some[0])
            case "overwrite":
                source.overwrite({**source.rows, some[1]: chance.choice(POOL)})
            case "optimize":
                source.table.optimize().executeCompaction()
            case "vacuum":
                source.table.vacuum()
        job.run(*source.options(), "limits.unit_rows=2")
        truth.check(job.output, source.rows)
