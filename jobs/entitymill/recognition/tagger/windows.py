"""Sentences longer than the model's limit become overlapping windows; every token is owned by exactly one window."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

CONTEXT_SHARE = 8
"""An inner window's tokens have at least a CONTEXT_SHARE-th of its pieces as context on either side."""


@dataclass(frozen=True)
class Windows:
    """Rows for the model, each a run of tokens of one sentence; all arrays are [rows] int64.

    first, last: the row's tokens are first..last - 1, numbered through all sentences.
    own_first, own_last: it decides the tags of own_first..own_last - 1; these ranges partition all tokens.
    split_sentences: [] which sentences took more than one row.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    own_first: NDArray[np.int64]
    own_last: NDArray[np.int64]
    split_sentences: NDArray[np.int64]


def plan_windows(piece_starts: NDArray[np.int64], sentence_starts: NDArray[np.int64], capacity: int) -> Windows:
    """Cut sentences into rows of at most `capacity` pieces.

    Args:
        piece_starts: [tokens + 1] where each token's pieces start; no token has more than `capacity`.
        sentence_starts: [sentences + 1] where each sentence's tokens start; none is empty.
        capacity: pieces a row may hold, special pieces apart.
    """
    first, last = sentence_starts[:-1], sentence_starts[1:]
    long = np.flatnonzero(piece_starts[last] - piece_starts[first] > capacity)
    if not len(long):
        return Windows(first, last, first, last, long)
    rows = np.stack([first, last, first, last], axis=1)
    keep = np.delete(rows, long, axis=0)
    cut = [_cut(piece_starts, int(first[i]), int(last[i]), capacity) for i in long]
    merged = np.concatenate([keep, *cut])
    merged = merged[np.argsort(merged[:, 2], kind="stable")]
    return Windows(merged[:, 0], merged[:, 1], merged[:, 2], merged[:, 3], long)


def _cut(piece_starts: NDArray[np.int64], first: int, last: int, capacity: int) -> NDArray[np.int64]:
    """Windows of one long sentence, [windows, 4]: each full, each overlapping the one before by a quarter."""
    context = capacity // CONTEXT_SHARE
    spans: list[tuple[int, int]] = []
    start = first
    while True:
        end = int(np.searchsorted(piece_starts, piece_starts[start] + capacity, side="right")) - 1
        if end >= last:
            # The last window starts as early as fits, so that it too is full of context.
            start = int(np.searchsorted(piece_starts, piece_starts[last] - capacity, side="left"))
            spans.append((max(start, first), last))
            break
        spans.append((start, end))
        overlap = int(np.searchsorted(piece_starts, piece_starts[end] - 2 * context, side="left"))
        start = min(max(overlap, start + 1), end)
    # Between two neighbours the middle of their overlap decides, so both sides see like context.
    middles = [(second_start + first_end) // 2 for (_, first_end), (second_start, _) in pairwise(spans)]
    edges = [first, *middles, last]
    return np.array([(a, b, edges[i], edges[i + 1]) for i, (a, b) in enumerate(spans)], np.int64)
