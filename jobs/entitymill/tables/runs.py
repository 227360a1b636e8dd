"""Read and write the `runs` table, which has one row per run.

The latest run is the one with the greatest epoch, a number that grows with each run. Idle runs (runs that had nothing to do)
have no epoch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.run_row import PROGRESS, TIMES, UNKNOWN_TIME, RunRow
from entitymill.tables import table_setup
from entitymill.tables.numbered_commits import Commits, read_notes, retry
from entitymill.tables.output_tables import Tables

RUNNING = "status = 'running'"
IDLE, MAINTENANCE = "none", "maintenance"
"""Modes of runs that did not compare the source with the tables: IDLE if nothing had changed, MAINTENANCE if the run only
maintained the tables or erased documents."""


@dataclass(frozen=True)
class Record:
    """Summary of the `runs` table at one point in time.

    last: row of the latest run that compared the source with the tables, whatever its status.
    owner: path of the source to which the output belongs: the source of the latest run with status done that compared the
        source with the tables. If there is no such run, it is the source of `last`.
    latest: row of the run with the greatest epoch (number that grows with each run), which may be maintenance.
    sliced: whether any run has replaced a slice (the rows that source.where selects).
    running: whether any row has the status running.
    certain: whether this summary is up to date; False if another run may have begun after it was read and before this run's
        first commit.
    version: Delta version of `runs`; -1 if the table did not exist.
    """

    last: RunRow | None = None
    owner: str | None = None
    latest: RunRow | None = None
    sliced: bool = False
    running: bool = False
    certain: bool = True
    version: int = -1

    @property
    def epoch(self) -> int:
        """The epoch (number of a run) of the latest run, which is the greatest one; 0 if there has been no run."""
        return 0 if self.latest is None else self.latest.epoch or 0

    @property
    def settled(self) -> bool:
        """Whether all changes of the latest run and earlier runs are known to be complete; False if there was no run."""
        return self.certain and self.latest is not None and bool(self.latest.settled)

    @property
    def lease_until(self) -> datetime | None:
        """When the lease of the latest run ends; None if that run is not running."""
        return None if self.latest is None or self.latest.status != "running" else self.latest.until


class Runs:
    """The `runs` table of an output."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def create(self) -> None:
        """Create the `runs` table; if it exists, only add missing columns and properties."""
        table_setup.create_table(self._tables, "runs", schemas.RUNS)

    def read_record(self, before: int | None = None) -> Record:
        """Return a summary of the current rows; if the table does not exist, return an empty `Record`.

        If `before` is the epoch (number) of a run, rows of this run and of later runs are left out.
        """
        if not self._tables.exists("runs"):
            return Record()
        version = self._tables.version("runs")
        rows = _encode_times(self._tables.read_latest("runs", version))
        if before is not None:
            rows = rows.where(F.col("epoch").isNull() | (F.col("epoch") < before))
        order = F.struct(F.coalesce("epoch", F.lit(0)), "started_at")
        job = F.col("mode").isNull() | ~F.col("mode").isin(IDLE, MAINTENANCE)
        ended = job & (F.col("status") == "done")
        row = F.struct(*rows.columns)
        # Use one task: the table is small, and a shuffle would take longer.
        found = (
            rows.coalesce(1)
            .agg(
                F.max_by(row, F.when(job, order)).alias("last"),
                F.max_by("source", F.when(ended, order)).alias("owner"),
                F.max_by(row, F.when(F.col("epoch").isNotNull(), order)).alias("latest"),
                F.max(F.col("slice").isNotNull()).alias("sliced"),
                F.max(F.expr(RUNNING)).alias("running"),
            )
            .collect()[0]
        )
        last, latest = (
            None if found[name] is None else RunRow.from_values(found[name].asDict()) for name in ("last", "latest")
        )
        owner = found["owner"] or (None if last is None else last.source)
        return Record(last, owner, latest, bool(found["sliced"]), bool(found["running"]), version=version)

    def read_base_epoch(self) -> int:
        """Return the number that precedes the first run's epoch: the creation time of `runs`, in seconds since 1970.

        An epoch is the number of a run, greater than those of all earlier runs. All runs read the same creation time, since
        they read it from the table. Because of this start, epochs keep growing even if somebody removes the table and a run
        creates it again. Raise OutputError if the table does not exist.
        """
        detail = self._tables.detail("runs")
        if detail is None:
            raise OutputError(f"output: somebody has just removed {self._tables.address('runs')}; run again.")
        return int(detail["createdAt"].timestamp())

    def read_greatest_epoch_in_history(self) -> int:
        """Return the greatest epoch that the table's history records for recent commits to `runs`; 0 if there is none.

        An epoch is the number of a run, greater than those of all earlier runs. The history keeps the epochs (see
        `read_notes`) even if somebody restores an older version of the table.
        """
        return max((int(note["epoch"]) for note in read_notes(self._tables, "runs") if "epoch" in note), default=0)

    def find_unfinished_full_runs(self, fingerprint: str) -> frozenset[str]:
        """Return the ids of runs with --full and this fingerprint that began after the latest run with the status done.

        Idle runs and maintenance are ignored. A new run with --full may skip documents that these runs have recomputed. The
        fingerprint is a digest of the model and the settings that decide results.
        """
        rows = self._tables.read_latest("runs").where(F.col("epoch").isNotNull() & (F.col("mode") != MAINTENANCE))
        kinds = rows.select("run_id", "epoch", "mode", "status", "fingerprint").orderBy(F.desc("epoch")).collect()
        since = itertools.takewhile(lambda row: row["status"] != "done", kinds)
        return frozenset(row["run_id"] for row in since if (row["mode"], row["fingerprint"]) == ("full", fingerprint))

    def was_interrupted(self, settings: str, before: int) -> bool:
        """Return whether the latest run with this value of the column `settings` did not end with status done.

        `before` is the epoch (number) of a run: only earlier runs, with smaller epochs, are searched. If none of them has
        these settings, return False. For example, this function finds an erasure that was killed.
        """
        rows = self._tables.read_latest("runs").where((F.col("settings") == settings) & (F.col("epoch") < before))
        latest = rows.select("status").orderBy(F.desc("epoch")).limit(1).collect()
        return any(row["status"] != "done" for row in latest)

    def add_row(
        self,
        row: RunRow,
        commits: Commits,
        *,
        mark_dead: bool,
        heartbeats: Mapping[str, RunRow],
    ) -> None:
        """Add the row of a run that begins, in one commit; Delta skips the commit if a later run has begun.

        Args:
            commits: object that makes this run's commits.
            mark_dead: whether other runs have the status running. If True, the same commit changes their status to died, and
                the commit is not retried if another writer commits first: Delta's error is raised.
            heartbeats: dict from the id of a dead run to its last heartbeat. With `mark_dead`, the dead run's row gets the
                values of the columns listed in PROGRESS from its heartbeat.
        """
        frame = self._build_frame(row)
        if not mark_dead:
            commits.append(frame, "runs")  # takes half as long as `replace`
            return
        dead = self._tables.read_latest("runs").where(RUNNING).where(F.col("run_id") != row.run_id)
        progress = {name: _update_progress(name, heartbeats) for name in PROGRESS if name in dead.columns}
        dead = dead.withColumns({**progress, "status": F.lit("died")})
        rows = dead.unionByName(frame, allowMissingColumns=True)
        # These rows were read before the commit: if another run commits first, they may be outdated.
        commits.replace(rows.coalesce(1), "runs", RUNNING, after_conflict=False)

    def replace_running_rows(self, row: RunRow, commits: Commits) -> None:
        """Replace all rows with the status running, normally only this run's row, by `row`, in one commit.

        Delta skips the commit, without an error, if a later run has begun.
        """
        commits.replace(self._build_frame(row), "runs", RUNNING)

    def append_idle(self, row: RunRow) -> None:
        """Append the row of an idle run (a run that had nothing to do), and create the `runs` table if it does not exist."""
        self.create()
        about = {"userMetadata": json.dumps({"entitymill": row.run_id})}
        tries = itertools.count()

        def append() -> None:
            written = next(tries) and any(note["entitymill"] == row.run_id for note in read_notes(self._tables, "runs"))
            if not written:  # an attempt may have been committed although it raised an error
                self._tables.append(self._build_frame(row), "runs", about)

        retry("runs", append)

    def _build_frame(self, row: RunRow) -> DataFrame:
        """Return a DataFrame that contains only `row`, with all columns of `runs`."""
        # Build the row from literals: createDataFrame would start a Python worker, which takes five times as long.
        columns = [_literal(getattr(row, field.name), field.dataType).alias(field.name) for field in schemas.RUNS]
        return self._tables.spark.range(1).coalesce(1).select(*columns)


