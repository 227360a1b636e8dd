"""The record of runs: one row each, from its start to its end."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark.sql import Column, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.tables.commits import Commits
from entitymill.tables.layout import Tables


class Runs:
    """The table `runs` of an output."""

    def __init__(self, tables: Tables) -> None:
        """Nothing is read yet."""
        self._tables = tables

    def last(self) -> Row | None:
        """The latest run that had anything to do, or to find out; none if there was none."""
        if not self._tables.exists("runs"):
            return None
        rows = self._tables.read("runs").where("mode IS NULL OR mode <> 'none'").orderBy(F.desc("started_at")).take(1)
        return rows[0] if rows else None

    def turn(self, last: Row | None) -> datetime:
        """When a run that has just taken the lease began: after the last one, whatever the clocks say."""
        now = datetime.now(timezone.utc)
        if last is None:
            return now
        return max(now, last["started_at"].astimezone(timezone.utc) + timedelta(microseconds=1))

    def start(self, row: dict[str, Any], commits: Commits) -> None:
        """Record that a run began; it holds the lease, so others still said to be running are dead."""
        self._tables.create("runs", schemas.RUNS)
        if self._tables.read("runs").where("status = 'running'").take(1):
            died: dict[str, str | Column] = {"status": F.lit("died")}
            commits("runs", lambda: self._tables.table("runs").update("status = 'running'", died))
        commits("runs", lambda: self._tables.append(self._frame(row), "runs"))

    def end(self, row: dict[str, Any], commits: Commits) -> None:
        """Record how a run ended."""
        values = {field.name: _literal(row.get(field.name), field.dataType) for field in schemas.RUNS}
        commits("runs", lambda: self._tables.table("runs").update(F.col("run_id") == values["run_id"], dict(values)))

    def idle(self, row: dict[str, Any]) -> None:
        """Record a run that found nothing to do."""
        self._tables.append(self._frame(row), "runs")

    def _frame(self, row: dict[str, Any]) -> Any:
        values = [tuple(row.get(name) for name in schemas.RUNS.names)]
        return self._tables.spark.createDataFrame(values, schemas.RUNS).coalesce(1)


def _literal(value: Any, kind: T.DataType) -> Column:
    if isinstance(kind, T.MapType):
        return F.from_json(F.lit(json.dumps(value)), kind.simpleString())
    return F.lit(value).cast(kind)
