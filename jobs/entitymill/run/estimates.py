"""Estimate how long a run will take, from the rows of earlier runs in the `runs` table."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Row
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.run.summary import RECOGNIZING
from entitymill.tables import Tables

CORE_SECONDS_PER_PART_SECOND = 1.15
"""Assumed core-seconds of recognition per measured second of schemas.PARTS: Spark also transfers and shuffles rows.
tests/bench/estimates.py compares estimates with runs."""
_MAX_RUNS = 20
"""Number of latest runs from which an estimate is made."""


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run.

    hours: wall-clock hours.
    core_hours: hours, times the number of cores.
    same_model: whether the estimate is based on a run with the same model and settings.
    """

    hours: float
    core_hours: float
    same_model: bool


def estimate_run(tables: Tables, fingerprint: str, chars: int, units: int, cores: int) -> Estimate | None:
    """Estimate the cost of a run; return None if no earlier run recognized documents.

    The estimate is based on the largest of the latest runs, because small runs are measured less precisely. Runs with the
    same fingerprint are preferred. While one unit (documents that are published together) is written, the next is
    recognized. So the estimate takes the longer of recognition and writing, and adds the writing of the last unit.

    Args:
        tables: tables of the output.
        fingerprint: digest of the run's model and settings, as in the `fingerprint` column of `runs`.
        chars: code points of the documents to recognize.
        units: number of units of work.
        cores: number of cores of Spark's executors.
    """
    if not tables.exists("runs"):
        return None
    is_measured = f"chars > 0 AND cores > 0 AND units_done > 0 AND seconds['{RECOGNIZING}'] IS NOT NULL"
    usable = tables.read("runs").where(f"status IN ('done', 'stopped') AND {is_measured}")
    rows = usable.orderBy(F.desc("started_at")).limit(_MAX_RUNS).collect()
    if not rows:
        return None
    alike = [row for row in rows if row["fingerprint"] == fingerprint]
    measured = max(alike or rows, key=lambda row: int(row["chars"]))
    hours = compute_seconds(measured, rows[0], chars, units, cores) / 3600
    return Estimate(hours, hours * cores, bool(alike))


def compute_seconds(measured: Row, latest: Row, chars: int, units: int, cores: int) -> float:
    """Return the estimated wall-clock seconds of a run.

    The seconds of schemas.PARTS, times CORE_SECONDS_PER_PART_SECOND, are assumed to grow with the number of code points. The
    other seconds of recognition are assumed to be the start of the workers, which takes equally long in each run.

    Args:
        measured: row of `runs` of the earlier run on which the estimate of recognition and writing is based.
        latest: row of `runs` of the latest run, on which the estimate of preparation and reading the source is based.
        chars: code points of the documents to recognize.
        units: number of units of work.
        cores: number of cores of Spark's executors.
    """
    seconds = latest["seconds"].get("preparation", 0.0) + latest["seconds"].get("source", 0.0)
    if not units:
        return float(seconds)
    before = measured["seconds"]
    work = CORE_SECONDS_PER_PART_SECOND * sum(before.get(part, 0.0) for part in schemas.PARTS)
    if not work:  # the engine sparknlp does not measure its parts
        work = before[RECOGNIZING] * measured["cores"]
    start = max(0.0, before[RECOGNIZING] - work / measured["cores"])
    recognition = start + work / measured["chars"] * chars / cores
    writing = before.get("writing", 0.0) / measured["units_done"]
    return float(seconds + max(recognition, (units - 1) * writing) + writing)
