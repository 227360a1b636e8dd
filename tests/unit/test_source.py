from __future__ import annotations

import pytest

from entitymill import source


@pytest.mark.parametrize(
    ("where", "moving"),
    [
        (None, False),
        ("event_date = '2026-11-01' AND knows = 'andy'", False),
        ("day >= current_date() - 7", True),
        ("day >= DATE 'yesterday'", True),
        ("at < timestamp'Today'", True),
        ("rand(7) < 0.1", True),
        ("id IN (SELECT id FROM others)", True),
    ],
)
def test_a_condition_that_may_hold_for_other_rows_later(where: str | None, moving: bool) -> None:
    assert source.moves(where) == moving
