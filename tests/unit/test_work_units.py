"""Test the number of units of work, and their sizes."""

from __future__ import annotations

from typing import Any

import pytest

from entitymill.run import work_units
from entitymill.run.work_units import SECONDS_PER_TASK, SECONDS_PER_UNIT, choose_sizes, read_speed
from entitymill.run_row import RunRow
from entitymill.settings.sections import LimitSettings
from entitymill.source.changes import Changes, Mode

NONE: Any = None


@pytest.mark.parametrize(
    ("documents", "removed", "chars", "limits", "expected"),
    [
        (0, 0, 0, LimitSettings(unit_rows=3), 0),
        (9, 0, 900, LimitSettings(unit_rows=3), 3),
        (10, 0, 900, LimitSettings(unit_rows=3), 4),
        (0, 1, 0, LimitSettings(unit_rows=3), 1),
        (2, 5, 200, LimitSettings(unit_rows=3), 3),
        (4, 0, 1_200_000, LimitSettings(unit_mb=1), 2),  # long documents: by their code points
        (4, 0, 1_000_000, LimitSettings(unit_mb=1), 1),
        (4, 0, 1_200_000, LimitSettings(unit_mb=1, unit_rows=1), 4),
        (work_units.MAX_UNITS + 1, 0, 0, LimitSettings(unit_rows=1), work_units.MAX_UNITS),
    ],
)
def test_a_unit_is_bounded_in_rows_and_in_characters(
    documents: int, removed: int, chars: int, limits: LimitSettings, expected: int
) -> None:
    found = Changes(
        mode=Mode.COMPARE, documents=NONE, removed=NONE, rejected=NONE, compared_ids=None, adopted=NONE, rows=documents,
        reject_counts={}, to_recognize=documents, to_remove=removed, to_adopt=0, chars=chars, to_replace=0,
    )  # fmt: skip
    assert work_units.count_units(found, choose_sizes(limits, 2, None)) == expected


def test_units_and_tasks_fit_the_cores() -> None:
    """A unit must keep all cores busy for SECONDS_PER_UNIT, and a task one core for SECONDS_PER_TASK."""
    few, many = choose_sizes(LimitSettings(), 2, 12_000.0), choose_sizes(LimitSettings(), 1000, 60_000.0)
    assert (few.rows, few.chars, few.task_chars) == (100_000, 256_000_000, 64_000)
    assert many.chars / (1000 * 60_000) == SECONDS_PER_UNIT
    assert many.rows / few.rows == pytest.approx(many.chars / few.chars, abs=1e-4)
    assert many.task_chars / 60_000 == SECONDS_PER_TASK
    limited = choose_sizes(LimitSettings(unit_rows=5, unit_mb=7), 1000, 60_000.0)
    assert (limited.rows, limited.chars) == (5, 7_000_000)


@pytest.mark.parametrize(
    ("chars", "expected"),
    [
        (5_000, 4),  # at least two tasks per core
        (640_000, 10),  # tasks of the minimum size
        (1_900_000, 16),  # eight tasks per core
        (24_000_000, 100),  # tasks of the size that was asked for
        (10**12, 2_000),  # at most a thousand tasks per core
    ],
)
def test_small_units_have_enough_tasks_to_keep_all_cores_busy_until_the_end(chars: int, expected: int) -> None:
    assert work_units.count_tasks(chars, 240_000, 2) == expected


def test_the_speed_of_a_run_is_that_of_its_workers() -> None:
    spent = {"segmentation": 2.0, "encoding": 3.0, "inference": 44.0, "mentions": 1.0, "idle": 90.0, "total": 70.0}
    assert read_speed(RunRow("r", chars=3_000_000, seconds=spent)) == 60_000.0
    assert read_speed(RunRow("r", chars=3_000, seconds=spent)) is None, "the start of the workers would be most of it"
    assert read_speed(RunRow("r")) is None
    assert read_speed(RunRow("r", chars=3_000_000, seconds={"idle": 9.0})) is None, "engine sparknlp measures no parts"
    assert read_speed(None) is None
