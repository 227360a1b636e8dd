"""Test that one of two runs on the same output waits for the other; test_frozen_runs.py tests frozen runs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from entitymill import settings
from entitymill.errors import StorageError
from entitymill.run import exit_codes
from entitymill.run.extraction import extract
from entitymill.tables import lease
from entitymill.tables.lease import Lease
from expected_tables import TEXT_POOL, ExpectedTables
from small_queries import SMALL_QUERIES

from .conftest import ROOT, Job

QUICK_START = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=400m"
"""Java options for a short run, in which Java's optimizing compiler (C2) would take more time than it saves."""
SOURCE = {f"d{i}": text for i, text in enumerate(TEXT_POOL[:9])}


def test_a_run_that_waited_reads_what_the_source_has_become(
    job: Job, truth: ExpectedTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waited must read the source after the wait; otherwise, it would replace newer results by older ones."""
    job.texts(list(SOURCE.items()))
    changed = {**SOURCE, "d0": TEXT_POOL[5]}
    enter = Lease.__enter__
    others: list[str] = []

    def after_another_run(lease: Lease) -> Lease:
        if not others:
            others.append("at work")
            job.texts(list(changed.items())).run()
        return enter(lease)

    monkeypatch.setattr(Lease, "__enter__", after_another_run)
    job.run()
    assert others
    truth.check(job.output, changed)


def test_a_run_that_fails_at_its_very_end_says_so_in_the_log(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`entitymill runs` looks for this line in the log of a run whose end is not in the table `runs`."""

    def fail(_: Lease, status: str) -> None:
        raise StorageError(f"{status} cannot be written")

    monkeypatch.setattr(Lease, "end", fail)
    with caplog.at_level(logging.INFO, "entitymill"), pytest.raises(StorageError, match="done cannot be written"):
        job.texts([("a", "Paris is old.")]).run()
    run = job.read("runs").first()
    assert run is not None
    assert exit_codes.RUN_FAILED % (run.run_id, "done cannot be written") in caplog.messages


@pytest.mark.deep
def test_two_processes_at_once_end_with_a_correct_table(job: Job, truth: ExpectedTables) -> None:
    """A run must wait for a run in another process; tests/stages/test_lease.py tests first runs that start together."""
    job.texts(list(SOURCE.items()))
    small = [f"spark.conf.{name}={value}" for name, value in SMALL_QUERIES.items()]
    quick = f"spark.conf.spark.driver.defaultJavaOptions={QUICK_START}"
    machine = ["spark.master=local[1]", f"spark.jars={ROOT}/build/jars", "spark.conf.spark.driver.memory=2g", quick, *small]
    overrides = [item for option in job.options("limits.unit_rows=3", *machine) for item in ("--set", option)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    command = [sys.executable, str(ROOT / "jobs" / "extract_entities.py"), *overrides]
    row_of_the_other = job.output / "runs" / "_delta_log" / f"{1:020}.json"
    with (job.directory / "said").open("w") as said:
        other = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            while other.poll() is None and not row_of_the_other.exists():
                time.sleep(0.05)
            mine = job.run("limits.unit_rows=3")
            code = other.wait(300)
        finally:
            other.kill()

    assert code == 0, (job.directory / "said").read_text()
    truth.check(job.output, SOURCE)
    first, second = job.read("runs").orderBy("started_at").collect()
    assert [(run.status, run.documents) for run in (first, second)] == [("done", 9), ("done", 0)]
    assert second.run_id == mine.run_id
    assert mine.waiting.startswith(f"run {first.run_id} (on "), "they have to meet"
    assert first.ended_at <= second.started_at
    assert second.seconds["waiting"] > 0
    assert "waiting" not in first.seconds


@pytest.mark.deep
def test_two_runs_at_once_end_with_correct_plain_parquet(
    job: Job, truth: ExpectedTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs in different sessions of one process must end with a correct export; one of them must wait."""
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.5)
    loaded = settings.load(None, job.texts(list(SOURCE.items())).options("output.format=parquet"), {})
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(extract, job.spark.newSession(), loaded) for _ in range(2)]
        found = [run.result(300) for run in runs]
    truth.check(job.output, SOURCE)
    assert sorted(run.documents for run in found) == [0, 9]
    # Both runs waited if each of them saw the other's heartbeat.
    assert all(run.waiting for run in found if run.documents == 0)
