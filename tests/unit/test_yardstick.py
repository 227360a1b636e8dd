from __future__ import annotations

import re

import pytest

from bench import yardstick

FOUND: yardstick.Entities = {("a", 0, 5, "PER", "Smith"): 0.9, ("b", 3, 8, "LOC", "Paris"): 0.8}


def test_the_last_digits_of_a_confidence_make_no_difference() -> None:
    assert yardstick.difference(FOUND, {**FOUND, ("a", 0, 5, "PER", "Smith"): 0.90005}) is None


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({("a", 0, 5, "PER", "Smith"): 0.9}, "finds 2 entities, engine openvino 1: 1 are the first's alone, 0 the second's"),
        ({**FOUND, ("c", 0, 1, "ORG", "X"): 0.5}, "0 are the first's alone, 1 the second's.*; one is ORG 0-1 of c"),
        ({**FOUND, ("b", 3, 8, "LOC", "Paris"): 0.7}, "0 are .*, 1 differ in confidence .*; one is LOC 3-8 of b"),
        ({("a", 0, 5, "ORG", "Smith"): 0.9, ("b", 3, 8, "LOC", "Paris"): 0.8}, "1 are the first's alone, 1 the second's"),
    ],
)  # fmt: skip
def test_what_differs_is_counted(ours: yardstick.Entities, said: str) -> None:
    assert re.search(said, yardstick.difference(FOUND, ours) or "")
