"""Put the pieces of sentences into rows for the model, and determine which piece decides the tag of each token.

Pieces are subwords in the model's vocabulary (see `encoding`). A sentence becomes one row. A sentence longer than the
model's limit becomes several overlapping windows, each of which is one row. Exactly one window decides the tag of each
token. Afterwards, `packing` puts several of these rows into one row of the network's input.
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
"""Number of special pieces in a row: [CLS] before the other pieces, and [SEP] after them."""
CONTEXT_SHARE = 8
"""A window decides only the tags of tokens that have about 1/CONTEXT_SHARE of the window's pieces as context on either side.
No context is needed on a side where the sentence begins or ends."""


@dataclass(frozen=True)
class Rows:
    """Rows for the model. [CLS] and [SEP] are not stored; they are added when the rows are put into a batch.

    ids: int32, shape [pieces]; the piece ids of all sentences, concatenated.
    begin, end: int64, shape [rows]; row r contains the pieces ids[begin[r]:end[r]].
    tokens: int64, shape [tagged]; indices of the tokens that get a tag, row by row.
    positions: int64, shape [tagged]; position in the row (0 is [CLS]) of the piece that decides the token's tag.
    starts: int64, shape [rows + 1]; row r decides the tags of tokens[starts[r]:starts[r + 1]].
    split: indices of the sentences longer than the model's limit; encoding sparknlp truncates such sentences.
    """

    ids: NDArray[np.int32]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    split: NDArray[np.int64]


class RowMaker(Protocol):
    """The interface of an encoding, which turns sentences into rows.

    cls_id, sep_id, pad_id: piece ids of [CLS], [SEP] and [PAD].
    max_length: maximum number of pieces in a row, including [CLS] and [SEP].
    """

    cls_id: int
    sep_id: int
    pad_id: int
    max_length: int

    def make_rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """Return the rows in which the model reads sentences.

        Args:
            tokens: the tokens of all sentences, concatenated.
            starts: where the tokens of each sentence start, shape [sentences + 1]; no sentence is empty.
            begins: offset of each token in its document, in UTF-16 code units, shape [tokens].
        """


class CompleteRows:
    """The default encoding, which uses every piece of every token and splits a long sentence into overlapping windows."""

    def __init__(self, encoder: Encoder, max_length: int) -> None:
        """Create the encoding; `encoder` must return at most `max_length - SPECIAL_PIECES` pieces for a token."""
        self._encoder = encoder
        self.max_length = max_length
        self.cls_id, self.sep_id, self.pad_id = encoder.cls_id, encoder.sep_id, encoder.pad_id

    def make_rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """Return the rows of sentences; the first piece of a token decides the token's tag (see `RowMaker.make_rows`)."""
        del begins
        pieces = self._encoder.encode(tokens)
        windows = plan_windows(pieces.starts, starts, self.max_length - SPECIAL_PIECES)
        begin = pieces.starts[windows.begin]
        tagged = np.concatenate([windows.own_begin, windows.own_end[-1:]])
        positions = pieces.starts[:-1] - np.repeat(begin, np.diff(tagged)) + 1
        all_tokens = np.arange(len(tokens))
        split = np.union1d(windows.split_sentences, self._find_sentences_with_cut_words(tokens, starts, pieces.starts))
        return Rows(pieces.ids, begin, pieces.starts[windows.end], all_tokens, positions, tagged, split)

    def _find_sentences_with_cut_words(
        self, tokens: Sequence[str], starts: NDArray[np.int64], piece_starts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the indices of the sentences that have a token with more pieces than fit in a row."""
        full = np.flatnonzero(np.diff(piece_starts) >= self.max_length - SPECIAL_PIECES)
        cut = [token for token in full.tolist() if tokens[token] in self._encoder.truncated]
        return np.searchsorted(starts, np.array(cut, np.int64), side="right") - 1


def find_truncated_sentences(tagged: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the sentences that Spark NLP truncated: those whose last token has no tag.

    Args:
        tagged: indices of the tokens that have a tag.
        starts: where the tokens of each sentence start, shape [sentences + 1]; no sentence is empty.
    """
    has_tag = np.zeros(int(starts[-1]), np.bool_)
    has_tag[tagged] = True
    return np.flatnonzero(~has_tag[starts[1:] - 1])


@dataclass(frozen=True)
class Windows:
    """Rows for the model, each of which has consecutive tokens of one sentence; arrays are int64 of shape [rows].

    begin: index, across all sentences, of the row's first token.
    end: index, across all sentences, of the token after the row's last token.
    own_begin, own_end: the same for the tokens whose tags the row decides. Exactly one row decides the tag of each token.
    split_sentences: indices of the sentences that have more than one row.
    """

    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    own_begin: NDArray[np.int64]
    own_end: NDArray[np.int64]
    split_sentences: NDArray[np.int64]


def plan_windows(piece_starts: NDArray[np.int64], sentence_starts: NDArray[np.int64], capacity: int) -> Windows:
    """Return rows of at most `capacity` pieces for sentences; a longer sentence gets several overlapping rows.

    Args:
        piece_starts: where the pieces of each token start, shape [tokens + 1]; no token has more than `capacity` pieces.
        sentence_starts: where the tokens of each sentence start, shape [sentences + 1]; no sentence is empty.
        capacity: maximum number of pieces in a row, without special pieces.
    """
    begin, end = sentence_starts[:-1], sentence_starts[1:]
    long = np.flatnonzero(piece_starts[end] - piece_starts[begin] > capacity)
    if not len(long):
        return Windows(begin, end, begin, end, long)
    rows = np.stack([begin, end, begin, end], axis=1)
    keep = np.delete(rows, long, axis=0)
    cut = [_plan_sentence_windows(piece_starts, int(begin[i]), int(end[i]), capacity) for i in long]
    merged = np.concatenate([keep, *cut])
    merged = merged[np.argsort(merged[:, 2], kind="stable")]
    return Windows(merged[:, 0], merged[:, 1], merged[:, 2], merged[:, 3], long)


def _plan_sentence_windows(
    piece_starts: NDArray[np.int64], sentence_begin: int, sentence_end: int, capacity: int
) -> NDArray[np.int64]:
    """Return windows for one long sentence, each of which has as many tokens as fit into a row.

    Each window overlaps the previous one by about a quarter; the last window may overlap more. The result has the columns
    begin, end, own_begin and own_end of `Windows`; shape [windows, 4].
    """
    context = capacity // CONTEXT_SHARE
    spans: list[tuple[int, int]] = []
    start = sentence_begin
    while True:
        end = int(np.searchsorted(piece_starts, piece_starts[start] + capacity, side="right")) - 1
        if end >= sentence_end:
            # The last window starts as early as possible, so that it is also full.
            start = int(np.searchsorted(piece_starts, piece_starts[sentence_end] - capacity, side="left"))
            spans.append((max(start, sentence_begin), sentence_end))
            break
        spans.append((start, end))
        overlap = int(np.searchsorted(piece_starts, piece_starts[end] - 2 * context, side="left"))
        start = min(max(overlap, start + 1), end)
    # The first half of an overlap belongs to the first window, and the second half to the second window. So tokens in the
    # middle have the same amount of context in either window.
    middles = [(second_begin + first_end) // 2 for (_, first_end), (second_begin, _) in pairwise(spans)]
    edges = [sentence_begin, *middles, sentence_end]
    return np.array([(a, b, edges[i], edges[i + 1]) for i, (a, b) in enumerate(spans)], np.int64)
