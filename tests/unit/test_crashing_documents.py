"""Test how many documents may crash or hang the tagger before a run fails."""

from __future__ import annotations

from typing import Any

import pytest

from entitymill.errors import RejectedError
from entitymill.run.crashing_documents import FailureRecorder
from entitymill.run.work_units import PlannedUnit
from entitymill.settings import load

NONE: Any = None


def give_up(failed: int, before: int, rows: int) -> bool:
    """Return whether a run gives up if `failed` of a unit's `rows` rows fail, `before` of them not for the first time."""
    settings = load(None, ["source.path=texts", "output.path=out"], {})
    ids = [f"d{i}" for i in range(failed)]
    failures = FailureRecorder(NONE, settings, NONE, NONE, set(ids[:before]))
    try:
        failures.check_ratio(ids, PlannedUnit(NONE, None, in_output=False, rows=rows, chars=rows))
    except RejectedError:
        return True
    return False


@pytest.mark.parametrize(
    ("failed", "before", "rows", "expected"),
    [
        (1, 0, 1, False),
        (2, 0, 30, True),
        (2, 0, 40, False),
        (2, 2, 2, False),
        (3, 2, 10, False),
        (12, 10, 60, False),
    ],
)
def test_the_share_is_of_the_unit_and_of_what_is_new(failed: int, before: int, rows: int, *, expected: bool) -> None:
    assert give_up(failed, before, rows) == expected
