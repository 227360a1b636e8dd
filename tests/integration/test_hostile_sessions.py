"""Test that the caller's session cannot change a run's results, and that a run does not change the caller's session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from delta_reader import read_delta
from entitymill.errors import SourceError
from entitymill.run.steps_under_lease import Run
from entitymill.run_row import RunRow
from entitymill.settings import sections
from entitymill.spark.private_session import PINNED, UNSET
from entitymill.spark.session import open_session
from entitymill.tables import merge_statements, publisher
from entitymill.tables.heartbeats import Heartbeat
from entitymill.tables.publisher import Publisher
from small_queries import SMALL_QUERIES

from .stub_world import ROOT, World, hook, make_texts, use_stub, world

__all__ = ["world"]
HOSTILE = {
    "spark.sql.parser.escapedStringLiterals": "true",
    "spark.sql.parser.quotedRegexColumnNames": "true",
    "spark.sql.variable.substitute": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.storeAssignmentPolicy": "LEGACY",
    "spark.sql.legacy.timeParserPolicy": "LEGACY",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.decimalOperations.allowPrecisionLoss": "false",
    "spark.sql.mapKeyDedupPolicy": "LAST_WIN",
    "spark.sql.legacy.charVarcharAsString": "true",
    "spark.sql.readSideCharPadding": "false",
    "spark.sql.legacy.exponentLiteralAsDecimal.enabled": "true",
    "spark.sql.legacy.typeCoercion.datetimeToString.enabled": "true",
    "spark.sql.files.ignoreInvalidPartitionPaths": "true",
    "spark.sql.parquet.int96TimestampConversion": "true",
    "spark.databricks.delta.replaceWhere.dataColumns.enabled": "false",
    "spark.databricks.delta.replaceWhere.dataColumnsWithCDF.enabled": "false",
    "spark.databricks.delta.vacuum.lite.enabled": "true",
    "spark.sql.maxPlanStringLength": "100",
    "spark.sql.files.ignoreCorruptFiles": "true",
    "spark.sql.files.ignoreMissingFiles": "true",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.parquet.binaryAsString": "true",
    "spark.sql.parquet.int96AsTimestamp": "false",
    "spark.sql.parquet.mergeSchema": "true",
    "spark.sql.parquet.writeLegacyFormat": "true",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "false",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.parquet.datetimeRebaseModeInRead": "LEGACY",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "LEGACY",
    "spark.sql.parquet.int96RebaseModeInRead": "LEGACY",
    "spark.sql.parquet.int96RebaseModeInWrite": "LEGACY",
    "spark.sql.sources.partitionOverwriteMode": "dynamic",
    "spark.databricks.delta.schema.autoMerge.enabled": "true",
    "spark.databricks.delta.stalenessLimit": "1h",
    "spark.sql.legacy.sizeOfNull": "false",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MILLIS",
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "true",
    "spark.databricks.delta.write.txnAppId": "the caller's",
    "spark.databricks.delta.write.txnVersion": "7",
    "spark.databricks.delta.commitInfo.userMetadata": "the caller's",
    "spark.databricks.delta.properties.defaults.appendOnly": "true",
    "spark.databricks.delta.properties.defaults.columnMapping.mode": "name",
    "spark.databricks.delta.properties.defaults.setTransactionRetentionDuration": "interval 1 hours",
}
OTHERS = {"spark.sql.session.timeZone": "Asia/Tokyo"}
ODD_IDS = (
    "C:\\docs\\1.txt",
    "\\u0041\\",
    "{curly} {view}",
    "${spark.app.name}",
    "it's",
    '"',
    "%_*?[a]",
    " blank ",
    "A",
    "a",
)


@pytest.fixture
def hostile(world: World) -> SparkSession:
    session = world.spark.newSession()
    for key, value in {**HOSTILE, **OTHERS}.items():
        session.conf.set(key, value)
    return session


def test_every_setting_that_is_pinned_has_a_hostile_value_here() -> None:
    assert set(HOSTILE) == {*PINNED, *UNSET}
    assert not [key for key, value in PINNED.items() if HOSTILE[key] == value]


@pytest.mark.deep
def test_odd_ids_are_replaced_and_removed_under_hostile_settings(
    world: World, hostile: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create({key: f"Name{at} Town{at} text" for at, key in enumerate(ODD_IDS)})
    world.run(spark=hostile)
    world.check()
    world.put({key: f"New{at} {text}" for at, (key, text) in enumerate(world.rows.items())})
    world.run(spark=hostile)  # with conditions that list the ids
    world.check()
    monkeypatch.setattr(publisher, "MAX_LISTED_IDS", 0)
    world.put({key: f"Newer {text}" for key, text in world.rows.items()})
    world.delete("A")
    assert world.run(spark=hostile).mode == "feed"  # with MERGE
    world.check()
    assert {key: hostile.conf.get(key) for key in HOSTILE} == HOSTILE


def write_source(directory: Path, days: int) -> None:
    """Write a source of `days` rows, with values that Spark reads differently under some properties in HOSTILE."""
    recent = [datetime(2024, 3, day, 23, 30, 0, 123_456, tzinfo=timezone.utc) for day in range(1, days)]
    moments = [datetime(1500, 1, 1, tzinfo=timezone.utc), *recent]
    table = pa.table(
        {
            "moment": pa.array(moments, pa.timestamp("us", "UTC")),
            "wall": pa.array([moment.replace(tzinfo=None) for moment in moments], pa.timestamp("us")),
            "nanos": pa.array(moments[-1:] * days, pa.timestamp("ns", "UTC")),
            "day": pa.array([date(1500, 1, 1 + at) for at in range(days)]),
            "text": [f"Name{at} Town{at} text" for at in range(days)],
            "Note": [f"a.b {at}" if at % 4 else "axb" for at in range(days)],
            "code": [str(at) if at % 3 else "none" for at in range(days)],
            "raw": pa.array([bytes([at, 200]) for at in range(days)], pa.binary()),
            "price": pa.array([Decimal(f"{at}.5") for at in range(days)], pa.decimal128(38, 18)),
        }
    )
    (directory / "part=007").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, directory / "part=007" / "file.parquet", version="2.6")


CONDITIONS = (
    "moment < TIMESTAMP '2024-03-08 12:00:00'",
    r"(note RLIKE '^a\\.b' OR note = 'axb') AND note <> '${spark.app.name}'",
    "coalesce(CAST(code AS INT), 1) > 0 AND size(CAST(NULL AS ARRAY<INT>)) < 0",
    "part < 8 AND to_date('2024-02-30', 'yyyy-MM-dd') IS NULL",
    "length(CAST(price * price AS STRING)) < 17",
)


@pytest.mark.deep
def test_odd_types_are_read_alike_under_hostile_settings(world: World, hostile: SparkSession) -> None:
    columns = "passthrough=[moment,wall,day,raw,price,part]"
    options = ["source.format=parquet", "source.id_column=moment", f"source.{columns}"]
    options.append(f"source.where={' AND '.join(CONDITIONS)}")
    write_source(world.source, 5)
    world.run(*options, spark=hostile)
    write_source(world.source, 12)
    assert world.run(*options, spark=hostile).mode == "compare"
    clean = f"output.path={world.directory}/clean"
    assert world.run(*options, clean).documents > 5
    for name in ("entities", "documents", "rejects"):
        assert contents(world.output / name) == contents(world.directory / "clean" / name), name
    assert {key: hostile.conf.get(key) for key in HOSTILE} == HOSTILE


def contents(table: Path) -> list[str]:
    """Return the schema and the sorted rows of a table, without the columns that differ from run to run."""
    rows = read_delta(table)
    rows = rows.select(
        [name for name in rows.column_names if name not in ("run_id", "processed_at", "source_version", "at")]
    )
    return [str(rows.schema), *sorted(map(str, rows.to_pylist()))]


@pytest.mark.parametrize("damage", ["cut short", pytest.param("gone", marks=pytest.mark.deep)])
def test_a_damaged_file_removes_no_document(
    world: World, monkeypatch: pytest.MonkeyPatch, hostile: SparkSession, damage: str
) -> None:
    """A corrupt or missing file must fail the run, even if the session is set to ignore such files."""
    world.source.mkdir()
    for number, (key, text) in enumerate(make_texts(6).items()):
        pq.write_table(pa.table({"id": [key], "text": [text]}), world.source / f"part-{number}.parquet")
    world.run("source.format=parquet", spark=hostile)
    file = world.source / "part-3.parquet"

    def spoil(*_: object) -> None:
        if damage == "gone":
            file.unlink(missing_ok=True)
        else:
            file.write_bytes(file.read_bytes()[:40])

    if damage == "gone":
        hook(monkeypatch, Run, "_find_changes", spoil)  # after the files were listed
        pq.write_table(pa.table({"id": ["x1"], "text": ["Added One text"]}), world.source / "part-9.parquet")
    else:
        spoil()
    with pytest.raises(Py4JJavaError, match="part-3"):
        world.run("source.format=parquet", spark=hostile)
    assert read_delta(world.output / "documents").num_rows == 6


def test_another_threads_appends_to_its_own_table_are_not_skipped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delta must not skip appends of another thread in the caller's session while a run sets a transaction number."""
    mine = str(world.directory / "mine")
    SparkSession(world.spark.sparkContext, world.spark._jsparkSession)  # RDD.toDF belongs to the session made last
    world.spark.range(0).write.format("delta").save(mine)
    world.create(make_texts(3)).run()
    merged = []

    def append_to_mine() -> None:
        numbers = world.spark.sparkContext.parallelize([(number,) for number in range(2)])
        for frame in (world.spark.range(2), world.spark.range(2), numbers.toDF(["id"]), numbers.toDF(["id"])):
            frame.write.format("delta").mode("append").save(mine)

    def meanwhile(*_: object) -> None:
        merged.append("now")
        other = threading.Thread(target=append_to_mine)
        other.start()
        other.join()

    monkeypatch.setattr(publisher, "MAX_LISTED_IDS", 0)
    hook(monkeypatch, merge_statements, "replace_documents", meanwhile)
    world.put({"d00": "Changed Once text"})
    world.run()
    world.check()
    assert len(merged) == 2
    assert world.spark.read.format("delta").load(mine).count() == 8 * len(merged)


