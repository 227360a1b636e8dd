"""Rows of like length into batches, planned by cost.

A batch of B rows padded to L pieces costs about B * L + OVERHEAD_PIECES times one piece: padding is paid for in full, and
so is each call. Sorting by length makes padding small; a shortest path over the sorted rows makes the sum smallest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OVERHEAD_PIECES = 10
"""What one call costs beside its pieces, in pieces (measured with DistilBERT-base on OpenVINO)."""
MAX_BATCH_PIECES = 768
"""Beyond some 1,000 a batch's activations leave the core's cache and each piece gets dearer."""
LENGTH_STEP = 2
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
"""Allowed row counts. With lengths in steps of LENGTH_STEP they bound the distinct shapes, each of which costs OpenVINO
memory for good (192 shapes of a DistilBERT-base in int8: 150 MB)."""


@dataclass(frozen=True)
class Batch:
    """Rows to run together, padded to one length.

    rows: [B] int64, which rows.
    length: pieces to pad to, special pieces included.
    """

    rows: NDArray[np.int64]
    length: int


def plan(lengths: NDArray[np.int64], limit: int) -> list[Batch]:
    """Partition rows into batches of the least total cost.

    Args:
        lengths: [rows] pieces of each row, special pieces included; none above `limit`.
        limit: the model's longest input; no batch is padded past it.
    """
    if not len(lengths):
        return []
    order = np.argsort(lengths, kind="stable")
    padded = np.minimum(-(-lengths[order] // LENGTH_STEP) * LENGTH_STEP, limit).tolist()
    count = len(padded)
    best = [0.0] * (count + 1)
    size_of = [1] * (count + 1)
    for end in range(1, count + 1):
        length = padded[end - 1]
        cheapest, chosen = float("inf"), 1
        for size in SIZES:
            if size > end or (size > 1 and size * length > MAX_BATCH_PIECES):
                break
            cost = best[end - size] + size * length + OVERHEAD_PIECES
            if cost < cheapest:
                cheapest, chosen = cost, size
        best[end], size_of[end] = cheapest, chosen
    batches = []
    end = count
    while end:
        size = size_of[end]
        batches.append(Batch(order[end - size : end], padded[end - 1]))
        end -= size
    batches.reverse()
    return batches
