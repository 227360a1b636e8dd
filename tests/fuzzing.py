"""Control the fuzz tests: number of attempts and seed.

ENTITYMILL_FUZZ: `full` for the sizes of `make test-fuzz`, or a factor for the small sizes of the unit tests (1).
ENTITYMILL_SEED: the seed (1). A failure names the seed and the attempt.
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
    """Give one attempt its own random numbers; a failure inside says how to repeat it."""
    try:
        yield random.Random(f"{SEED} {what} {number}")  # noqa: S311  # seeded, not secret
    except BaseException as error:
        error.add_note(f"{what}: attempt {number} with ENTITYMILL_SEED={SEED} ENTITYMILL_FUZZ={SIZE}")
        raise


def report(what: str, **counts: int) -> None:
    """Print what was tried, for `pytest -s`."""
    print(f"{what}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))  # noqa: T201  # a long test reports
