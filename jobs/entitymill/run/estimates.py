"""Estimate how long a run will take, from the rows of earlier runs in the table `runs`."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Row
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.tables import Tables

_MOST_RUNS = 20
"""Number of latest runs from which an estimate is made."""


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run.

    hours: wall-clock hours.
    core_hours: hours, times the number of cores.
    same_model: whether the earlier run, on which the estimate is based, had the same model and settings.
    """

    hours: float
    core_hours: float
    same_model: bool


def estimate_run(tables: Tables, fingerprint: str, chars: int, units: int, cores: int) -> Estimate | None:
    """Estimate the cost of a run; return None if no earlier run recognized documents.

    The estimate is based on the largest of the latest runs, because in a small run the start of the workers takes most of
    the time. Runs with the same fingerprint are preferred. A unit of work is written while the next one is recognized,
    so the estimate takes the longer of recognition and writing, and adds the writing of the last unit.

    Args:
        tables: tables of the output.
        fingerprint: fingerprint of the run, as in the column `fingerprint` of `runs`.
        chars: code points of the documents to recognize.
        units: number of units of work.
        cores: number of cores of Spark's executors.
    """
    if not tables.exists("runs"):
        return None
    measured = "chars > 0 AND cores > 0 AND units_done > 0 AND seconds['idle'] IS NOT NULL"
    usable = tables.read("runs").where(f"status IN ('done', 'stopped') AND {measured}")
    rows = usable.orderBy(F.desc("started_at")).limit(_MOST_RUNS).collect()
    if not rows:
        return None
    alike = [row for row in rows if row["fingerprint"] == fingerprint]
    model = max(alike or rows, key=lambda row: int(row["chars"]))
    before = rows[0]["seconds"]
    recognition = _read_core_seconds(model) / model["chars"] * chars / cores
    writing = model["seconds"].get("writing", 0.0) / model["units_done"]
    seconds = before.get("preparation", 0.0) + before.get("source", 0.0)
    if units:
        seconds += max(recognition, (units - 1) * writing) + writing
    return Estimate(seconds / 3600, seconds / 3600 * cores, bool(alike))


def _read_core_seconds(run: Row) -> float:
    """Return an earlier run's core-seconds of recognition: the seconds of schemas.PARTS, plus all cores' idle seconds."""
    return sum(run["seconds"].get(part, 0.0) for part in (*schemas.PARTS, "idle"))
