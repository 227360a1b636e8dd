"""Test how a run repairs tables, and how erasures and other runs at the same time affect each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from entitymill.errors import OutputError
from entitymill.run import erasure, extraction
from entitymill.run.erasure import Findings
from entitymill.run.summary import Summary
from entitymill.spark import spark_connect
from entitymill.tables import erasure_from_runs
from entitymill.tables.lease import Lease
from entitymill.tables.publisher import Publisher
from entitymill.tables.temporary_tables import TemporaryTable
from integration.stub_world import FrozenRun, World, hook, make_texts, run_until_death, world

__all__ = ["world"]


@pytest.mark.deep
def test_a_crash_between_the_first_two_commits_in_a_catalog_leaves_nothing_twice(world: World, spark: SparkSession) -> None:
    """After a crash between the commits to `entities` and `documents`, the next run must not write mentions twice.

    In a catalog, a run reads the tables' details early: `documents` is empty then, and has rows after the repair.
    """
    spark.sql(f"CREATE SCHEMA crashed_lake LOCATION '{world.output}'")
    catalog = ("output.path=null", "output.schema=crashed_lake", "limits.lease_seconds=1")
    world.create(make_texts(6))
    run_until_death(world, "documents", *catalog)
    assert world.run(*catalog, "limits.wait_seconds=60").mode == "compare"
    world.check()
    assert world.run(*catalog).mode == "none"


@pytest.mark.deep
def test_a_document_that_is_in_documents_twice_is_recomputed(world: World, spark: SparkSession) -> None:
    world.create(make_texts(6)).run()
    place = f"delta.`{world.output}/documents`"
    spark.sql(f"INSERT INTO {place} SELECT * FROM {place} WHERE doc_id = 'd00'")
    world.run()
    world.check()


@pytest.mark.deep
def test_runs_is_restored_to_before_its_last_job(world: World, spark: SparkSession) -> None:
    """If somebody restores `runs`, later runs must work even if no recent commit contains the epoch of the lost row."""
    world.create(make_texts(6)).run()
    place = f"delta.`{world.output}/runs`"
    before = world.history("runs")[0]["version"]
    world.put({"d00": "Changed Once text"})
    world.run()
    for number in range(12):
        spark.sql(f"ALTER TABLE {place} SET TBLPROPERTIES ('number' = '{number}')")
    spark.sql(f"RESTORE TABLE {place} TO VERSION AS OF {before}")
    world.put({"d01": "Changed Twice text"})
    world.run()
    world.check()
    world.append({"x1": "Added One text"})
    assert world.run().mode == "feed"
    world.check()


def test_runs_is_put_back_from_an_old_copy(world: World) -> None:
    """The next run fails, because the other tables know greater epochs than `runs`; the one after it must not."""
    world.create(make_texts(6)).run()
    shutil.copytree(world.output / "runs", world.directory / "copy")
    for number in range(3):
        world.put({"d00": f"Changed Once{number} text"})
        world.run()
    shutil.rmtree(world.output / "runs")
    shutil.copytree(world.directory / "copy", world.output / "runs")
    world.forget_logs()
    world.put({"d01": "Changed Twice text"})
    with pytest.raises(OutputError, match="somebody has restored an old version of the table `runs`: run again"):
        world.run()
    world.run()
    world.check()


@pytest.mark.deep
def test_a_unit_of_files_that_may_change_is_stored_where_an_executor_may_be_lost(
    world: World, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If cached rows may get lost, a unit's rows must be stored: Spark would read lost rows again, from changed files."""
    world.create(make_texts(3))
    written: list[Any] = []
    hook(monkeypatch, TemporaryTable, "write", lambda *_: written.append(1))
    frame = spark.createDataFrame(list(world.rows.items()), "id string, text string").coalesce(1)
    frame.write.parquet(str(tmp_path / "files"))
    loaded = world.settings("source.format=parquet", f"source.path={tmp_path / 'files'}")
    extraction.extract(spark, loaded)
    assert not written
    monkeypatch.setattr(spark_connect, "keeps_caches", lambda _: False)
    extraction.extract(spark, loaded, full=True)
    assert written
    world.check()


