"""Arrange sentences in rows for the model, and say which piece decides the tag of which token.

Sentences longer than the model's limit become overlapping windows; exactly one window decides the tag of each token.
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
"""[CLS] before a row's pieces, [SEP] after them."""
CONTEXT_SHARE = 8
"""Tokens whose tags a window decides have at least 1/CONTEXT_SHARE of the window's pieces as context on either side."""


@dataclass(frozen=True)
class Rows:
    """Rows for the model.

    ids: [pieces] int32, piece ids of all sentences, concatenated.
    first, last: [rows] int64; a row contains pieces first..last - 1.
    tokens: [tagged] int64, the tokens that get a tag, row by row.
    positions: [tagged] int64, the position in the row (0 is [CLS]) of the piece that decides the token's tag.
    starts: [rows + 1] int64; row r tags tokens[starts[r]:starts[r + 1]].
    split: indices of the sentences longer than the model's limit; encoding sparknlp truncates these.
    """

    ids: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    split: NDArray[np.int64]


class RowMaker(Protocol):
    """An encoding, which turns sentences into rows.

    cls_id, sep_id, pad_id: piece ids of [CLS], [SEP], [PAD].
    max_length: pieces in a row, [CLS] and [SEP] included.
    """

    cls_id: int
    sep_id: int
    pad_id: int
    max_length: int

    def make_rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """Arrange sentences in rows.

        Args:
            tokens: of all sentences, concatenated.
            starts: [sentences + 1] where each sentence's tokens start; no sentence is empty.
            begins: [tokens] offset in the document, in UTF-16 units.
        """


class CompleteRows:
    """The default encoding, which uses every piece of every token, and splits a long sentence into overlapping windows."""

    def __init__(self, encoder: Encoder, max_length: int) -> None:
        self._encoder = encoder
        self.max_length = max_length
        self.cls_id, self.sep_id, self.pad_id = encoder.cls_id, encoder.sep_id, encoder.pad_id

    def make_rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """Arrange sentences in rows, as `RowMaker.make_rows` does; a token's first piece decides its tag."""
        del begins
        pieces = self._encoder.encode(tokens)
        windows = plan_windows(pieces.starts, starts, self.max_length - SPECIAL_PIECES)
        first = pieces.starts[windows.first]
        tagged = np.concatenate([windows.own_first, windows.own_last[-1:]])
        positions = pieces.starts[:-1] - np.repeat(first, np.diff(tagged)) + 1
        every = np.arange(len(tokens))
        return Rows(pieces.ids, first, pieces.starts[windows.last], every, positions, tagged, windows.split_sentences)


def find_truncated_sentences(tagged: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the sentences whose last token has no tag.

    Args:
        tagged: tokens that have one.
        starts: [sentences + 1] where each sentence's tokens start; no sentence is empty.
    """
    has_tag = np.zeros(int(starts[-1]), np.bool_)
    has_tag[tagged] = True
    return np.flatnonzero(~has_tag[starts[1:] - 1])


@dataclass(frozen=True)
class Windows:
    """Rows for the model, each with consecutive tokens of one sentence; all arrays are [rows] int64.

    first, last: the row contains tokens first..last - 1, numbered through all sentences.
    own_first, own_last: the row decides the tags of own_first..own_last - 1; these ranges partition all tokens.
    split_sentences: indices of the sentences that have more than one row.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    own_first: NDArray[np.int64]
    own_last: NDArray[np.int64]
    split_sentences: NDArray[np.int64]


def plan_windows(piece_starts: NDArray[np.int64], sentence_starts: NDArray[np.int64], capacity: int) -> Windows:
    """Split sentences into rows of at most `capacity` pieces.

    Args:
        piece_starts: [tokens + 1] where each token's pieces start; no token has more than `capacity`.
        sentence_starts: [sentences + 1] where each sentence's tokens start; no sentence is empty.
        capacity: number of pieces in a row, without special pieces.
    """
    first, last = sentence_starts[:-1], sentence_starts[1:]
    long = np.flatnonzero(piece_starts[last] - piece_starts[first] > capacity)
    if not len(long):
        return Windows(first, last, first, last, long)
    rows = np.stack([first, last, first, last], axis=1)
    keep = np.delete(rows, long, axis=0)
    cut = [_plan_sentence_windows(piece_starts, int(first[i]), int(last[i]), capacity) for i in long]
    merged = np.concatenate([keep, *cut])
    merged = merged[np.argsort(merged[:, 2], kind="stable")]
    return Windows(merged[:, 0], merged[:, 1], merged[:, 2], merged[:, 3], long)


def _plan_sentence_windows(piece_starts: NDArray[np.int64], first: int, last: int, capacity: int) -> NDArray[np.int64]:
    """Split one long sentence into full windows, [windows, 4], each overlapping the previous one by a quarter."""
    context = capacity // CONTEXT_SHARE
    spans: list[tuple[int, int]] = []
    start = first
    while True:
        end = int(np.searchsorted(piece_starts, piece_starts[start] + capacity, side="right")) - 1
        if end >= last:
            # The last window starts as early as possible, so that it is full, too.
            start = int(np.searchsorted(piece_starts, piece_starts[last] - capacity, side="left"))
            spans.append((max(start, first), last))
            break
        spans.append((start, end))
        overlap = int(np.searchsorted(piece_starts, piece_starts[end] - 2 * context, side="left"))
        start = min(max(overlap, start + 1), end)
    # Two windows divide their overlap in the middle, so that both have the same amount of context.
    middles = [(second_start + first_end) // 2 for (_, first_end), (second_start, _) in pairwise(spans)]
    edges = [first, *middles, last]
    return np.array([(a, b, edges[i], edges[i + 1]) for i, (a, b) in enumerate(spans)], np.int64)
