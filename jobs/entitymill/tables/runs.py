"""The record of runs: one row each, from its start to its end. The row of a running one is the lease on the output."""

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
from entitymill.tables.commits import Commits, retried
from entitymill.tables.layout import Tables

LEASE = "lease"
"""The table with which 0.1.0 let one run at a time."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LATEST = 10
"""Commits to look back: runs with nothing to do may have been quicker."""
RUNNING = "status = 'running'"
IDLE, MAINTENANCE = "none", "maintenance"
"""Modes of what recognised no documents."""


@dataclass(frozen=True)
class Record:
    """What `runs` says now.

    last: the latest run that had anything to do, or to find out.
    owner: source of the latest such run that came to its end, or where none did, of the latest.
    done: epoch of the latest such run that came to its end; maintenance settles not always what a dead run left.
    latest: of the greatest epoch, maintenance too: it holds the lease where its status is `running`.
    sliced: whether a run ever replaced a slice.
    """

    last: Row | None = None
    owner: str | None = None
    done: int | None = None
    latest: Row | None = None
    sliced: bool = False

    @property
    def holder(self) -> Row | None:
        """The run that holds the lease, alive or not."""
        return self.latest if self.latest is not None and self.latest["status"] == "running" else None


class Runs:
    """The table `runs` of an output."""

    def __init__(self, tables: Tables) -> None:
        """Nothing is read yet."""
        self._tables = tables

    def create(self) -> None:
        """Make the table, where it is not there."""
        table_setup.create(self._tables, "runs", schemas.RUNS)

    def look(self) -> Record:
        """Read it, in one look."""
        if not self._tables.exists("runs"):
            return Record()
        rows = self._tables.read("runs")
        if "epoch" not in rows.columns:  # of 0.1.0
            rows = rows.withColumn("epoch", F.lit(None).cast("long"))
        # Written by 0.1.0, a run has no epoch; one of a smaller epoch never began later.
        order = F.struct(F.coalesce("epoch", F.lit(0)), "started_at")
        job = F.col("mode").isNull() | ~F.col("mode").isin(IDLE, MAINTENANCE)
        ended = job & (F.col("status") == "done")
        whole = F.struct(*rows.columns)
        sliced = F.get_json_object("settings", "$.output.replace_slice") == "true"
        # In one task: a shuffle costs more than the table is worth.
        found = (
            rows.coalesce(1)
            .agg(
                F.max_by(whole, F.when(job, order)).alias("last"),
                F.max_by("source", F.when(ended, order)).alias("owner"),
                F.max(F.when(ended, F.col("epoch"))).alias("done"),
                F.max_by(whole, F.when(F.col("epoch").isNotNull(), order)).alias("latest"),
                F.max(sliced).alias("sliced"),
            )
            .collect()[0]
        )
        last = found["last"]
        owner = found["owner"] or (None if last is None else last["source"])
        return Record(last, owner, found["done"], found["latest"], bool(found["sliced"]))

    def first_epoch(self) -> int:
        """Where no run has one yet: the second in which the table was made, the same for all that start at once.

        So epochs keep growing even where somebody removed the table. Those of 0.1.0 stand in a table of its own.
        """
        detail = self._tables.detail("runs")
        if detail is None:
            raise OutputError(f"output: {self._tables.address('runs')} has just been taken away; run again.")
        before = self._tables.read(LEASE).agg(F.max("epoch")).collect()[0][0] if self._tables.exists(LEASE) else None
        return max(int(detail["createdAt"].timestamp()), (before or 0) + 1)

    def put(self, row: dict[str, Any], commits: Commits, *, over: bool = False) -> None:
        """Write a run's row in the place of the running one, in one commit; Delta refuses it where another came between.

        Args:
            row: of the run.
            over: whether others are said to run, which are dead.
        """
        frame = self._frame(row)
        if over:
            dead = self._tables.read("runs").where(RUNNING).where(F.col("run_id") != row["run_id"])
            frame = dead.withColumn("status", F.lit("died")).unionByName(frame, allowMissingColumns=True)
        commits.replace(frame.coalesce(1), "runs", RUNNING)

    def wrote(self, run_id: str) -> bool:
        """Whether a run's row was really written just now: Delta skips one that comes second under an epoch."""
        return any(run_id in (row["userMetadata"] or "") for row in self._tables.history("runs", LATEST).collect())

    def idle(self, row: dict[str, Any]) -> None:
        """Record a run that found nothing to do."""
        self.create()
        tries = itertools.count()

        def append() -> None:
            if not (next(tries) and self.wrote(row["run_id"])):  # it may have taken effect though it failed
                self._tables.append(self._frame(row), "runs", {"userMetadata": json.dumps({"entitymill": row["run_id"]})})

        retried("runs", append)

    def _frame(self, row: dict[str, Any]) -> DataFrame:
        # Of literals: createDataFrame has a Python worker repeat the rows, which takes five times as long.
        columns = [_literal(row.get(field.name), field.dataType).alias(field.name) for field in schemas.RUNS]
        return self._tables.spark.range(1).coalesce(1).select(*columns)


def of_jobs(rows: DataFrame) -> DataFrame:
    """Rows of `runs` without those of maintenance; 0.1.0 had no modes."""
    return rows.where(~F.col("mode").eqNullSafe(MAINTENANCE)) if "mode" in rows.columns else rows


def _literal(value: Any, kind: T.DataType) -> Column:
    if isinstance(value, dict):
        return F.from_json(F.lit(json.dumps(value)), kind.simpleString())
    if isinstance(value, datetime):
        # Exactly, whatever the session's time zone and its way with old dates.
        return F.timestamp_micros(F.lit((value - _EPOCH) // timedelta(microseconds=1)))
    return F.lit(value).cast(kind)


def turn(last: Row | None) -> datetime:
    """When a run that has just taken the lease began: after the last one, whatever the clocks say."""
    now = datetime.now(timezone.utc)
    if last is None:
        return now
    return max(now, last["started_at"].astimezone(timezone.utc) + timedelta(microseconds=1))
