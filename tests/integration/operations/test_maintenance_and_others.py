"""Test purge and erase that were frozen during other runs, and that they do not hide changes of other programs."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from delta_reader import read_delta
from entitymill.errors import LimitError, OutputError, SourceError
from entitymill.run import erasure, guards
from entitymill.run.summary import Summary
from entitymill.spark.private_session import open_private_session
from entitymill.tables import Tables, erasure_from_runs, maintenance
from entitymill.tables.output_tables import build_write_confs
from entitymill.tables.publisher import Publisher
from entitymill.tables.runs import Runs
from integration.stub_world import HOUR, DiesHereError, FrozenRun, World, hook, make_texts, run_until_death, world

__all__ = ["world"]


def purge(world: World, spark: SparkSession) -> object:
    settings = world.settings()
    with open_private_session(spark, "UTC", build_write_confs(settings.output)) as own:
        return maintenance.purge(Tables(own, settings.output), settings)


def restore(world: World, versions: dict[str, int]) -> None:
    """Restore tables to earlier versions, as an operator may do."""
    for name, version in versions.items():
        world.spark.sql(f"RESTORE TABLE delta.`{world.output}/{name}` TO VERSION AS OF {version}")


def versions(world: World, *names: str) -> dict[str, int]:
    return {name: DeltaTable(str(world.output / name)).version() for name in names}


@pytest.mark.deep
def test_a_purge_that_wakes_up_keeps_new_files_of_the_next_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create(make_texts(6)).run()
    world.put({"d00": "Changed Once text"})
    world.run()
    frozen = FrozenRun(world, monkeypatch, maintenance, "_vacuum")
    frozen.start(action=lambda spark: purge(world, spark))
    world.put({"d01": "Changed Twice text"})
    world.run()
    written = next((world.output / "documents").glob("part-0*.parquet"))
    # A file that a run has written and not committed yet.
    stray = Path(shutil.copy(written, written.with_name("part-of-a-running-job.parquet")))
    assert isinstance(frozen.wake(), OutputError)
    assert stray.exists()
    world.check()
    world.append({"x1": "Added One text"})
    world.run()
    world.check()


@pytest.mark.deep
def test_an_erasure_that_wakes_up_does_not_claim_success(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure that was frozen during another run must fail, because Delta skips its deletions."""
    world.create(make_texts(6)).run()
    world.delete("d00")
    frozen = FrozenRun(world, monkeypatch, erasure, "_count_rows", 2)
    frozen.start(action=lambda spark: erasure.erase(spark, world.settings(), ["d00"]))
    hook(monkeypatch, erasure, "_check_absent_from_source", lambda *_: None)
    monkeypatch.setattr(erasure, "_count_rows", lambda *_: {"documents": {"d00": 1}})  # the count before the other run
    world.append({"x1": "Added One text"})
    world.run()
    assert isinstance(frozen.wake(), OutputError)
    assert not (world.output / "erasures").exists()
    world.check()


@pytest.mark.deep
def test_an_erasure_does_not_claim_success_while_a_file_from_the_future_remains(world: World) -> None:
    """The clock of the machine that wrote the file is ahead, so VACUUM keeps the file."""
    world.create(make_texts(3)).run()
    world.delete("d00")
    for file in (world.output / "documents").glob("*.parquet"):
        os.utime(file, (time.time() + HOUR,) * 2)
    (world.output / "documents" / "_backup").mkdir()
    shutil.copy(next((world.output / "documents").glob("*.parquet")), world.output / "documents" / "_backup")
    with pytest.raises(OutputError, match=r"output: \d+ old files of .*documents could not be deleted yet"):
        erasure.erase(world.spark, world.settings(), ["d00"])
    assert not (world.output / "erasures").exists()
    for file in (world.output / "documents").glob("*.parquet"):
        os.utime(file)
    erasure.erase(world.spark, world.settings(), ["d00"])
    assert (world.output / "erasures").exists()
    world.check()


def leave_file(world: World, table: str, hours: float) -> Path:
    """Copy a data file of a table under a new name, `hours` old, as a program leaves it that has not committed it yet."""
    file = next((world.output / table).rglob("part-0*.parquet"))
    stray = Path(shutil.copy(file, file.with_name(f"part-of-{hours:g}-hours.parquet")))
    os.utime(stray, (time.time() - hours * HOUR,) * 2)
    return stray


@pytest.mark.deep
def test_a_purge_keeps_young_files_that_another_program_may_be_about_to_commit(world: World) -> None:
    """Delta lets OPTIMIZE commit files that VACUUM has deleted meanwhile, so a purge must not delete them."""
    world = World(world.spark, world.directory / ".hidden")
    world.create(make_texts(6)).run()
    world.put({"d00": "Changed Once text"})
    world.run()
    committed = set((world.output / "documents").glob("part-0*.parquet"))
    young, old = leave_file(world, "documents", 23), leave_file(world, "documents", 25)
    vectors = young.with_name("deletion_vector_young.bin")
    vectors.write_bytes(b"of a DELETE that another program is about to commit")
    purge(world, world.spark)
    assert (young.exists(), vectors.exists(), old.exists()) == (True, True, False)
    current = {Path(path).name for path in DeltaTable(str(world.output / "documents")).file_uris()}
    assert {file.name for file in committed if file.exists()} <= current, "old files of today are deleted"
    world.check()


