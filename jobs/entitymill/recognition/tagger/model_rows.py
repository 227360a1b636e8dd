"""Sentences to rows for the model: which pieces go in together, and which of them decide which token's tag.

Sentences longer than the model's limit become overlapping windows; every token is owned by exactly one window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from entitymill.recognition.tagger.encoding import Encoder

SPECIAL_PIECES = 2
"""[CLS] before a row's pieces, [SEP] behind them."""
CONTEXT_SHARE = 8
"""An inner window's tokens have at least a CONTEXT_SHARE-th of its pieces as context on either side."""


@dataclass(frozen=True)
class Rows:
    """Rows for the model.

    ids: [pieces] int32, piece ids of all sentences, one after the other.
    first, last: [rows] int64; a row holds pieces first..last - 1.
    tokens: [tagged] int64, the tokens that get a tag, row by row.
    positions: [tagged] int64, the place in its row (0 is [CLS]) that a token's tag is read off.
    starts: [rows + 1] int64; row r tags tokens[starts[r]:starts[r + 1]].
    split: indices of the sentences longer than the model's limit, or in the encoding sparknlp of those cut short.
    """

    ids: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    split: NDArray[np.int64]


class RowMaker(Protocol):
    """An encoding: how sentences become rows.

    cls_id, sep_id, pad_id: piece ids of [CLS], [SEP], [PAD].
    max_length: pieces in a row, [CLS] and [SEP] included.
    """

    cls_id: int
    sep_id: int
    pad_id: int
    max_length: int

    def rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """Rows of sentences.

        Args:
            tokens: of all sentences, one after the other.
            starts: [sentences + 1] where each sentence's tokens start; none is empty.
            begins: [tokens] where each starts in its document, in UTF-16 units.
        """


class CompleteRows:
    """The default encoding: every piece of every token; a long sentence becomes overlapping windows."""

    def __init__(self, encoder: Encoder, max_length: int) -> None:
        self._encoder = encoder
        self.max_length = max_length
        self.cls_id, self.sep_id, self.pad_id = encoder.cls_id, encoder.sep_id, encoder.pad_id

    def rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """See `RowMaker`; a token's tag is read off its first piece."""
        del begins
        pieces = self._encoder.encode(tokens)
        windows = plan_windows(pieces.starts, starts, self.max_length - SPECIAL_PIECES)
        first = pieces.starts[windows.first]
        tagged = np.concatenate([windows.own_first, windows.own_last[-1:]])
        positions = pieces.starts[:-1] - np.repeat(first, np.diff(tagged)) + 1
        every = np.arange(len(tokens))
        return Rows(pieces.ids, first, pieces.starts[windows.last], every, positions, tagged, windows.split_sentences)


def cut_short(tagged: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the sentences whose last token got no tag.

    Args:
        tagged: tokens that got one.
        starts: [sentences + 1] where each sentence's tokens start; none is empty.
    """
    has_tag = np.zeros(int(starts[-1]), np.bool_)
    has_tag[tagged] = True
    return np.flatnonzero(~has_tag[starts[1:] - 1])


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
