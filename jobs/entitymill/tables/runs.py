"""The record of runs: one row each, from its start to its end. The row of the greatest epoch is that of the present run."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.tables import table_setup
from entitymill.tables.commits import Commits, read_notes, retry
from entitymill.tables.layout import Tables

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
RUNNING = "status = 'running'"
IDLE, MAINTENANCE = "none", "maintenance"
"""Modes of runs that recognised no documents."""


@dataclass(frozen=True)
class Record:
    """What `runs` says now.

    last: the latest run that compared the source with the tables, whatever became of it.
    owner: source of the latest such run that ended as done, or where none did, of the latest.
    latest: the run of the greatest epoch, maintenance included.
    sliced: whether a run ever replaced a slice.
    running: whether a row is still marked as running.
    """

    last: Row | None = None
    owner: str | None = None
    latest: Row | None = None
    sliced: bool = False
    running: bool = False

    @property
    def epoch(self) -> int:
        """The greatest epoch; 0 where there was no run."""
        return 0 if self.latest is None else int(self.latest["epoch"])

    @property
    def settled(self) -> bool:
        """Whether the latest run left nothing half done; False where there was none."""
        return self.latest is not None and bool(self.latest["settled"])

    @property
    def lease_until(self) -> datetime | None:
        """When the lease of the latest run ends, which is marked as running; None where it is not."""
        if self.latest is None or self.latest["status"] != "running":
            return None
        return _as_utc(self.latest["until"])


class Runs:
    """The table `runs` of an output."""

    def __init__(self, tables: Tables) -> None:
        """Nothing is read yet."""
        self._tables = tables

    def create(self) -> None:
        """Create the table, if it is not there."""
        table_setup.create_table(self._tables, "runs", schemas.RUNS)

    def read_record(self) -> Record:
        """Read the table once."""
        if not self._tables.exists("runs"):
            return Record()
        rows = self._tables.read("runs")
        order = F.struct(F.coalesce("epoch", F.lit(0)), "started_at")
        job = F.col("mode").isNull() | ~F.col("mode").isin(IDLE, MAINTENANCE)
        ended = job & (F.col("status") == "done")
        whole = F.struct(*rows.columns)
        # In one task: a shuffle costs more than the table is worth.
        found = (
            rows.coalesce(1)
            .agg(
                F.max_by(whole, F.when(job, order)).alias("last"),
                F.max_by("source", F.when(ended, order)).alias("owner"),
                F.max_by(whole, F.when(F.col("epoch").isNotNull(), order)).alias("latest"),
                F.max(F.col("slice").isNotNull()).alias("sliced"),
                F.max(F.expr(RUNNING)).alias("running"),
            )
            .collect()[0]
        )
        last = found["last"]
        owner = found["owner"] or (None if last is None else last["source"])
        return Record(last, owner, found["latest"], bool(found["sliced"]), bool(found["running"]))

    def base_epoch(self) -> int:
        """Return when the table was created, in seconds since 1970: the epoch before the first, the same for all that wait.

        So epochs keep growing even where somebody removed the table.
        """
        detail = self._tables.detail("runs")
        if detail is None:
            raise OutputError(f"output: somebody has just removed {self._tables.address('runs')}; run again.")
        return int(detail["createdAt"].timestamp())

    def greatest_noted_epoch(self) -> int:
        """Return the greatest epoch that the latest commits note, also where somebody restored an older version; or 0."""
        return max((int(note["epoch"]) for note in read_notes(self._tables, "runs") if "epoch" in note), default=0)

    def find_unfinished_full_runs(self, fingerprint: str) -> frozenset[str]:
        """Return the ids of runs with --full that did not end, and that no other run followed which did."""
        rows = self._tables.read("runs").where(F.col("epoch").isNotNull() & (F.col("mode") != MAINTENANCE))
        kinds = rows.select("run_id", "epoch", "mode", "status", "fingerprint").orderBy(F.desc("epoch")).collect()
        since = itertools.takewhile(lambda row: row["status"] != "done", kinds)
        return frozenset(row["run_id"] for row in since if (row["mode"], row["fingerprint"]) == ("full", fingerprint))

    def write_row(self, row: dict[str, Any], commits: Commits, *, mark_dead: bool = False) -> None:
        """Write a run's row in the place of the running one, in one commit; Delta skips it where a later run came between.

        Args:
            row: of the run.
            over: whether the rows of others, which are dead or taken for dead, are marked as died.
        """
        frame = self._frame(row)
        if mark_dead:
            dead = self._tables.read("runs").where(RUNNING).where(F.col("run_id") != row["run_id"])
            frame = dead.withColumn("status", F.lit("died")).unionByName(frame, allowMissingColumns=True)
        commits.replace(frame.coalesce(1), "runs", RUNNING)

    def append_idle(self, row: dict[str, Any]) -> None:
        """Record a run that found nothing to do."""
        self.create()
        about = {"userMetadata": json.dumps({"entitymill": row["run_id"]})}
        tries = itertools.count()

        def append() -> None:
            written = next(tries) and any(note["entitymill"] == row["run_id"] for note in read_notes(self._tables, "runs"))
            if not written:  # it may have taken effect though it failed
                self._tables.append(self._frame(row), "runs", about)

        retry("runs", append)

    def _frame(self, row: dict[str, Any]) -> DataFrame:
        # Of literals: createDataFrame has a Python worker repeat the rows, which takes five times as long.
        columns = [_literal(row.get(field.name), field.dataType).alias(field.name) for field in schemas.RUNS]
        return self._tables.spark.range(1).coalesce(1).select(*columns)


def exclude_maintenance(rows: DataFrame) -> DataFrame:
    """Return the rows of `runs` without those of maintenance."""
    return rows.where(~F.col("mode").eqNullSafe(MAINTENANCE))


def _literal(value: Any, kind: T.DataType) -> Column:
    if isinstance(value, dict):
        return F.from_json(F.lit(json.dumps(value)), kind.simpleString())
    if isinstance(value, datetime):
        # Exactly, whatever the session's way with old dates.
        return F.timestamp_micros(F.lit((value - _UNIX_EPOCH) // timedelta(microseconds=1)))
    return F.lit(value).cast(kind)


def _as_utc(local: datetime) -> datetime:
    """Return a time that Spark gave, which is of this machine's time zone without naming it, in UTC."""
    return local.astimezone(timezone.utc)


def choose_start(last: Row | None) -> datetime:
    """Return the start of a run that has just taken the lease: after the last one's, whatever the clocks say."""
    now = datetime.now(timezone.utc)
    if last is None:
        return now
    return max(now, _as_utc(last["started_at"]) + timedelta(microseconds=1))
