"""Two runs at once on one output: one waits, or gives up clearly; a dead one's lease blocks nobody for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from entitymill import settings
from entitymill.errors import OutputError
from entitymill.run.extraction import extract
from entitymill.tables import Tables, lease
from entitymill.tables.lease import Lease, this_process
from entitymill.tables.publisher import Publisher
from small_queries import SMALL_QUERIES
from truth import POOL, Truth

from .conftest import ROOT, Job

LOGGING = ROOT / "conf" / "log4j2.properties"
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=400m"
"""For one short run, to which the second compiler would cost more than it saves."""
NO_PROCESS = "4194305"
"""Linux gives out no pid above 4194304."""
SOURCE = {f"d{i}": text for i, text in enumerate(POOL[:9])}


def test_a_run_that_waited_reads_what_the_source_has_become(job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would bring back an older version than the run it waited for has published."""
    job.texts(list(SOURCE.items()))
    changed = {**SOURCE, "d0": POOL[5]}
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


def set_lease(job: Job, **columns: str) -> None:
    """Of the run that holds the lease, from outside."""
    changed = ", ".join(f"{name} = {value}" for name, value in columns.items())
    job.spark.sql(f"UPDATE delta.`{job.output}/runs` SET {changed} WHERE status = 'running'")


@pytest.fixture
def outdated(job: Job, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the lease one of a process that slept for long, as its own clock shows it when it wakes up."""
    check = Lease.check
    monkeypatch.setattr(Lease, "check", lambda lease, **_: check(lease, surely=True))
    return lambda: set_lease(job, until="TIMESTAMP '2020-01-01 00:00:00'")


def test_a_run_of_another_machine_blocks_and_a_process_that_is_gone_from_this_one_does_not(job: Job) -> None:
    """That the end of the lease frees the output: tests/stages/test_lease.py."""
    loaded = settings.load(None, job.options(), {})
    dead = Lease(Tables(job.spark, loaded.output), loaded.limits, "dead")
    dead.__enter__()
    dead._stopped.set()  # as a run that was killed leaves the lease
    elsewhere = {"host": "elsewhere", "boot": "another", "namespace": "pid:[1]", "pid": "1", "started": "1"}
    until = datetime.now(timezone.utc) + timedelta(hours=1)
    set_lease(job, process=f"'{json.dumps(elsewhere)}'", until=f"TIMESTAMP '{until:%Y-%m-%d %H:%M:%S%z}'")
    job.texts(list(SOURCE.items())[:2])
    with pytest.raises(OutputError, match=r"run dead \(on elsewhere, .* writes .* limits\.wait_seconds"):
        job.run("limits.wait_seconds=0")
    assert not (job.output / "entities").exists()

    set_lease(job, process=f"'{json.dumps({**this_process(), 'pid': NO_PROCESS})}'")
    assert job.run("limits.wait_seconds=0").documents == 2
    assert sorted(row.status for row in job.read("runs").collect()) == ["died", "done"]


def test_a_run_taken_for_dead_publishes_nothing_more(
    job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch, outdated: Callable[[], None]
) -> None:
    """It wakes up in the middle of a unit, when another run has done everything."""
    job.texts(list(SOURCE.items()))
    publish = Publisher.publish
    woken: list[str] = []

    def after_another_run(publisher: Publisher, *rest: object, **named: object) -> None:
        if not woken:
            woken.append("now")
            outdated()
            changed = {**SOURCE, "d0": POOL[5]}
            job.texts(list(changed.items())).run("limits.wait_seconds=0")
            publish(publisher, *rest, **named)
            truth.check(job.output, changed)
        else:
            publish(publisher, *rest, **named)

    monkeypatch.setattr(Publisher, "publish", after_another_run)
    with pytest.raises(OutputError, match="took over"):
        job.run()
    truth.check(job.output, {**SOURCE, "d0": POOL[5]})


def test_a_run_taken_for_dead_cannot_publish_before_the_next_one_does(
    job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch, outdated: Callable[[], None]
) -> None:
    """It wakes up while its successor is between looking at the tables and changing them."""
    job.texts(list(SOURCE.items()))
    publish = Publisher.publish
    calls: list[tuple[object, ...]] = []

    def interleaved(publisher: Publisher, *rest: object, **named: object) -> None:
        calls.append((publisher, *rest))
        if len(calls) == 1:
            outdated()
            job.run("limits.wait_seconds=0")
        else:
            publish(*calls[0], **named)  # type: ignore[arg-type]
            publish(publisher, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Publisher, "publish", interleaved)
    with pytest.raises(OutputError, match="took over"):
        job.run()
    truth.check(job.output, SOURCE)


def test_two_processes_at_once_end_with_a_correct_table(job: Job, truth: Truth) -> None:
    """This one's run waits for the other's. Of first runs that start at once: tests/stages/test_lease.py."""
    job.texts(list(SOURCE.items()))
    small = [f"spark.conf.{name}={value}" for name, value in SMALL_QUERIES.items()]
    quick = f"spark.conf.spark.driver.extraJavaOptions=-Dlog4j2.configurationFile={LOGGING.as_uri()} {QUICK_START}"
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


def test_two_runs_at_once_end_with_correct_plain_parquet(job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions of this process: each run sets its own confs."""
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.5)
    loaded = settings.load(None, job.texts(list(SOURCE.items())).options("output.format=parquet"), {})
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(extract, job.spark.newSession(), loaded) for _ in range(2)]
        found = [run.result(300) for run in runs]
    truth.check(job.output, SOURCE)
    assert sorted(run.documents for run in found) == [0, 9]
    [waited] = [run for run in found if run.waiting]
    assert waited.documents == 0
