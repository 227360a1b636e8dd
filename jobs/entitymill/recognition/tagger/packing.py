"""Sentences end to end in rows of few lengths, so that next to nothing is padding and one compiled shape does for all.

A row holds several sentences; the network is told which piece belongs to which (`network.pack`), so that none sees another.
First fit, longest first, fills the rows to some 99 %. Sentences that say the same are run once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROW_PIECES = 64
"""Pieces of a row. A longer sentence gets rows of twice the length, or four times, and so on. AMX wants multiples of 16:
there 64 and 128 are alike; without AMX 64 is the faster."""
BATCH_PIECES = 768
"""Pieces of a batch: beyond some 1,000 its activations leave the core's cache and each piece gets dearer."""


@dataclass(frozen=True)
class Batch:
    """Rows to run together.

    items: [items] int64, which sentences.
    row, column: [items] int64, the row each is in, and its first piece's place there.
    rows, length: the shape.
    """

    items: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    rows: int
    length: int


def plan(lengths: NDArray[np.int64], limit: int, *, packed: bool) -> Iterator[Batch]:
    """Partition sentences into batches.

    Args:
        lengths: [items] pieces of each, special pieces included; none above `limit`.
        limit: the model's longest input; no row is longer, unless several sentences share it.
        packed: whether sentences may share a row. Otherwise each has one, beside others of like length.
    """
    return _packed(lengths) if packed else _apart(lengths, limit)


def _packed(lengths: NDArray[np.int64]) -> Iterator[Batch]:
    rows, sizes = _first_fit(lengths)
    for length in sorted(set(sizes)):
        mine = [row for row, size in zip(rows, sizes, strict=True) if size == length]
        at_once = max(1, BATCH_PIECES // length)
        for first in range(0, len(mine), at_once):
            part = mine[first : first + at_once]
            items = np.array([item for row in part for item in row], np.int64)
            row = np.repeat(np.arange(len(part)), [len(row) for row in part])
            yield Batch(items, row, _columns(lengths[items], row), len(part), length)


def _first_fit(lengths: NDArray[np.int64]) -> tuple[list[list[int]], list[int]]:
    """The items of every row, and the length of each."""
    rows: list[list[int]] = []
    sizes: list[int] = []
    with_room: dict[int, list[int]] = {}
    rooms = 0  # bit n: some row has room for n pieces, and no more
    for item in np.argsort(-lengths, kind="stable").tolist():
        needed = int(lengths[item])
        fitting = rooms >> needed
        if fitting:
            room = needed + (fitting & -fitting).bit_length() - 1  # the least that is enough
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            row, room = len(rows), ROW_PIECES
            while room < needed:
                room *= 2
            rows.append([])
            sizes.append(room)
        rows[row].append(item)
        with_room.setdefault(room - needed, []).append(row)
        rooms |= 1 << (room - needed)
    return rows, sizes


def _columns(lengths: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the items of some rows starts in its own."""
    before = np.cumsum(lengths) - lengths
    return before - before[np.searchsorted(row, row)]


def _apart(lengths: NDArray[np.int64], limit: int) -> Iterator[Batch]:
    """One sentence a row, like lengths together, padded to the longest rounded up to 8."""
    order = np.argsort(lengths, kind="stable")
    padded = np.minimum(-(-lengths[order] // 8) * 8, limit)
    end = len(order)
    while end:
        length = int(padded[end - 1])
        count = min(end, max(1, BATCH_PIECES // length))
        items = order[end - count : end]
        yield Batch(items, np.arange(count), np.zeros(count, np.int64), count, length)
        end -= count


def distinct(
    ids: NDArray[np.int32], first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[list[int], NDArray[np.int64]]:
    """Sentences that differ, and for each sentence which of these it equals.

    Args:
        ids: [pieces] of all sentences.
        first: [sentences] where each one's pieces start.
        last: [sentences] where they end.
    """
    known: dict[bytes, int] = {}
    kept: list[int] = []
    same = np.zeros(len(first), np.int64)
    for number, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        found = known.setdefault(ids[begin:end].tobytes(), len(kept))
        if found == len(kept):
            kept.append(number)
        same[number] = found
    return kept, same
