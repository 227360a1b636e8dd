"""Test the duration that a dry run estimates from the row of an earlier run in `runs`."""

from __future__ import annotations

import pytest

from entitymill.run.dry_runs import CORE_SECONDS_PER_PART_SECOND, estimate_seconds
from entitymill.run_row import RunRow

START = 5.0


def earlier_run(core_seconds: float, cores: int = 2, units: int = 1) -> RunRow:
    """Return the row of a run whose workers needed START seconds to start, before they recognized a million code points."""
    recognizing = START + CORE_SECONDS_PER_PART_SECOND * core_seconds / cores
    parts = {"segmentation": 0.1 * core_seconds, "inference": 0.9 * core_seconds}
    seconds = {"preparation": 1.0, "source": 2.0, "recognizing": recognizing, "writing": 3.0 * units, **parts}
    return RunRow("r", chars=1_000_000, cores=cores, units_done=units, seconds=seconds)


@pytest.mark.parametrize("chars", [100_000, 1_000_000, 30_000_000])
def test_the_start_of_the_workers_does_not_grow_with_the_texts(chars: int) -> None:
    run = earlier_run(core_seconds=100.0)
    recognition = CORE_SECONDS_PER_PART_SECOND * 100.0 / 2 * chars / 1_000_000
    assert estimate_seconds(run, run, chars, units=1, cores=2) == pytest.approx(1 + 2 + START + recognition + 3)


def test_more_cores_take_less_time_for_the_texts_alone() -> None:
    run = earlier_run(core_seconds=100.0, cores=2)
    recognition = CORE_SECONDS_PER_PART_SECOND * 100.0 / 50
    assert estimate_seconds(run, run, 1_000_000, units=1, cores=50) == pytest.approx(1 + 2 + START + recognition + 3)


def test_units_are_written_while_others_are_recognized() -> None:
    run = earlier_run(core_seconds=1.0, units=4)
    assert estimate_seconds(run, run, 1_000_000, units=10, cores=2) == pytest.approx(1 + 2 + 9 * 3 + 3)


def test_a_run_with_nothing_to_recognize_takes_what_comes_before() -> None:
    latest = earlier_run(core_seconds=1.0)
    assert estimate_seconds(earlier_run(core_seconds=900.0), latest, 0, units=0, cores=2) == pytest.approx(1 + 2)


def test_an_engine_that_measures_no_parts_is_scaled_as_a_whole() -> None:
    seconds = {"preparation": 1.0, "source": 2.0, "recognizing": 50.0, "writing": 3.0}
    run = RunRow("r", chars=1_000_000, cores=2, units_done=1, seconds=seconds)
    assert estimate_seconds(run, run, 3_000_000, units=1, cores=2) == pytest.approx(1 + 2 + 3 * 50 + 3)
