"""Test that runs do no harm if they die, or if they are frozen for longer than their lease and then continue.

A review of version 0.2.0.dev had programs, s1 to s15, that broke the promises in docs/promises.md. Each of their sequences
of events is now a test:

s1, s1b: a full run (--full) wakes up. test_a_full_run_that_wakes_up_changes_nothing
s2: two first runs work at the same time. test_of_two_first_runs_one_publishes
s3: a run overwrites the temporary table of another run. test_a_run_that_wakes_up_leaves_the_texts_of_its_successor_alone
s4: a run wakes up before or during its repair. test_a_recovery_that_wakes_up_undoes_nothing
s5: a run crashes between two commits. test_a_crash_between_two_commits_is_repaired_after_the_log_was_cleaned
s6: the source is restored from a backup. test_a_source_that_was_put_back_from_a_backup_is_compared
s7, s7b, s12: a run compares all rows without need, and a removal makes a MERGE search all files. test_stays_incremental.py;
    for 1,000 commits of the source, tests/stages/test_changes.py, test_a_thousand_commits_since_the_last_run_are_followed
s8: another thread appends. test_hostile_sessions.py, test_another_threads_appends_to_its_own_table_are_not_skipped
s9: a FIFO scheduler and a single core delay a run. test_hostile_sessions.py, test_a_busy_cluster_costs_no_lease
s10: ignoreCorruptFiles is set. test_hostile_sessions.py, test_a_damaged_file_removes_no_document
s11: a run repairs tables after VACUUM. test_readers_see_published_documents_while_a_later_run_repairs
s13: readers see tables during a repair. No fault was found; the test of s11 has this sequence, too.
s14: an operator restores the output tables. test_tables_that_an_operator_restored_are_compared
s15: escapedStringLiterals is set. test_hostile_sessions.py, test_odd_ids_are_replaced_and_removed_under_hostile_settings
e2e: real processes are frozen (SIGSTOP). tests/faults/test_freezes.py

"The table protocol" in docs/decisions.md explains why the tables are right after each of them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any

import pytest
from deltalake import DeltaTable

from delta_reader import read_delta
from entitymill.errors import OutputError
from entitymill.run import guards
from entitymill.run.summary import Summary
from entitymill.source import changes
from entitymill.spark.private_session import open_private_session, override_conf
from entitymill.tables import Tables, lease, maintenance, merge_statements, publisher, recovery, runs
from entitymill.tables.output_tables import NAMES, build_write_confs
from entitymill.tables.publisher import Publisher
from entitymill.tables.temporary_tables import TemporaryTable

from .stub_world import HOUR, UNITS_OF_3, FrozenRun, World, hook, make_texts, run_until_death, world

__all__ = ["world"]
DAY = 24 * HOUR
VACUUM_CONFS = {
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",  # Spark's default is 10,000 tasks
}


def assert_lost(result: Summary | BaseException | None) -> None:
    """Check that a run failed with an error which says that another run took over."""
    assert isinstance(result, OutputError), repr(result)
    assert "took over" in str(result) or "a later run" in str(result)


@pytest.mark.parametrize(
    ("owner", "name", "at", "units"),
    [
        pytest.param(Publisher, "publish", 2, UNITS_OF_3, marks=pytest.mark.deep),
        (publisher, "build_documents", 1, "limits.unit_rows=100"),
        pytest.param(maintenance, "compact_small_files", 1, "limits.unit_rows=100", marks=pytest.mark.deep),
    ],
    ids=["between units", "between the commits of a unit", "after the last unit"],
)
def test_a_full_run_that_wakes_up_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, units: str
) -> None:
    world.create(make_texts(9)).run()
    frozen = FrozenRun(world, monkeypatch, owner, name, at).start(units, full=True)
    world.put({"d00": "Changed Once text", "x1": "Added One text"})
    world.delete("d08")
    world.run()
    world.check()
    if units == UNITS_OF_3:
        assert isinstance(frozen.wake(), Exception)  # its temporary table is gone
    else:
        assert_lost(frozen.wake())
    world.check()
    world.append({"x2": "Added Two text"})
    assert world.run().mode == "feed"
    world.check()
    assert sorted(row.status for row in world.read("runs").collect()) == ["died", "done", "done", "done"]


@pytest.mark.parametrize(
    ("owner", "name"), [(recovery, "create_missing"), pytest.param(changes, "select_all_documents", marks=pytest.mark.deep)]
)
def test_of_two_first_runs_one_publishes(world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """A frozen first run that wakes up during a second run must publish nothing, whether or not it had created tables."""
    world.create(make_texts(4))
    frozen = FrozenRun(world, monkeypatch, owner, name).start()
    second = FrozenRun(world, monkeypatch, Publisher, "publish").start(asleep=False)
    assert_lost(frozen.wake())
    assert isinstance(second.wake(), Summary)
    world.check()
    world.append({"x1": "Added One text"})
    world.run()
    world.check()


@pytest.mark.deep
@pytest.mark.parametrize("first", [True, False], ids=["first runs", "later runs"])
def test_a_run_that_began_before_the_one_it_takes_over_from_fences_it(
    world: World, monkeypatch: pytest.MonkeyPatch, *, first: bool
) -> None:
    """A run must block the commits of a frozen run even if it read `runs` before the frozen run wrote its row."""
    world.create(make_texts(3))
    if not first:
        world.run()
        world.append({"x1": "Added One text"})
    early = FrozenRun(world, monkeypatch, guards, "open_checked_source").start(asleep=False)
    frozen = FrozenRun(world, monkeypatch, Publisher, "publish").start()
    hook(monkeypatch, Publisher, "publish", lambda *_: frozen.wake() if early.is_current() else None)
    assert isinstance(early.wake(), Summary)
    assert_lost(frozen.result)
    world.check()


@pytest.mark.deep
@pytest.mark.parametrize(("owner", "name"), [(TemporaryTable, "write"), (Publisher, "publish")], ids=["replace", "drop"])
def test_a_run_that_wakes_up_leaves_the_texts_of_its_successor_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    """A run that wakes up must neither overwrite nor drop the temporary table of the run that took over."""
    world.create(make_texts(6))
    frozen = FrozenRun(world, monkeypatch, owner, name).start(UNITS_OF_3)
    world.put(make_texts(6, "New"))
    second = FrozenRun(world, monkeypatch, Publisher, "publish").start(UNITS_OF_3, asleep=False)
    assert isinstance(frozen.wake(), Exception)
    assert isinstance(second.wake(), Summary)
    world.check()
    assert not list(world.output.glob("_units*"))


@pytest.mark.deep
@pytest.mark.parametrize(("owner", "name"), [(recovery, "settle"), (merge_statements, "upsert")], ids=["before it", "in it"])
def test_a_recovery_that_wakes_up_undoes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    world.create(make_texts(3)).run()
    world.append({"x1": "Half One text"})
    run_until_death(world, "documents")
    frozen = FrozenRun(world, monkeypatch, owner, name).start()
    world.append({"x2": "Second Two text"})
    world.run()
    world.check()
    assert_lost(frozen.wake())
    world.check()
    world.append({"x3": "Third Three text"})
    world.run()
    world.check()


@pytest.mark.deep
def test_a_crash_between_two_commits_is_repaired_after_the_log_was_cleaned(world: World) -> None:
    world.create(make_texts(3)).run()
    entities = world.output / "entities"
    version = DeltaTable(str(entities)).version()
    for number in range(version + 1, 9):  # so that the next run's fence is version 10, with a checkpoint
        world.spark.sql(f"ALTER TABLE delta.`{entities}` SET TBLPROPERTIES ('padding' = '{number}')")
    world.append({"x1": "Half One text"})
    run_until_death(world, "documents")
    assert DeltaTable(str(entities)).version() == 9
    world.age_logs(40 * DAY)
    world.run()
    world.check()
    assert not (entities / "_delta_log" / f"{9:020}.json").exists()


@pytest.mark.deep
def test_a_source_that_was_put_back_from_a_backup_is_compared(world: World) -> None:
    """A source that was restored and then changed must be compared, although it has the version that the last run read."""
    world.create(make_texts(3)).run()
    backup, rows = world.directory / "backup", dict(world.rows)
    shutil.copytree(world.source, backup)
    world.put({"d00": "Lost Update text"})
    world.run()
    shutil.rmtree(world.source)
    shutil.copytree(backup, world.source)
    world.rows = rows
    world.forget_logs()
    world.put({"d01": "Other Update text"})
    assert world.run().mode == "compare"
    world.check()
    world.append({"x1": "Added One text"})
    assert world.run().mode == "feed"
    world.check()


@pytest.mark.deep
def test_tables_that_an_operator_restored_are_compared(world: World) -> None:
    world.create(make_texts(4)).run()
    versions = {name: DeltaTable(str(world.output / name)).version() for name in ("entities", "documents")}
    world.put({"d00": "Changed Once text", "x1": "Added One text"})
    world.run()
    for name, version in versions.items():
        world.spark.sql(f"RESTORE TABLE delta.`{world.output}/{name}` TO VERSION AS OF {version}")
    assert world.run().mode == "compare"  # although the source did not change
    world.check()


def keep_little(world: World) -> None:
    """Configure the tables so that VACUUM may delete removed files at once, and Delta old logs after an hour."""
    hour = "'delta.logRetentionDuration' = 'interval 1 hour', 'delta.deletedFileRetentionDuration' = 'interval 0 hours'"
    for name in NAMES:
        if (world.output / name).exists():
            table = f"delta.`{world.output / name}`"
            world.spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ({hour}, 'delta.checkpointInterval' = '1')")


def maintain(world: World) -> None:
    """Compact all tables and delete all old files, as other programs may do between runs."""
    places = sorted(path.parent for path in world.output.glob("*/_delta_log"))
    with override_conf(world.spark, VACUUM_CONFS):
        for place in places:
            table = f"delta.`{place}`"
            world.spark.sql(f"OPTIMIZE {table}")
            world.spark.sql(f"VACUUM {table} RETAIN 0 HOURS")
    world.age_logs(DAY + 2 * HOUR)  # Delta deletes old logs by whole days


@pytest.mark.deep
def test_others_may_clean_up_between_any_two_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create(make_texts(4)).run()
    keep_little(world)
    maintain(world)
    world.put({"d00": "Changed Once text", "x1": "Half One text"})
    run_until_death(world, "documents")
    maintain(world)
    frozen = FrozenRun(world, monkeypatch, Publisher, "publish").start()
    maintain(world)
    world.put({"d01": "Changed Twice text"})
    world.run()
    world.check()
    maintain(world)
    assert_lost(frozen.wake())
    world.check()
    world.append({"x2": "Added Two text"})
    assert world.run().mode == "feed"
    world.check()
    assert not (world.output / "entities" / "_delta_log" / f"{1:020}.json").exists()


@pytest.mark.deep
def test_readers_see_published_documents_while_a_later_run_repairs(world: World) -> None:
    """Readers must see all published documents while a run repairs a dead run's changes, even after a purge of old files."""
    world.create(make_texts(6)).run()
    world.age_logs(40 * DAY)
    for _ in range(2):
        maintenance.vacuum(world.tables(), world.settings(), 168)
    world.put({"d00": "Changed Once text", "x1": "Half One text"})
    run_until_death(world, "documents")
    places = {name: str(world.output / name) for name in ("entities", "documents")}
    with open_private_session(world.spark, "UTC", build_write_confs(world.settings().output)) as own:
        maintenance.purge(Tables(own, world.settings().output), world.settings())
    since = {name: DeltaTable(place).version() for name, place in places.items()}
    world.run(UNITS_OF_3)
    world.check()
    for name, place in places.items():
        for version in range(since[name], DeltaTable(place).version() + 1):
            held = set(read_delta(place, version=version)["doc_id"].to_pylist())
            assert held >= {f"d{number:02}" for number in range(6)}, (name, version)


