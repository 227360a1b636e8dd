"""Two runs at once on one output: one waits, or gives up clearly; a dead one's lease blocks nobody for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest

from entitymill import settings
from entitymill.errors import OutputError
from entitymill.tables import Tables
from entitymill.tables.commits import Commits
from entitymill.tables.lease import Lease
from entitymill.tables.lease_holder import this_process
from entitymill.tables.publisher import Publisher
from truth import POOL, Truth

from .conftest import ROOT, Job

SOURCE = {f"d{i}": text for i, text in enumerate(POOL[:9])}


def held(job: Job, *overrides: str) -> Lease:
    loaded = settings.load(None, job.options(*overrides), {})
    return Lease(Tables(job.spark, loaded.output), loaded.limits, "another")


def test_a_run_waits_for_another(job: Job, truth: Truth) -> None:
    job.texts(list(SOURCE.items()))
    lease = held(job)
    lease.__enter__()
    threading.Timer(6, lambda: lease.__exit__(None, None, None)).start()
    began = time.monotonic()
    job.run()
    assert time.monotonic() - began > 5
    truth.check(job.output, SOURCE)


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


def test_a_run_that_may_not_wait_says_who_writes(job: Job) -> None:
    job.texts(list(SOURCE.items()))
    with held(job), pytest.raises(OutputError, match=r"run another \(.*\) writes .* limits\.wait_seconds"):
        job.run("limits.wait_seconds=0")
    assert not (job.output / "entities").exists()


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


def left_by(job: Job, process: dict[str, str], until: datetime) -> None:
    """As a run that was killed leaves the lease."""
    lease = held(job)
    lease.__enter__()
    lease._stopped.set()
    set_lease(job, run_id="'dead'", process=f"'{json.dumps(process)}'", until=f"TIMESTAMP '{until:%Y-%m-%d %H:%M:%S%z}'")


def test_a_process_that_is_gone_from_this_machine_blocks_nobody(job: Job) -> None:
    left_by(job, {**this_process(), "pid": "4194305"}, datetime.now(timezone.utc) + timedelta(hours=1))
    assert job.texts(list(SOURCE.items())[:2]).run("limits.wait_seconds=0").documents == 2


def test_a_machine_that_is_gone_blocks_until_its_lease_ends(job: Job) -> None:
    elsewhere = {"host": "elsewhere", "boot": "another", "namespace": "pid:[1]", "pid": "1", "started": "1"}
    left_by(job, elsewhere, datetime.now(timezone.utc) + timedelta(hours=1))
    job.texts(list(SOURCE.items())[:2])
    with pytest.raises(OutputError, match="on elsewhere"):
        job.run("limits.wait_seconds=0")
    set_lease(job, until="current_timestamp()")
    job.run("limits.wait_seconds=0")
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


def test_commits_of_an_older_epoch_write_nothing(job: Job) -> None:
    job.texts(list(SOURCE.items())[:1]).run()
    tables = Tables(job.spark, settings.load(None, job.options(), {}).output)
    row = job.read("runs").limit(1)
    far = 4_000_000_000
    Commits(tables, "young", far).append(row, "runs")
    Commits(tables, "old", far - 1).append(row, "runs")
    assert job.read("runs").count() == 2


@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_two_processes_at_once_end_with_a_correct_table(job: Job, truth: Truth, format_: str) -> None:
    job.texts(list(SOURCE.items()))
    options = job.options("limits.unit_rows=3", "spark.master=local[1]", f"output.format={format_}")
    overrides = [item for option in options for item in ("--set", option)]
    jars = ["--set", f"spark.jars={ROOT}/build/jars", "--set", "spark.conf.spark.driver.memory=2g"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    command = [sys.executable, str(ROOT / "jobs" / "extract_entities.py"), *overrides, *jars]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    runs = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = [run.communicate(timeout=300)[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], said
    truth.check(job.output, SOURCE)


def test_a_parquet_directory_that_is_just_being_swapped_is_not_somebody_elses(
    job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = "output.format=parquet"
    job.texts(list(SOURCE.items())[:2]).run(parquet)
    blank, missed = Tables._blank, []

    def between_two_renames(tables: Tables, name: str) -> bool:
        if not missed:
            missed.append(name)
            raise FileNotFoundError(name)
        return blank(tables, name)

    monkeypatch.setattr(Tables, "_blank", between_two_renames)
    job.texts(list(SOURCE.items())).run(parquet)
    assert missed
    truth.check(job.output, SOURCE)
