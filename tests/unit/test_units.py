"""How many units the work is cut into."""

from __future__ import annotations

from typing import Any

import pytest

from entitymill.run import units
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
        (4, 0, 1_200_000, LimitSettings(unit_mb=1), 2),  # long ones: by their code points
        (4, 0, 1_000_000, LimitSettings(unit_mb=1), 1),
        (4, 0, 1_200_000, LimitSettings(unit_mb=1, unit_rows=1), 4),
        (units.MOST_UNITS + 1, 0, 0, LimitSettings(unit_rows=1), units.MOST_UNITS),
    ],
)
def test_a_unit_is_bounded_in_rows_and_in_characters(
    documents: int, removed: int, chars: int, limits: LimitSettings, expected: int
) -> None:
    found = Changes(
        mode=Mode.COMPARE, documents=NONE, removed=NONE, rejected=NONE, touched=None, adopted=NONE, rows=documents,
        reject_counts={}, to_recognise=documents, to_remove=removed, to_adopt=0, chars=chars, known=0,
    )  # fmt: skip
    assert units.count_units(found, limits) == expected
