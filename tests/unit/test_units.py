"""How many units the work is cut into."""

from __future__ import annotations

from typing import Any

import pytest

from entitymill.run import units
from entitymill.settings.sections import LimitSettings
from entitymill.source.changes import Changes

NONE: Any = None


@pytest.mark.parametrize(
    ("documents", "chars", "limits", "expected"),
    [
        (0, 0, LimitSettings(unit_rows=3), 0),
        (9, 900, LimitSettings(unit_rows=3), 3),
        (10, 900, LimitSettings(unit_rows=3), 4),
        (4, 1_200_000, LimitSettings(unit_mb=1), 2),  # long ones: by their code points
        (4, 1_000_000, LimitSettings(unit_mb=1), 1),
        (4, 1_200_000, LimitSettings(unit_mb=1, unit_rows=1), 4),
        (units.MOST_UNITS + 1, 0, LimitSettings(unit_rows=1), units.MOST_UNITS),
    ],
)
def test_a_unit_is_bounded_in_rows_and_in_characters(
    documents: int, chars: int, limits: LimitSettings, expected: int
) -> None:
    found = Changes(
        mode="first", documents=NONE, removed=NONE, refused=NONE, whole=True, rows=documents, counts={},
        to_recognise=documents, to_remove=0, chars=chars, known=0,
    )  # fmt: skip
    assert units.wanted(found, limits) == expected