def test_rows_that_the_caller_has_cached_are_not_taken_for_the_source(world: World) -> None:
    """A view has no version. Another application may have changed its rows since the caller cached them."""
    world.create(make_texts(3))
    world.spark.read.format("delta").load(str(world.source)).createOrReplaceTempView("cached_texts")
    world.spark.table("cached_texts").cache()
    of_view = ("source.format=table", "source.path=cached_texts")
    with pytest.raises(SourceError, match="rows of cached_texts are cached"):
        world.run(*of_view)
    world.spark.table("cached_texts").unpersist()
    world.run(*of_view)
    world.check()


@pytest.mark.deep
def test_a_busy_cluster_costs_no_lease(tmp_path: Path) -> None:
    """A run must keep its lease, even if other tasks keep the only core busy for longer than the lease lasts."""
    paths = os.pathsep.join(map(str, (ROOT / "jobs", ROOT / "tests")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    command = [sys.executable, "-m", "integration.test_hostile_sessions", str(tmp_path)]
    done = subprocess.run(
        command, env={**environment, "PYTHONPATH": paths}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["looks"] > 20
    assert found["alive"] == found["looks"]
    assert found["documents"] == 3


LEASE_SECONDS, TASK_SECONDS = 6, 12


def run_on_a_busy_cluster(directory: Path) -> None:
    """Print as JSON how often another run read the heartbeats, and how often it saw that this run was alive."""
    conf = {**SMALL_QUERIES, "spark.scheduler.mode": "FIFO", "spark.driver.memory": "2g"}
    spark = open_session(sections.SparkSettings(master="local[1]", jars=f"{ROOT}/build/jars", conf=conf), "busy")
    busy = World(spark, directory).create(make_texts(3))
    looks: list[bool] = []

    def keep_busy(*_: object) -> None:
        rival = Heartbeat(busy.tables(), "rival", LEASE_SECONDS)
        tasks = spark.sparkContext.parallelize(range(TASK_SECONDS), TASK_SECONDS)
        queue = threading.Thread(target=lambda: tasks.foreach(lambda _: time.sleep(1)))
        queue.start()
        while queue.is_alive():
            rival.beat(RunRow("rival"))
            looks.append(bool(rival.read_other_runs()))
            time.sleep(0.2)
        rival.stop()

    with pytest.MonkeyPatch.context() as patch:
        use_stub(patch)
        hook(patch, Publisher, "publish", keep_busy)
        summary = busy.run(f"limits.lease_seconds={LEASE_SECONDS}")
    busy.check()
    print(json.dumps({"looks": len(looks), "alive": sum(looks), "documents": summary.documents}))  # noqa: T201
    spark.stop()


if __name__ == "__main__":
    run_on_a_busy_cluster(Path(sys.argv[1]))
