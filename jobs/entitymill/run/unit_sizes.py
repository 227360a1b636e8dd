"""Choose the sizes of units of work and of Spark tasks, so that neither commits nor long tasks leave cores without work.

Sizes do not affect results, so they may depend on the machines.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Row

from entitymill import schemas
from entitymill.settings.sections import LimitSettings

CHARS_PER_MB = 1_000_000
MIN_UNIT_ROWS, MIN_UNIT_CHARS = 100_000, 256_000_000
"""Limits of a unit with few cores, for which smaller units would only cost commits. With many cores they are larger."""
SECONDS_PER_UNIT = 30.0
"""Seconds in which all cores recognize a unit, at least: several times as long as the driver needs to publish it."""
SECONDS_PER_TASK = 4.0
"""Seconds that a task takes: after the last tasks have started, no core waits longer than this."""
MIN_TASK_CHARS, MAX_TASK_CHARS = 64_000, 1_000_000
DEFAULT_SPEED = 60_000.0
"""Code points per second and core, if no earlier run tells: those of the bundled model in int8."""
MIN_MEASURED_CHARS = 1_000_000
"""The speed of smaller runs is not used."""
_CHARS_PER_ROW = MIN_UNIT_CHARS / MIN_UNIT_ROWS


@dataclass(frozen=True)
class UnitSizes:
    """Approximate sizes.

    rows: largest number of documents in a unit.
    chars: largest number of code points in a unit.
    task_chars: number of code points in a Spark task.
    """

    rows: int
    chars: int
    task_chars: int


def choose_sizes(limits: LimitSettings, cores: int, speed: float | None) -> UnitSizes:
    """Choose sizes for a number of cores.

    Args:
        limits: settings with the maximum size of a unit.
        cores: number of tasks that Spark runs at once.
        speed: code points that a core recognizes per second; None if it is unknown.
    """
    speed = speed or DEFAULT_SPEED
    chars = max(MIN_UNIT_CHARS, int(cores * speed * SECONDS_PER_UNIT))
    return UnitSizes(
        limits.unit_rows or int(chars / _CHARS_PER_ROW),
        chars if limits.unit_mb is None else limits.unit_mb * CHARS_PER_MB,
        int(min(max(speed * SECONDS_PER_TASK, MIN_TASK_CHARS), MAX_TASK_CHARS)),
    )


def read_speed(run: Row | None) -> float | None:
    """Return code points per second and core of an earlier run, from its row of `runs`; None if the row does not tell."""
    if run is None or (run["chars"] or 0) < MIN_MEASURED_CHARS:
        return None
    seconds = sum((run["seconds"] or {}).get(part, 0.0) for part in schemas.PARTS)
    return float(run["chars"]) / seconds if seconds else None
