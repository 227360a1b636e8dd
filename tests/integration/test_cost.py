"""How many Spark jobs a run takes: a machine's speed has no say in it. A stand-in for the engine."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from bench.counters import counters
from bench.stub import open_stub
from entitymill.run import extraction

from .conftest import Job

FIRST, NOTHING, CHANGED = 30, 5, 50
"""Jobs at most; docs/performance.md has what a bench counted."""


def test_a_run_takes_few_jobs(spark: SparkSession, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "open_engine", open_stub)
    texts = [(f"d{number}", f"Anna Berlin {number}") for number in range(10)]

    def jobs() -> int:
        before, _ = counters(spark)
        job.run()
        return counters(spark)[0] - before

    job.texts(texts)
    assert jobs() <= FIRST
    assert jobs() <= NOTHING
    job.texts([*texts[:-1], ("d9", "Bob Paris 9"), ("d10", "Carl Rome 10")])
    assert jobs() <= CHANGED