class OtherClock:
    """Makes some threads see another time in the modules that decide about the order of runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, is_current: Callable[[], bool], seconds: float) -> None:
        """Replace the clock until the end of the test.

        Args:
            is_current: function that returns whether the calling thread sees the other time.
            seconds: how far the other time is ahead of the machine's time.
        """
        offset = timedelta(seconds=seconds)

        class Shifted(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Shifted:
                present = super().now(tz)
                return present + offset if is_current() else present

        shifted = {name: getattr(time, name) for name in ("monotonic", "sleep")}
        shifted["time"] = lambda: time.time() + seconds * is_current()
        monkeypatch.setattr(lease, "time", SimpleNamespace(**shifted))
        for module in (lease, runs):
            monkeypatch.setattr(module, "datetime", Shifted)


@pytest.mark.deep
@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_clocks_that_differ_by_an_hour_do_no_harm(world: World, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """If the clocks of two machines differ by an hour, the tables and the order of the runs must still be right."""
    world.create(make_texts(3))
    frozen = FrozenRun(world, monkeypatch, Publisher, "publish")
    other_machine = [frozen.is_current]
    OtherClock(monkeypatch, lambda: any(is_there() for is_there in other_machine), seconds)
    frozen.start()
    world.put({"d00": "Changed Once text"})
    world.run()
    world.check()
    assert_lost(frozen.wake())
    world.check()
    other_machine.append(lambda: True)
    world.append({"x1": "Added One text"})
    assert world.run().mode == "feed"
    other_machine.clear()
    world.append({"x2": "Added Two text"})
    assert world.run().mode == "feed"
    world.check()
    epochs = [row.epoch for row in world.read("runs").orderBy("started_at").collect()]
    assert epochs == sorted(set(epochs))
