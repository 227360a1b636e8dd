"""Find sentences and tokens with `entitymill.recognition`, in the form that tests compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from entitymill.recognition import offsets, tokens
from entitymill.recognition.sentences import Detector


@dataclass(frozen=True)
class Segments:
    """Sentences and tokens of one text, as (begin, end) in UTF-16 units, with exclusive ends.

    Sentences without a token are left out; the others reach from their first token's begin to their last token's end.
    """

    sentences: list[tuple[int, int]]
    tokens: list[tuple[int, int]]


def segment_texts(detector: Detector, texts: Sequence[str]) -> list[Segments]:
    """Return the segments of each text; all texts are processed in one array."""
    whole = offsets.read_texts(pa.array(texts, pa.string()))
    segments = tokens.tokenize(whole, detector.find_breaks(whole))
    starts = segments.sentence_starts
    firsts = np.searchsorted(segments.token_begin, whole.edges)
    edges = (segments.sentence_begin, segments.sentence_end), (segments.token_begin, segments.token_end)
    found = []
    for row, origin in enumerate(whole.edges[:-1].tolist()):
        spans = [
            _spans(begin, end, slice(first[row], first[row + 1]), origin)
            for (begin, end), first in zip(edges, (starts, firsts), strict=True)
        ]
        found.append(Segments(*spans))
    return found


def _spans(begin: NDArray[np.int64], end: NDArray[np.int64], rows: slice, origin: int) -> list[tuple[int, int]]:
    return list(zip((begin[rows] - origin).tolist(), (end[rows] - origin).tolist(), strict=True))
