"""Who may write an output: the running row of `runs`."""

from __future__ import annotations

import shutil
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.settings.sections import LimitSettings
from entitymill.tables import Tables, lease, table_setup
from entitymill.tables.commits import Commits
from entitymill.tables.lease import Lease
from entitymill.tables.runs import Runs

from .conftest import tables_at

AT_ONCE = LimitSettings(wait_seconds=0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)


@pytest.fixture(scope="module")
def with_runs(spark: SparkSession, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with an empty `runs`, which costs more to make than to copy."""
    place = tmp_path_factory.mktemp("runs")
    Runs(tables_at(spark, place)).create()
    return place


@pytest.fixture
def tables(spark: SparkSession, with_runs: Path, tmp_path: Path) -> Tables:
    shutil.copytree(with_runs, tmp_path, dirs_exist_ok=True)
    return tables_at(spark, tmp_path)


def statuses(tables: Tables) -> list[tuple[str, str]]:
    return [(row["run_id"], row["status"]) for row in tables.read("runs").orderBy("epoch").collect()]


def test_a_second_run_waits_and_says_for_whom(tables: Tables) -> None:
    with Lease(tables, AT_ONCE, "one", lambda: {"mode": "first"}):
        with pytest.raises(
            OutputError, match=r"run one \(.*its lease lasts until .*\) writes .*/out; run again when it is done"
        ):
            Lease(tables, AT_ONCE, "two").__enter__()
        assert statuses(tables) == [("one", "running")]
    with Lease(tables, AT_ONCE, "two") as held:
        assert held.before.last is not None
        assert held.before.last["run_id"] == "one"
    assert statuses(tables) == [("one", "done"), ("two", "done")]


def test_epochs_grow_and_a_failed_run_says_so(tables: Tables) -> None:
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


def left(tables: Tables, until: datetime) -> None:
    """What a run leaves that died: its row, running."""
    held = Lease(tables, AT_ONCE, "dead")
    held.__enter__()
    held._stopped.set()
    held._thread.join()
    row = {**held._whole("running"), "until": until}
    Runs(tables).put(row, held.commits)


@pytest.mark.parametrize(("gone", "minutes", "taken"), [(False, -1, True), (True, 5, True), (False, 5, False)])
def test_a_dead_runs_lease_is_taken_over(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, gone: bool, minutes: int, taken: bool
) -> None:
    left(tables, datetime.now(timezone.utc) + timedelta(minutes=minutes))
    monkeypatch.setattr(lease, "process_gone", lambda _: gone)
    if not taken:
        with pytest.raises(OutputError, match="run dead"):
            Lease(tables, AT_ONCE, "next").__enter__()
        return
    with Lease(tables, AT_ONCE, "next") as held:
        held.check(surely=True)
    assert statuses(tables) == [("dead", "died"), ("next", "done")]


def test_a_lease_is_renewed_while_a_long_statement_runs(tables: Tables) -> None:
    """A MERGE takes its number from the session's properties, which every commit of the session sees."""
    with Lease(tables, AT_ONCE, "one") as held:
        before = tables.read("runs").collect()[0]["until"]

        def merge() -> None:
            for _ in range(2):
                Runs(tables).put(held._whole("running"), held.commits)

        held.commits.change("entities", merge)
        [row] = tables.read("runs").collect()
        assert row["until"] > before


def test_who_lost_the_lease_finds_out(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "process_gone", lambda _: True)
    with Lease(tables, AT_ONCE, "asleep") as asleep:
        with Lease(tables, AT_ONCE, "next"):
            pass
        with pytest.raises(OutputError, match="run next took over"):
            asleep.check(surely=True)


def test_of_runs_that_start_at_once_one_has_it(spark: SparkSession, tmp_path: Path) -> None:
    tables = tables_at(spark, tmp_path)  # `runs` is not there yet
    inside, most, lock = [], [], threading.Lock()
    told: dict[str, list[str]] = {}
    others = threading.Event()

    def run(name: str) -> None:
        def waits(holder: str) -> None:
            told.setdefault(name, []).append(holder)
            if sum(said[-1].startswith("run ") for said in told.values()) >= 2:
                others.set()

        with Lease(tables, LimitSettings(wait_seconds=60), name, waits=waits):
            with lock:
                inside.append(name)
                most.append(len(inside))
            assert others.wait(60), "two of three have to wait"
            with lock:
                inside.remove(name)

    threads = [threading.Thread(target=run, args=(f"run {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    ended = statuses(tables)
    assert sorted(ended) == [("run 0", "done"), ("run 1", "done"), ("run 2", "done")]
    first, *waited = [name for name, _ in ended]
    assert all(any(said.startswith(f"run {first} (on ") for said in told[name]) for name in waited)


def test_what_spark_still_does_for_a_run_that_broke_off_comes_too_late(tables: Tables) -> None:
    """A cell of a notebook was stopped: the lease is given back, and the last statement goes on."""
    table_setup.create(tables, "rejects", schemas.REJECTS)

    def broken_off() -> None:
        with Lease(tables, AT_ONCE, "stopped") as held:
            theirs.append(held.commits)
            raise KeyboardInterrupt

    theirs: list[Commits] = []
    with pytest.raises(KeyboardInterrupt):
        broken_off()
    with Lease(tables, AT_ONCE, "next"):
        pass
    columns = "'d1' AS doc_id, 'source' AS stage, 'null_text' AS code, 'stopped' AS run_id, now() AS at"
    theirs[0].append(tables.spark.sql(f"SELECT {columns}"), "rejects")
    assert tables.read("rejects").count() == 0


class Claim:
    """In the place of an object on S3."""

    stands = False

    def take(self) -> bool:
        self.stands = True
        return True

    def renew(self) -> None:
        assert self.stands

    def release(self) -> None:
        self.stands = False


def test_where_old_commits_cannot_be_fenced_off_the_lease_is_held_no_longer(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it ends as failed: the run that takes it next has to fence off the dead one's commits too."""
    left(tables, datetime.now(timezone.utc) - timedelta(minutes=1))
    held, claim = Lease(tables, AT_ONCE, "next"), Claim()
    held._claim = claim  # type: ignore[assignment]

    def fails(*_: object) -> None:
        assert claim.stands
        assert held._thread.is_alive()
        raise OSError("the storage is gone")

    monkeypatch.setattr(Commits, "fence", fails)
    with pytest.raises(OSError, match="the storage is gone"):
        held.__enter__()

    held._thread.join(30)
    assert not held._thread.is_alive()
    assert not claim.stands
    assert statuses(tables) == [("dead", "died"), ("next", "failed")]
