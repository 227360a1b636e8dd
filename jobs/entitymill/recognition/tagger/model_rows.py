"""Sentences to rows for the model: which pieces go in together, and which of them decide which token's tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from entitymill.recognition.tagger.encoding import Encoder
from entitymill.recognition.tagger.windows import plan_windows

SPECIAL_PIECES = 2
"""[CLS] before a row's pieces, [SEP] behind them."""


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
