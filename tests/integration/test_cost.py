"""Test how many Spark jobs and commits a run takes, which is independent of the machine; the engine is a stub."""

from __future__ import annotations

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from bench.spark_counters import count_jobs
from bench.stub_engine import open_stub
from delta_reader import read_delta
from entitymill.run import extraction
from entitymill.run.summary import Summary

from .conftest import Job
from .stub_world import World, make_texts, world

__all__ = ["world"]
FIRST, NOTHING, COMPARED, CHANGED, COMMITS = 22, 5, 50, 42, 4
"""Maximum number of Spark jobs for each kind of run, and number of commits; docs/performance.md has measured numbers."""


def versions(job: Job) -> list[int]:
    return [DeltaTable(job.output / name).version() for name in ("entities", "documents", "rejects")]


@pytest.mark.deep
def test_a_run_takes_few_jobs_and_one_with_nothing_to_do_touches_nothing(
    spark: SparkSession, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "open_engine", open_stub)
    texts = [(f"d{number}", f"Anna Berlin {number}") for number in range(10)]

    def run() -> tuple[str, int, int]:
        """Run the job; return its mode, its number of documents and its number of Spark jobs."""
        before, _ = count_jobs(spark)
        summary = job.run()
        return summary.mode, summary.documents, count_jobs(spark)[0] - before

    job.texts(texts)
    *found, jobs = run()
    assert found == ["first", 10]
    assert jobs <= FIRST

    before = versions(job)
    *found, jobs = run()
    assert found == ["none", 0]
    assert jobs <= NOTHING
    assert versions(job) == before
    assert read_delta(job.output / "runs")["status"].to_pylist() == ["done", "done"]

    job.texts([*texts[:-1], ("d9", "Bob Paris 9"), ("d10", "Carl Rome 10")])
    *found, jobs = run()
    assert found == ["compare", 2]
    assert jobs <= COMPARED


def test_a_night_with_a_change_feed_takes_few_jobs_and_four_commits(spark: SparkSession, world: World) -> None:
    """If 100 of 1,000 documents changed, a run must take at most CHANGED Spark jobs, and exactly COMMITS commits."""
    world.create(make_texts(1000))
    world.run()
    world.put({key: f"New{key} Town more" for key in list(world.rows)[::10]})
    commits, (before, _) = count_commits(world), count_jobs(spark)
    summary: Summary = world.run()
    assert (summary.mode, summary.documents) == ("feed", 100)
    assert count_jobs(spark)[0] - before <= CHANGED
    assert count_commits(world) - commits == COMMITS


def count_commits(world: World) -> int:
    return len(list(world.output.glob("*/_delta_log/*.json")))
