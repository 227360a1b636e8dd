"""Real text for benchmarks: the speeches in this repository."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
SPEECHES = ROOT / "data" / "state_union.parquet"
LONGEST_DOCUMENT = 60
"""Sentences per document; news articles have about 30."""


@cache
def speeches() -> list[list[str]]:
    """Return the sentences of each speech, by a simple rule that is accurate enough to count and to split."""
    texts = pq.read_table(SPEECHES)["text"].to_pylist()
    return [[part for part in re.split(r"(?<=[.!?])\s+", text) if re.search(r"\w", part)] for text in texts]


def sentences(count: int) -> list[list[str]]:
    """Return the tokens of `count` different sentences, drawn with a fixed seed."""
    found = sorted({part for speech in speeches() for part in speech})
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    return [re.findall(r"\w+|[^\w\s]", found[i]) for i in chosen]


def documents(count: int, longest: int = LONGEST_DOCUMENT) -> list[str]:
    """Return documents of 1 to `longest` sentences each, `count` sentences in total, in random order.

    The speeches are split again in other places as often as necessary, so that no two documents are equal.
    """
    rng = np.random.default_rng(0)
    made: list[str] = []
    left = count
    while left > 0:
        for number in rng.permutation(len(speeches())):
            speech, at = speeches()[number], 0
            while at < len(speech) and left > 0:
                size = min(int(rng.integers(1, longest + 1)), left)
                part = speech[at : at + size]
                made.append(" ".join(part))
                at, left = at + size, left - len(part)
    return [made[i] for i in rng.permutation(len(made))]


def lines(path: Path, count: int) -> list[str]:
    """Return the texts of the first `count` lines of a JSON Lines file."""
    with path.open(encoding="utf8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(count), strict=False)]
