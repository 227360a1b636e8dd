"""Tags to mentions: spans of tokens, joined as Spark NLP's NerConverter joins them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spans:
    """Spans over a list of tagged tokens, in order; all arrays are [spans].

    first, last: int64; the span's tokens are first..last - 1 of that list.
    kinds: int64, index into the entity labels.
    confidences: float64, mean over the span's tokens of each one's probability for its own tag.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    kinds: NDArray[np.int64]
    confidences: NDArray[np.float64]


class TagScheme:
    """What a model's IOB2 labels mean."""

    def __init__(self, labels: Sequence[str]) -> None:
        """`labels` as the model orders them: O, B-PER, I-PER, …"""
        self.kinds = sorted({label[2:] for label in labels if label != "O"})
        self._kind = np.array([-1 if label == "O" else self.kinds.index(label[2:]) for label in labels], np.int64)
        self._begins = np.array([label.startswith("B-") for label in labels], np.bool_)

    def spans(
        self,
        tags: NDArray[np.int16],
        confidences: NDArray[np.float32],
        sentence_of: NDArray[np.int64],
    ) -> Spans:
        """Join tags into spans.

        A span starts at a B- or at the first I- after an O, takes its label from that token, and ends before the next B-
        or O, so an I- of another label goes on with it. It never crosses a sentence. (Spark NLP 5.5.3, NerTagsEncoding.)

        Args:
            tags: [tagged] indices into the labels.
            confidences: [tagged] each token's probability for its own tag.
            sentence_of: [tagged] anything that differs between neighbouring sentences.
        """
        kind = self._kind[tags]
        inside = kind >= 0
        follows = np.zeros(len(tags), np.bool_)
        follows[1:] = inside[1:] & inside[:-1] & (sentence_of[1:] == sentence_of[:-1]) & ~self._begins[tags[1:]]
        first = np.flatnonzero(inside & ~follows)
        # Every tagged token belongs to the last start at or before it, so tokens per span are counted directly.
        tagged = np.flatnonzero(inside)
        span_of = np.searchsorted(first, tagged, side="right") - 1
        counts = np.bincount(span_of, minlength=len(first))
        sums = np.bincount(span_of, weights=confidences[tagged].astype(np.float64), minlength=len(first))
        return Spans(first, first + counts, kind[first], sums / np.maximum(counts, 1))
