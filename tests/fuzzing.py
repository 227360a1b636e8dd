"""Control the fuzz tests: number of attempts and seed.

ENTITYMILL_FUZZ: `full` for the numbers of attempts of `make test-fuzz`, or a factor for the smaller numbers of the unit
tests; the default is 1.
ENTITYMILL_SEED: the seed; the default is 1. A failure names the seed and the attempt.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

SEED = os.environ.get("ENTITYMILL_SEED", "1")
SIZE = os.environ.get("ENTITYMILL_FUZZ", "1")


def tries(few: int, full: int) -> int:
    """Return how many attempts a test makes: a few by default, all of them in the full fuzz level."""
    return full if SIZE == "full" else max(1, round(few * float(SIZE)))


@contextmanager
def attempt(what: str, number: int) -> Iterator[random.Random]:
    """Yield the random generator of one attempt, and add to any error a note that says how to repeat the attempt."""
    try:
        yield random.Random(f"{SEED} {what} {number}")  # noqa: S311  # seeded, not secret
    except BaseException as error:
        error.add_note(f"{what}: attempt {number} with ENTITYMILL_SEED={SEED} ENTITYMILL_FUZZ={SIZE}")
        raise


def report(what: str, **counts: int) -> None:
    """Print the numbers of what a test tried; `pytest -s` shows them."""
    print(f"{what}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))  # noqa: T201  # a long test reports
