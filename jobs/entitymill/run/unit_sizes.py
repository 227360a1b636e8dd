"""Choose the sizes of units (see `units`) and of Spark tasks, so that cores do not wait for commits or for long tasks.

Sizes do not affect results, so they may depend on the machines.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Row

from entitymill import schemas
from entitymill.settings.sections import LimitSettings

CHARS_PER_MB = 1_000_000
MIN_UNIT_ROWS, MIN_UNIT_CHARS = 100_000, 256_000_000
"""Maximum size of a unit with few cores, in documents and in code points; smaller units would only cause more commits. With
many cores, the maximum is larger."""
SECONDS_PER_UNIT = 30.0
"""Seconds for which a unit of the maximum size should keep all cores busy: several times as long as the driver needs to
publish it."""
SECONDS_PER_TASK = 4.0
"""Seconds that a Spark task should take. At the end of a unit, idle cores wait about this long for the last tasks."""
MIN_TASK_CHARS, MAX_TASK_CHARS = 64_000, 1_000_000
DEFAULT_SPEED = 60_000.0
"""Assumed code points per second and core if no earlier run has measured them: the speed of the bundled model in int8."""
MIN_MEASURED_CHARS = 1_000_000
"""Minimum number of code points that a run must have processed for its speed to be used."""
_CHARS_PER_ROW = MIN_UNIT_CHARS / MIN_UNIT_ROWS


@dataclass(frozen=True)
class UnitSizes:
    """Approximate sizes of units and Spark tasks.

    rows: maximum number of documents in a unit.
    chars: maximum number of code points in a unit.
    task_chars: number of code points in a Spark task.
    """

    rows: int
    chars: int
    task_chars: int


def choose_sizes(limits: LimitSettings, cores: int, speed: float | None) -> UnitSizes:
    """Return the sizes for a number of cores.

    Args:
        limits: settings, of which `unit_rows` (documents) and `unit_mb` (millions of code points), if set, replace the
            chosen maximum size of a unit.
        cores: number of tasks that Spark runs at once.
        speed: code points that a core recognizes per second; None to use DEFAULT_SPEED.
    """
    speed = speed or DEFAULT_SPEED
    chars = max(MIN_UNIT_CHARS, int(cores * speed * SECONDS_PER_UNIT))
    return UnitSizes(
        limits.unit_rows or int(chars / _CHARS_PER_ROW),
        chars if limits.unit_mb is None else limits.unit_mb * CHARS_PER_MB,
        int(min(max(speed * SECONDS_PER_TASK, MIN_TASK_CHARS), MAX_TASK_CHARS)),
    )


def read_speed(run: Row | None) -> float | None:
    """Return the code points that one core recognized per second in an earlier run, from its row of `runs`.

    Return None if there was no run, the run was too small, or it did not measure the times of schemas.PARTS.
    """
    if run is None or (run["chars"] or 0) < MIN_MEASURED_CHARS:
        return None
    seconds = sum((run["seconds"] or {}).get(part, 0.0) for part in schemas.PARTS)
    return float(run["chars"]) / seconds if seconds else None
