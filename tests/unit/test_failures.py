"""How many documents may crash or hang the tagger before a run gives up."""

from __future__ import annotations

from typing import Any

import pytest

from entitymill.changes import Changes
from entitymill.errors import RejectedError
from entitymill.failures import Failures
from entitymill.settings import load
from entitymill.units import Piece

NONE: Any = None


def give_up(failed: int, before: int, rows: int, held: int) -> bool:
    """Whether a run gives up, of so many rows in one unit, of which some fail, some not for the first time; 5 % may."""
    settings = load(None, ["source.path=texts", "output.path=out"], {})
    ids = [f"d{i}" for i in range(failed)]
    failures = Failures(NONE, settings, NONE, NONE, set(ids[:before]), lambda: held)
    found = Changes(
        mode="feed", documents=NONE, removed=NONE, refused=NONE, whole=False, rows=rows, counts={},
        to_recognise=rows, to_remove=0, chars=rows, known=0,
    )  # fmt: skip
    try:
        failures.check(ids, Piece(NONE, known=False, rows=rows, chars=rows), found)
    except RejectedError:
        return True
    return False


@pytest.mark.parametrize(
    ("failed", "before", "rows", "held", "expected"),
    [
        (1, 0, 1, 0, False),
        (2, 0, 30, 0, True),
        (2, 0, 40, 0, False),
        (2, 2, 2, 0, False),
        # A small night on a large table: the share is the table's.
        (2, 0, 30, 1_000_000, False),
        (30, 0, 30, 500, True),
    ],
)
def test_the_share_is_of_the_unit_or_of_what_the_output_holds(
    failed: int, before: int, rows: int, held: int, *, expected: bool
) -> None:
    assert give_up(failed, before, rows, held) == expected
