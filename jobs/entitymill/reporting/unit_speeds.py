"""How fast the units of a run went, by their commits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone

from pyspark.sql import functions as F

from entitymill.reporting.figures import Run, UnitSpeed
from entitymill.tables import Tables

MOST_COMMITS = 300
"""Looked at: of a run of more units the latest."""


def read(tables: Tables, run: Run | None) -> tuple[UnitSpeed, ...]:
    """From Delta's record of the commits of `documents`; a run that swaps everything in at its end leaves none."""
    if run is None:
        return ()
    history = tables.history("documents", MOST_COMMITS).where(F.col("userMetadata").contains(run.run_id))
    at = F.unix_micros("timestamp").alias("at")
    found: list[UnitSpeed] = []
    last: datetime | None = None
    for row in history.select("version", at, "userMetadata", "operationMetrics").orderBy("version").collect():
        told, time = json.loads(row["userMetadata"]), datetime.fromtimestamp(row["at"] / 1e6, timezone.utc)
        if "unit" not in told:
            continue
        last = run.started if told["unit"] == 1 else last
        if last is not None:  # else it is not known when the unit began
            seconds = max(0.0, (time - last).total_seconds())
            found.append(UnitSpeed(told["unit"], time, seconds, _rows_of(row["operationMetrics"] or {})))
        last = time
    return tuple(found)


def _rows_of(metrics: Mapping[str, str]) -> int:
    """That a commit is about: of what it wrote without those that it only copied; a MERGE counts them its own way."""
    counted = {name: int(value) for name, value in metrics.items() if name.endswith(("Rows", "Inserted", "Updated"))}
    if "numTargetRowsInserted" in counted:
        return counted["numTargetRowsInserted"] + counted.get("numTargetRowsUpdated", 0)
    return counted.get("numOutputRows", 0) - counted.get("numCopiedRows", 0)
