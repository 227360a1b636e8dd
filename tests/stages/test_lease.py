"""Test which run may write an output: leases, heartbeats, and the epochs in `runs`."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from entitymill import schemas
from entitymill.commands import list_runs
from entitymill.errors import OutputError, StorageError
from entitymill.run_row import RunRow
from entitymill.settings.sections import LimitSettings, OutputSettings
from entitymill.spark import storage
from entitymill.tables import Tables, heartbeats, lease, runs_without_spark, table_setup
from entitymill.tables.heartbeats import Heartbeat
from entitymill.tables.lease import Lease
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.runs import Record, Runs

from .conftest import DAY, read_rows, tables_at

AT_ONCE = LimitSettings(wait_seconds=0)
OLD = 1000.0
"""Age of a heartbeat that no longer counts, in seconds."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.2)


@pytest.fixture(scope="module")
def with_runs(spark: SparkSession, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an output with an empty `runs`, for tests to copy: a copy takes less time than a new table."""
    place = tmp_path_factory.mktemp("runs")
    Runs(tables_at(spark, place)).create()
    return place


@pytest.fixture
def tables(spark: SparkSession, with_runs: Path, tmp_path: Path) -> Tables:
    shutil.copytree(with_runs, tmp_path, dirs_exist_ok=True)
    return tables_at(spark, tmp_path)


@pytest.fixture(scope="module")
def with_one_run(spark: SparkSession, with_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an output with the row of a run that has ended, for tests to copy."""
    place = tmp_path_factory.mktemp("run")
    shutil.copytree(with_runs, place, dirs_exist_ok=True)
    take_and_end(tables_at(spark, place), "first")
    return place


@pytest.fixture
def tables_after_a_run(spark: SparkSession, with_one_run: Path, tmp_path: Path) -> Tables:
    shutil.copytree(with_one_run, tmp_path, dirs_exist_ok=True)
    return tables_at(spark, tmp_path)


def read_runs(tables: Tables) -> list[dict[str, Any]]:
    """Return the rows of `runs` by epoch."""
    return sorted(read_rows(tables, "runs"), key=lambda row: row["epoch"])


def statuses(tables: Tables) -> list[tuple[str, str]]:
    return [(row["run_id"], row["status"]) for row in read_runs(tables)]


def beating(tables: Tables) -> list[Path]:
    """Return the heartbeat files of all runs."""
    return sorted(Path(str(tables.root).removeprefix("file:"), "_heartbeats").glob("[!.]*"))


def freeze(tables: Tables, name: str) -> Lease:
    """Take the lease for a run whose last heartbeat is outdated."""
    held = Lease(tables, AT_ONCE, name)
    held.__enter__()
    held._stopped.set()
    held._thread.join()
    [file] = beating(tables)
    os.utime(file, (time.time() - OLD, time.time() - OLD))
    return held


def take_and_end(tables: Tables, name: str) -> Lease:
    with Lease(tables, AT_ONCE, name) as held:
        pass
    return held


def test_a_second_run_waits_for_a_live_one_and_names_it(tables: Tables) -> None:
    with Lease(tables, AT_ONCE, "one", lambda: RunRow("one", mode="first")) as one:
        one.commits.earlier_runs_settled = True
        with pytest.raises(OutputError, match=r"run one \(on .*\) is writing to .*/out; run again when it is done"):
            Lease(tables, AT_ONCE, "two").__enter__()
        assert statuses(tables) == [("one", "running")]
        assert [file.name for file in beating(tables)] == ["one"]
    two = take_and_end(tables, "two")
    assert two.earlier_runs.last is not None
    assert (two.earlier_runs.last.run_id, two.earlier_runs.settled) == ("one", True)
    assert two.epoch > one.epoch
    assert statuses(tables) == [("one", "done"), ("two", "done")]
    assert beating(tables) == []


def test_a_run_that_ends_before_it_settled_leaves_that_to_the_next_one(tables_after_a_run: Tables) -> None:
    """The run began no change, but what an earlier run left half done is still there."""
    assert not take_and_end(tables_after_a_run, "next").earlier_runs.settled


def test_epochs_grow_and_a_failed_run_is_recorded(tables: Tables) -> None:
    epochs = []

    def fails(number: int) -> None:
        with Lease(tables, AT_ONCE, f"run {number}") as held:
            epochs.append(held.epoch)
            raise RuntimeError("died")

    for number in range(2):
        with pytest.raises(RuntimeError):
            fails(number)
    assert epochs == sorted(set(epochs))
    assert [status for _, status in statuses(tables)] == ["failed"] * 2


def test_epochs_grow_after_runs_was_deleted(tables_after_a_run: Tables) -> None:
    """Without `runs`, epochs must still grow, because the other tables remember the transaction versions of commits."""
    tables = tables_after_a_run
    [first] = read_runs(tables)
    time.sleep(1)
    shutil.rmtree(tables.address("runs").removeprefix("file:"))
    tables.forget()
    assert take_and_end(tables, "second").epoch > first["epoch"]


def test_a_run_with_an_outdated_heartbeat_is_taken_over_and_notices(tables: Tables) -> None:
    frozen = freeze(tables, "frozen")
    following = take_and_end(tables, "next")
    assert following.epoch > frozen.epoch
    assert following.earlier_runs.latest is not None
    assert (following.earlier_runs.latest.run_id, following.earlier_runs.settled) == ("frozen", False)
    assert statuses(tables) == [("frozen", "died"), ("next", "done")]
    with pytest.raises(OutputError, match="run next took over"):
        frozen.check_now()
    # Delta skips the commit that would record the end of the frozen run.
    with pytest.raises(OutputError, match="run next took over"):
        frozen.end("done")
    assert statuses(tables) == [("frozen", "died"), ("next", "done")]


@pytest.mark.parametrize(("own_seconds", "age", "alive"), [(3600, 1000, True), (3600, 4000, False), (60, 100, True)])
def test_a_run_is_alive_for_the_longer_of_both_leases(tables: Tables, own_seconds: int, age: int, alive: bool) -> None:
    """Other commands may have other settings than the job, whose heartbeats may be rarer than their leases."""
    other = Lease(tables, LimitSettings(lease_seconds=own_seconds), "other")
    other.__enter__()
    [file] = beating(tables)
    os.utime(file, (time.time() - age, time.time() - age))
    mine = Heartbeat(tables, "mine", 120)
    mine.beat(RunRow("mine"))
    assert [row.run_id for row in mine.read_other_runs()] == (["other"] if alive else [])
    mine.stop()
    other.end("done")
    other.__exit__(None, None, None)


def test_a_heartbeat_from_the_future_does_not_count(tables: Tables) -> None:
    """The storage's clock was ahead while a run died, and was then set back. The file counts for one lease more."""
    freeze(tables, "dead")
    [file] = beating(tables)
    looking = Heartbeat(tables, "next", lease_seconds=1)
    looking.beat(RunRow("next"))
    file.write_text(RunRow("dead").to_json())
    os.utime(file, (time.time() + OLD, time.time() + OLD))
    assert [row.run_id for row in looking.read_other_runs()] == ["dead"]
    time.sleep(0.6)
    os.utime(file, (time.time() + OLD, time.time() + OLD))  # a live run has rewritten its file
    time.sleep(0.6)
    assert [row.run_id for row in looking.read_other_runs()] == ["dead"]
    time.sleep(1.1)
    assert looking.read_other_runs() == []
    assert list(looking.dead) == ["dead"]


def test_a_run_that_has_just_rewritten_its_heartbeat_is_alive(tables: Tables) -> None:
    """A process that stalls between its own heartbeat and its look at the others' must not take them for dead."""
    with Lease(tables, AT_ONCE, "one"):
        stalled = Heartbeat(tables, "two", lease_seconds=1)
        stalled.beat(RunRow("two"))
        own = next(file for file in beating(tables) if file.name == "two")
        os.utime(own, (time.time() - OLD, time.time() - OLD))
        assert [row.run_id for row in stalled.read_other_runs()] == ["one"]


def test_a_dead_run_keeps_the_progress_of_its_last_heartbeat(tables: Tables) -> None:
    row = RunRow("dead", mode="first", units=3, planned=9)
    dead = Lease(tables, AT_ONCE, "dead", lambda: row)
    dead.__enter__()
    dead._stopped.set()
    dead._thread.join()
    assert dead._heartbeat is not None
    dead._heartbeat.beat(replace(row, status="running", stage="writing", units_done=2, documents=6))
    [file] = beating(tables)
    os.utime(file, (time.time() - OLD, time.time() - OLD))
    take_and_end(tables, "next")
    found = {row.run_id: row for row in list_runs.read_runs(tables, 2)}
    last = found["dead"]
    assert (last.status, last.stage, last.units_done, last.documents, last.planned) == ("died", "writing", 2, 6, 9)
    assert found["next"].units_done == 0


def test_a_run_that_came_and_went_since_the_last_look_is_noticed(tables_after_a_run: Tables) -> None:
    tables = tables_after_a_run
    seen = Runs(tables).read_record()
    between = take_and_end(tables, "between")
    with Lease(tables, LimitSettings(wait_seconds=60), "last", record=seen) as held:
        assert held.earlier_runs.latest is not None
        assert held.earlier_runs.latest.run_id == "between"
        assert held.epoch > between.epoch


@pytest.mark.parametrize("waits", [True, False])
def test_a_look_from_before_the_end_of_the_other_run_is_outdated(tables: Tables, waits: bool) -> None:
    """The run saw the other one at work. Only at its end does that run become the owner, and its changes complete."""
    other = Lease(tables, AT_ONCE, "other", lambda: RunRow("other", mode="first", source="/theirs"))
    other.__enter__()
    other.commits.earlier_runs_settled = True
    seen = Runs(tables).read_record()
    assert seen.latest is not None
    assert (seen.latest.status, seen.settled) == ("running", False)

    def end(_: object = None) -> None:
        other.end("done")
        other.__exit__(None, None, None)

    if not waits:
        end()
    with Lease(tables, LimitSettings(wait_seconds=60), "last", record=seen, on_wait=end) as held:
        found = held.earlier_runs
    assert found.latest is not None
    assert (found.latest.run_id, found.latest.status, found.owner) == ("other", "done", "/theirs")
    assert (found.settled, found.running) == (True, False)


def test_heartbeats_show_how_far_a_run_is(tables: Tables) -> None:
    row = RunRow("one", mode="first", planned=9, units=3)
    with Lease(tables, LimitSettings(wait_seconds=0, lease_seconds=6), "one", lambda: row):
        version = tables.version("runs")
        row = replace(row, documents=6, units_done=2)
        for _ in range(100):
            time.sleep(0.1)
            if [one.units_done for one in runs_without_spark.read_heartbeats(tables.settings, {})] == [2]:
                break
        [found] = list_runs.read_runs(tables, 1)
        assert (found.status, found.documents, found.units_done) == ("running", 6, 2)
        [same] = list_runs._read_local_runs(tables.settings, {}, 1) or []
        assert replace(same, until=None) == replace(found, until=None)
        assert tables.version("runs") == version, "a heartbeat is no commit"
    take_and_end(tables, "two")
    assert list_runs._read_local_runs(tables.settings, {}, 5) == list_runs.read_runs(tables, 5)
    assert [row.run_id for row in list_runs._read_local_runs(tables.settings, {}, 1) or []] == ["two"]


def test_runs_are_read_without_spark_only_where_that_is_possible(tables_after_a_run: Tables, tmp_path: Path) -> None:
    tables = tables_after_a_run
    for place in (
        OutputSettings(schema="texts"),
        OutputSettings(path="s3a://lake/out"),
        OutputSettings(path=f"{tmp_path}/no"),
    ):
        assert runs_without_spark.read_rows(place, {}, 1) is None
        assert runs_without_spark.read_heartbeats(place, {}) == []
    pipe = tmp_path / "piped" / "_heartbeats" / "one"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    assert (
        runs_without_spark.read_heartbeats(OutputSettings(path=f"{tmp_path}/piped"), {}) == []
    )  # without waiting for a writer
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match="no run has written"):
        runs_without_spark.read_rows(OutputSettings(path=f"{tmp_path}/empty"), {}, 1)
    elsewhere_by_default = {"spark.hadoop.fs.defaultFS": "hdfs://name:8020"}
    assert runs_without_spark.read_rows(OutputSettings(path=f"{tmp_path}/empty"), elsewhere_by_default, 1) is None
    tables.spark.sql(f"ALTER TABLE {tables.sql_name('runs')} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    tables.spark.sql(f"DELETE FROM {tables.sql_name('runs')} WHERE run_id = 'none'")
    found = runs_without_spark.read_rows(tables.settings, {}, 1)
    assert found is None or [row.run_id for row in found] == ["first"]


def test_a_lease_without_heartbeats_is_renewed_by_commits(tables_after_a_run: Tables) -> None:
    """In a catalog without known directories there are no heartbeats, so commits must renew the lease.

    They must do so even during a statement that has a transaction version in its session.
    """
    tables = tables_after_a_run
    held = Lease(tables, LimitSettings(wait_seconds=0, lease_seconds=1), "one")
    held._heartbeat = None
    with held:
        before = read_runs(tables)[-1]["until"]

        def slow(**_: object) -> None:
            for _attempt in range(100):
                time.sleep(0.1)
                if read_runs(tables)[-1]["until"] > before:
                    return
            raise AssertionError("not renewed")

        held.commits.execute("rejects", slow)
    assert statuses(tables)[-1] == ("one", "done")


@pytest.mark.parametrize(("lease_seconds", "taken"), [(600, False), (1, True)])
def test_without_heartbeats_the_lease_in_runs_counts(tables: Tables, lease_seconds: int, taken: bool) -> None:
    dead = Lease(tables, LimitSettings(wait_seconds=0, lease_seconds=lease_seconds), "dead")
    following = Lease(tables, AT_ONCE, "next")
    dead._heartbeat = following._heartbeat = None
    dead.__enter__()
    dead._stopped.set()
    dead._thread.join()
    if not taken:
        with pytest.raises(OutputError, match=r"run dead \(on .*, its lease lasts until .*\) is writing"):
            following.__enter__()
        return
    time.sleep(1)
    with following:
        following.check_now()
    assert statuses(tables) == [("dead", "died"), ("next", "done")]


def test_of_runs_that_start_at_once_one_has_it(spark: SparkSession, tmp_path: Path) -> None:
    tables = tables_at(spark, tmp_path)  # `runs` is not there yet
    inside, most, lock = [], [], threading.Lock()

    def run(name: str) -> None:
        own = tables_at(spark, tmp_path)
        with Lease(own, LimitSettings(wait_seconds=120), name):
            with lock:
                inside.append(name)
                most.append(len(inside))
            time.sleep(0.5)
            with lock:
                inside.remove(name)

    threads = [threading.Thread(target=run, args=(f"run {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert sorted(statuses(tables)) == [("run 0", "done"), ("run 1", "done"), ("run 2", "done")]
    assert len({row["epoch"] for row in read_runs(tables)}) == 3


def test_of_two_runs_with_one_epoch_delta_takes_one(tables: Tables) -> None:
    """Two runs that begin in the same second may not see each other's heartbeat, and may choose the same epoch."""
    found = Runs(tables).read_record()
    one, two = (Lease(tables, AT_ONCE, name) for name in ("one", "two"))
    assert one._begin(found, 7)
    assert not two._begin(found, 7)
    assert statuses(tables) == [("one", "running")]


def test_commits_of_a_run_that_broke_off_come_too_late(tables: Tables) -> None:
    """The last statement of a run may continue after its notebook cell is stopped. Delta must then skip the commit."""
    table_setup.create_table(tables, "rejects", schemas.REJECTS)

    def broken_off() -> None:
        with Lease(tables, AT_ONCE, "stopped") as held:
            theirs.append(held.commits)
            raise KeyboardInterrupt

    theirs: list[Commits] = []
    with pytest.raises(KeyboardInterrupt):
        broken_off()
    with Lease(tables, AT_ONCE, "next") as held:
        held.commits.fence("rejects")
    columns = "'d1' AS doc_id, 'source' AS stage, 'null_text' AS code, 'stopped' AS run_id, now() AS at"
    theirs[0].append(tables.spark.sql(f"SELECT {columns}"), "rejects")
    assert read_rows(tables, "rejects") == []


@pytest.mark.parametrize("kind", [OSError, StorageError])
def test_a_lease_is_given_back_though_its_heartbeat_cannot_be_deleted(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fails(*_: object) -> None:
        raise kind("the storage is gone")

    with Lease(tables, AT_ONCE, "one"), monkeypatch.context() as patched:
        patched.setattr(storage, "remove", fails)
        Heartbeat(tables, "one", 1).stop()
    assert statuses(tables) == [("one", "done")]


@pytest.mark.parametrize(("left", "alive"), [(0.0, ["other"]), (OLD, [])])
def test_an_outdated_heartbeat_is_deleted_whatever_its_clock(tables: Tables, left: float, alive: list[str]) -> None:
    """The storage's clock decides the age of a heartbeat; times that a run writes into its heartbeat do not count."""
    other = Heartbeat(tables, "other", 120)
    other.beat(RunRow("other", DAY))
    [file] = beating(tables)
    os.utime(file, (time.time() - left, time.time() - left))
    own = Heartbeat(tables, "own", 120)
    own.beat(RunRow("own"))
    assert [row.run_id for row in own.read_other_runs()] == alive
    assert [path.name for path in beating(tables)] == sorted([*alive, "own"])
    own.stop()


def test_a_heartbeat_that_is_just_being_written_counts(tables: Tables) -> None:
    own = Heartbeat(tables, "own", 120)
    own.beat(RunRow("own"))
    (beating(tables)[0].parent / "other").write_text('{"run_id": "ot')
    assert own.read_other_runs() == [RunRow("other")]
    with pytest.raises(OutputError, match=r"run other \(on an unknown host\) is writing"):
        Lease(tables, AT_ONCE, "next").__enter__()
    assert sorted(heartbeats.read_all(tables), key=lambda row: row.run_id) == [RunRow("other"), RunRow("own")]


def test_of_several_heartbeats_the_holders_is_named() -> None:
    waiting = [RunRow(f"waits {number}", DAY + timedelta(minutes=number)) for number in (1, 2)]
    begun, incomplete = RunRow("holds", DAY), RunRow("just written")
    for rows in itertools.permutations([*waiting, incomplete, begun]):
        assert min(rows, key=lease._rank_as_holder).run_id == "holds"
    working = RunRow("works", DAY + timedelta(hours=1), status="running")
    assert min([*waiting, incomplete, working], key=lease._rank_as_holder).run_id == "works"


def test_processes_are_named_by_their_host() -> None:
    row = RunRow("a", process=json.dumps({"host": "here", "pid": 1}))
    assert lease._describe_run(row) == "run a (on here)"
    named = f"run a (on an unknown host, its lease lasts until {DAY.astimezone():%Y-%m-%d %H:%M:%S})"
    assert lease._describe_run(RunRow("a", until=DAY)) == named


def test_a_run_that_begins_between_two_looks_is_seen(tables_after_a_run: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """B must see a run C that begins while B takes its epoch, even without heartbeats, as in a catalog.

    B reads `runs`, then the first run begins and ends, and C begins while B looks for the greatest epoch.
    """
    tables = tables_after_a_run
    limits = LimitSettings(wait_seconds=0, lease_seconds=600)
    outdated = Record()
    late = Lease(Tables(tables.spark, tables.settings), limits, "C")
    waiting = Lease(tables, limits, "B", record=outdated)
    late._heartbeat = waiting._heartbeat = None
    original = Runs.read_greatest_epoch_in_history
    begun: list[int] = []

    def read_while_another_begins(runs: Runs) -> int:
        if not begun:
            begun.append(1)
            late.__enter__()
        return original(runs)

    monkeypatch.setattr(Runs, "read_greatest_epoch_in_history", read_while_another_begins)
    with pytest.raises(OutputError, match=r"run C .* is writing"):
        waiting.__enter__()
    assert begun
    late.end("done")
    assert statuses(tables) == [("first", "done"), ("C", "done")]


def test_a_look_is_not_certain_if_the_epoch_is_not_the_next_one(tables_after_a_run: Tables) -> None:
    tables = tables_after_a_run
    before = tables.version("runs")
    take_and_end(tables, "two")
    tables.spark.sql(f"RESTORE TABLE {tables.sql_name('runs')} TO VERSION AS OF {before}")
    following = take_and_end(tables, "next")
    latest = following.earlier_runs.latest
    assert latest is not None
    assert (latest.run_id, latest.settled, following.earlier_runs.settled) == ("first", False, False)
    assert following.epoch == (latest.epoch or 0) + 2
    assert not following.earlier_runs.certain


def test_a_heartbeat_that_fails_leaves_no_change_open(tables: Tables) -> None:
    with Lease(tables, AT_ONCE, "one") as held:
        held.commits.earlier_runs_settled = True

        def fail() -> None:
            raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011  # our own
            held.commits._commit("runs", fail)
        assert held.commits.settled
