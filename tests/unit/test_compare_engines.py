from __future__ import annotations

import re

import pytest

from bench import compare_engines

FOUND: compare_engines.Entities = {("a", 0, 5, "PER", "Smith"): 0.9, ("b", 3, 8, "LOC", "Paris"): 0.8}


def test_the_last_digits_of_a_confidence_make_no_difference() -> None:
    assert compare_engines.describe_difference(FOUND, {**FOUND, ("a", 0, 5, "PER", "Smith"): 0.90005}) is None


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({("a", 0, 5, "PER", "Smith"): 0.9}, "engine openvino 1: only the first finds 1, only the second 0"),
        ({**FOUND, ("c", 0, 1, "ORG", "X"): 0.5}, "only the first finds 0, only the second 1.*; one is ORG 0-1 of c"),
        ({**FOUND, ("b", 3, 8, "LOC", "Paris"): 0.7}, "finds 0.*; 1 differ in confidence .*; one is LOC 3-8 of b"),
        ({("a", 0, 5, "ORG", "Smith"): 0.9, ("b", 3, 8, "LOC", "Paris"): 0.8}, "only the first finds 1, only the second 1"),
    ],
)  # fmt: skip
def test_what_differs_is_counted(ours: compare_engines.Entities, said: str) -> None:
    assert re.search(said, compare_engines.describe_difference(FOUND, ours) or "")