@pytest.mark.deep
def test_a_purge_knows_the_files_of_commits_that_only_a_checkpoint_has(world: World) -> None:
    world.create(make_texts(6)).run()
    documents = f"delta.`{world.output}/documents`"
    world.spark.sql(f"ALTER TABLE {documents} SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
    world.put({"d00": "Changed Once text"})
    world.run()
    latest = DeltaTable(str(world.output / "documents")).version()
    for file in (world.output / "documents" / "_delta_log").glob("*.json"):
        if int(file.stem) < latest:  # as Delta does when the log's retention has ended
            file.unlink()
    world.forget_logs()
    purge(world, world.spark)
    # Delta writes a file without rows with each empty commit, and does not name it in the log.
    left = {file.name for file in (world.output / "documents").glob("part-0*.parquet") if pq.read_metadata(file).num_rows}
    assert left == {Path(path).name for path in DeltaTable(str(world.output / "documents")).file_uris()}
    world.check()


@pytest.mark.deep
def test_an_erasure_deletes_an_uncommitted_file_with_the_document(world: World) -> None:
    world.create(make_texts(6)).run()
    with_it = leave_file(world, "documents", 2)
    world.delete("d00")
    world.run()
    purge(world, world.spark)  # rewrites nothing, but deletes the old file
    without = leave_file(world, "documents", 1)
    assert with_it.exists()
    erasure.erase(world.spark, world.settings(), ["d00"])
    assert (with_it.exists(), without.exists()) == (False, True)
    world.check()


@pytest.mark.deep
def test_an_erasure_that_was_interrupted_is_completed_and_recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documents are gone, so only `runs` shows that an erasure of the same ids has not been recorded yet."""
    world.create(make_texts(6)).run()
    world.delete("d00")

    def die(*_: object) -> None:
        raise DiesHereError

    with monkeypatch.context() as patch:
        hook(patch, erasure_from_runs, "erase_ids", die)
        with pytest.raises(DiesHereError):
            erasure.erase(world.spark, world.settings(), ["d00"])
    assert not (world.output / "erasures").exists()
    assert erasure.erase(world.spark, world.settings(), ["other"]) == {}
    assert erasure.erase(world.spark, world.settings(), ["d00"]) != {}
    assert len(read_delta(world.output / "erasures")) > 0
    world.check()


@pytest.mark.deep
@pytest.mark.parametrize("emptied", [False, True])
def test_a_vacuum_blocks_a_frozen_run_that_the_latest_run_has_not_blocked(
    world: World, monkeypatch: pytest.MonkeyPatch, *, emptied: bool
) -> None:
    """The latest run failed before it blocked the commits of the frozen one, whose files VACUUM deletes.

    Or somebody has deleted all rows of `runs`.
    """
    world.create(make_texts(6)).run()
    world.put({"d00": "Changed Once text"})
    frozen = FrozenRun(world, monkeypatch, Publisher, "publish").start()

    def fail(*_: object) -> None:
        raise SourceError("the source has gone")

    with monkeypatch.context() as patch:
        hook(patch, guards, "check_slice_tables", fail)
        with pytest.raises(SourceError):
            world.run()
    if emptied:
        world.spark.sql(f"DELETE FROM delta.`{world.output}/runs`")
    chosen = world.settings("limits.wait_seconds=0")
    with open_private_session(world.spark, "UTC", build_write_confs(chosen.output)) as own:
        maintenance.vacuum(Tables(own, chosen.output), chosen, 24)
    before = versions(world, "documents", "entities")
    assert isinstance(frozen.wake(), OutputError)
    assert versions(world, "documents", "entities") == before
    world.run("output.adopt_source=true")
    world.check()


def test_a_vacuum_keeps_what_an_idle_run_may_still_commit_to_runs(world: World) -> None:
    """An idle run has no epoch that could be blocked, so a file of `runs` that no commit names must stay for a month."""
    world.create(make_texts(3)).run()
    world.put({"d00": "Changed Once text"})
    world.run()
    runs = world.output / "runs"
    current = {Path(address).name for address in DeltaTable(runs).file_uris()}
    files = list(runs.rglob("*.parquet"))
    assert {path.name for path in files} > current
    uncommitted, forgotten = (
        Path(shutil.copy(files[0], files[0].with_name(f"part-{name}.parquet"))) for name in ("uncommitted", "forgotten")
    )
    long_ago = time.time() - 8 * 24 * HOUR
    for commit in (runs / "_delta_log").glob("*.json"):
        commit.write_text(re.sub(r'"deletionTimestamp":\d+', '"deletionTimestamp":1', commit.read_text()))
        commit.with_name(f".{commit.name}.crc").unlink()
    for path in [*files, uncommitted]:
        os.utime(path, (long_ago, long_ago))
    os.utime(forgotten, (time.time() - 31 * 24 * HOUR,) * 2)
    world.forget_logs()
    chosen = world.settings()
    with open_private_session(world.spark, "UTC", build_write_confs(chosen.output)) as own:
        maintenance.vacuum(Tables(own, chosen.output), chosen, 24)
    assert {path.name for path in runs.rglob("*.parquet")} == {*current, uncommitted.name}


@pytest.mark.deep
def test_a_purge_blocks_a_frozen_run_though_a_table_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create(make_texts(6)).run()
    world.put({"d00": "Changed Once text"})
    frozen = FrozenRun(world, monkeypatch, Publisher, "publish").start()
    shutil.rmtree(world.output / "entities")
    world.forget_logs()
    purge(world, world.spark)
    before = versions(world, "documents")
    assert isinstance(frozen.wake(), BaseException)
    assert versions(world, "documents") == before


@pytest.mark.deep
def test_full_recomputes_what_others_changed_before_it_was_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a purge between the two runs hide the change."""
    world.create(make_texts(6)).run()
    publish = Publisher.publish

    def publish_and_change(*arguments: Any) -> None:
        publish(*arguments)
        world.spark.newSession().sql(f"UPDATE delta.`{world.output}/entities` SET entity = 'X' WHERE doc_id = 'd00'")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish", publish_and_change)
        with pytest.raises(LimitError):
            world.run("limits.unit_rows=2", "limits.max_core_hours=0.00001", full=True)
    purge(world, world.spark)
    assert world.run(full=True).documents == 6
    world.check()


@pytest.mark.deep
@pytest.mark.parametrize("killed", [False, True])
def test_full_recomputes_what_others_changed_after_it_was_stopped(world: World, *, killed: bool) -> None:
    """What a --full run has recomputed before it was stopped counts only as long as nobody changes the tables.

    This must not be forgotten if the next --full run, which starts over, is killed.
    """
    world.create(make_texts(6)).run()
    with pytest.raises(LimitError):
        world.run("limits.unit_rows=3", "limits.max_core_hours=0.000001", full=True)
    world.spark.sql(f"UPDATE delta.`{world.output}/entities` SET entity = 'Changed' WHERE doc_id = 'd00'")
    if killed:
        run_until_death(world, "documents", full=True)
    world.run(full=True)
    world.check()


def test_a_document_that_came_back_meanwhile_is_not_erased(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create(make_texts(6)).run()
    world.delete("d00")

    def come_back(*_: Any) -> None:
        world.append({"d00": "Back Again text"})
        world.run()

    hook(monkeypatch, maintenance, "exclusive_access", come_back)
    with pytest.raises(SourceError, match="still has 1 of the documents"):
        erasure.erase(world.spark, world.settings(), ["d00"])
    world.check()


@pytest.mark.parametrize(("hours", "lost"), [(13, True), (1, False)])
def test_a_run_that_was_frozen_for_half_of_the_retention_of_a_vacuum_publishes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, hours: int, *, lost: bool
) -> None:
    """A run that was frozen for over half of VACUUM's retention must fail: its uncommitted files may have been deleted."""
    world.create(make_texts(6)).run()
    world.put({"d00": "Changed Once text"})
    frozen = FrozenRun(world, monkeypatch, Publisher, "publish").start()
    for file in world.output.glob("_heartbeats/*"):
        os.utime(file, (time.time() - hours * HOUR,) * 2)
    chosen = world.settings("limits.lease_seconds=7200", "limits.wait_seconds=0")
    with open_private_session(world.spark, "UTC", build_write_confs(chosen.output)) as own:
        maintenance.vacuum(Tables(own, chosen.output), chosen, 24)
    assert isinstance(frozen.wake(), OutputError if lost else Summary)
    world.run()
    world.check()


@pytest.mark.parametrize("names", [("entities",), ("entities", "documents")], ids=["entities", "both"])
def test_a_purge_does_not_hide_that_an_operator_restored_tables(world: World, names: tuple[str, ...]) -> None:
    world.create(make_texts(4)).run()
    before = versions(world, *names)
    world.put({"d00": "Changed Once text"})
    world.run()
    restore(world, before)
    purge(world, world.spark)
    assert world.run().mode == "compare"  # although the source did not change
    world.check()


def test_after_a_purge_a_run_with_nothing_to_do_does_nothing(world: World) -> None:
    world.create(make_texts(4)).run()
    purge(world, world.spark)
    assert world.run().mode == "none"


def test_what_others_do_during_a_run_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create(make_texts(4)).run()
    before = versions(world, "documents")
    world.put({"d00": "Changed Once text"})
    world.run()
    world.append({"x1": "Added One text"})
    running = FrozenRun(world, monkeypatch, Publisher, "publish").start(asleep=False)
    restore(world, before)
    assert isinstance(running.wake(), Summary)
    assert world.run().mode == "compare"
    world.check()


def test_a_full_run_that_is_killed_is_known_as_one(world: World) -> None:
    world.create(make_texts(4)).run()
    run_until_death(world, "documents", full=True)
    [row] = world.read("runs").where("status = 'running'").collect()
    assert Runs(world.tables()).find_unfinished_full_runs(row["fingerprint"]) == {row["run_id"]}
