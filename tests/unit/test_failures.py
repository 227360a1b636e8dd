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


def give_up(failed: int, before: int, rows: int, in_all: int) -> bool:
    """Whether a run gives up, of so many rows in one unit, of which some fail, some not for the first time; 5 % may."""
    settings = load(None, ["source.path=texts", "output.path=out"], {})
    ids = [f"d{i}" for i in range(failed)]
    failures = Failures(NONE, settings, NONE, NONE, set(ids[:before]))
    found = Changes(
        mode="feed", documents=NONE, removed=NONE, refused=NONE, whole=False, rows=in_all, counts={},
        to_recognise=in_all, to_remove=0, chars=rows, known=0,
    )  # fmt: skip
    try:
        failures.check(ids, Piece(NONE, known=False, rows=rows, chars=rows), found)
    except RejectedError:
        return True
    return False


@pytest.mark.parametrize(
    ("failed", "before", "rows", "in_all", "expected"),
    [
        (1, 0, 1, 1, False),
        (2, 0, 30, 1_000, True),
        (2, 0, 40, 40, False),
        (2, 2, 2, 2, False),
        (3, 2, 10, 10, False),
    ],
)
def test_the_share_is_of_the_unit(failed: int, before: int, rows: int, in_all: int, *, expected: bool) -> None:
    assert give_up(failed, before, rows, in_all) == expected