def _update_progress(name: str, heartbeats: Mapping[str, RunRow]) -> Column:
    """Return an expression for column `name`: the heartbeat's value for runs in `heartbeats`, the old value for others.

    A heartbeat whose status is not running is ignored.
    """
    column = F.col(name)
    for run_id, row in heartbeats.items():
        if row.status == "running":  # otherwise, the heartbeat was written before the run began
            value = _literal(getattr(row, name), schemas.RUNS[name].dataType)
            column = F.when(F.col("run_id") == run_id, value).otherwise(column)
    return column


def collect_rows(rows: DataFrame) -> list[RunRow]:
    """Return the rows of a DataFrame with the columns of `runs`; this runs a Spark job."""
    return [RunRow.from_values(row.asDict()) for row in _encode_times(rows).collect()]


def _encode_times(rows: DataFrame) -> DataFrame:
    """Return rows of `runs` with each time as an integer: microseconds since 1970 in UTC.

    PySpark would return a timestamp in local time. On Spark Connect, a local time is ambiguous in the hour in which clocks
    are set back.
    """
    times = {name: F.unix_micros(name) for name in TIMES if name in rows.columns}
    return rows.withColumns(times)


def exclude_maintenance(rows: DataFrame) -> DataFrame:
    """Return the rows of `runs` except those with the mode MAINTENANCE; rows of idle runs are kept."""
    return rows.where(~F.col("mode").eqNullSafe(MAINTENANCE))


def _literal(value: Any, kind: T.DataType) -> Column:
    """Return a value as a literal column of type `kind`; a dict becomes a map. A datetime must have a time zone."""
    if isinstance(value, dict):
        return F.from_json(F.lit(json.dumps(value)), kind.simpleString())
    if isinstance(value, datetime):
        # Convert from microseconds, so that the session's settings for old dates do not matter.
        return F.timestamp_micros(F.lit((value - UNKNOWN_TIME) // timedelta(microseconds=1)))
    # Name the type by a string: for a type object, PySpark would ask Java for the active session.
    return F.lit(value).cast(kind.simpleString())


def choose_start(last: RunRow | None) -> datetime:
    """Return the start time (UTC) of a run that begins now; it is later than the start of `last`, even if clocks differ.

    `last` is an earlier run, the value of `Record.last`; None if there is none.
    """
    now = datetime.now(timezone.utc)
    if last is None:
        return now
    return max(now, last.started_at + timedelta(microseconds=1))