@pytest.mark.deep
def test_what_a_run_at_work_publishes_is_erased_too(
    world: World, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create(make_texts(6)).run()
    world.append({"x1": "Added One text"})
    at_work = FrozenRun(world, monkeypatch, Publisher, "publish").start(asleep=False)
    world.delete("x1")
    findings = erasure.find_documents(spark, world.settings(), ["x1"])
    assert (findings.empty, findings.run_is_active) == (True, True)
    at_work.wake()
    assert erasure.erase(spark, world.settings(), ["x1"], findings)["documents"] == 1
    world.check()


@pytest.mark.deep
def test_an_erasure_that_waited_in_vain_changes_nothing(world: World, spark: SparkSession) -> None:
    world.create(make_texts(6)).run()
    world.put({"d00": "Changed Once text"})
    world.run()
    erased = erasure.erase(spark, world.settings(), ["typo"], Findings({}, in_old_files=False, run_is_active=True))
    assert erased == {}
    assert world.run().mode == "none"
    assert spark.read.format("delta").option("versionAsOf", 1).load(str(world.output / "documents")).count() == 6
    assert not (world.output / "erasures").exists()


@pytest.mark.deep
def test_a_run_that_read_a_document_before_its_erasure_reads_the_source_again(
    world: World, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has read the source, but holds no lease yet, must read the source again after an erasure."""
    world.create(make_texts(6)).run()
    world.append({"x1": "Added One text"})
    early = FrozenRun(world, monkeypatch, Lease, "__enter__").start(asleep=False)
    world.delete("x1")
    assert erasure.erase(spark, world.settings(), ["x1"]) == {}
    assert isinstance(early.wake(), Summary)
    world.check()
    texts = [path for path in world.output.glob("*/**/*.parquet") if b"Added" in path.read_bytes()]
    assert texts == []


@pytest.mark.deep
def test_an_erasure_leaves_files_alone_that_another_run_may_commit(
    world: World, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure must delete old files of `runs` that contain the id, but no file that is younger than the erasure.

    Another run may still commit a younger file. Rows of idle runs have no `source.where`, which could contain the id.
    """
    condition = "source.where=id <> 'x1'"
    world.create({**make_texts(6), "x1": "Added One text"})
    world.run(condition)
    assert world.run(condition).mode == "none"
    rows = {row["mode"]: json.loads(row["settings"])["source"]["where"] for row in world.read("runs").collect()}
    assert (rows["first"], rows["none"]) == ("id <> 'x1'", None)
    named = [
        path
        for path in (world.output / "runs").rglob("*.parquet")
        if "x1" in str(pq.read_table(path, columns=["settings"]).to_pylist())
    ]
    old = named[0]
    young = old.with_name(f"part-young-{old.name}")
    hook(monkeypatch, erasure_from_runs, "erase_ids", lambda *_: shutil.copyfile(old, young))
    world.delete("x1")
    erasure.erase(spark, world.settings(condition), ["x1"])
    assert young.exists()
    assert [path for path in named if path.exists()] == []


def test_settings_of_the_session_do_not_make_delta_forget_runs(world: World, spark: SparkSession) -> None:
    name = "spark.databricks.delta.properties.defaults.setTransactionRetentionDuration"
    spark.conf.set(name, "interval 1 hours")
    try:
        world.create(make_texts(2)).run()
    finally:
        spark.conf.unset(name)
    place = f"delta.`{world.output}/entities`"
    forgetting = "delta.setTransactionRetentionDuration"
    assert forgetting not in spark.sql(f"DESCRIBE DETAIL {place}").collect()[0]["properties"]
    spark.sql(f"ALTER TABLE {place} SET TBLPROPERTIES ('{forgetting}' = 'interval 1 hours')")
    world.append({"x1": "Added One text"})
    with pytest.raises(OutputError, match=f"UNSET TBLPROPERTIES .'{forgetting}'"):
        world.run()
