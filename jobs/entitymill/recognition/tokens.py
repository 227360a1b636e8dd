"""Sentences to tokens, as Spark NLP 5.5.3's Tokenizer with its default rules cuts them.

A word ends at white space. Punctuation at its ends makes one token at each end; a word of nothing else is one token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitymill.recognition.offsets import AFFIX, GRAPHIC, SPACE, Texts


@dataclass(frozen=True)
class Segments:
    """Sentences and tokens of some texts, in order and flat, in units of the whole (`offsets.Texts`).

    token_begin, token_end: [tokens] int64; end exclusive.
    sentence_of: [tokens] int64, the number of the token's sentence among all.
    sentence_begin, sentence_end: [sentences] int64: from the first token's begin to the last one's end.
    sentence_starts: [texts + 1] int64; text t has sentences sentence_starts[t]..sentence_starts[t + 1] - 1.
    """

    token_begin: NDArray[np.int64]
    token_end: NDArray[np.int64]
    sentence_of: NDArray[np.int64]
    sentence_begin: NDArray[np.int64]
    sentence_end: NDArray[np.int64]
    sentence_starts: NDArray[np.int64]

    @property
    def sentence_tokens(self) -> NDArray[np.int64]:
        """[sentences] how many tokens each has; none has none."""
        return np.bincount(self.sentence_of, minlength=len(self.sentence_begin))


def cut(texts: Texts, begins: NDArray[np.int64]) -> Segments:
    """The tokens of sentences; a sentence without one is left out.

    Args:
        texts: to cut.
        begins: [breaks] units at which a sentence begins, beside the texts' own beginnings; sorted.
    """
    breaks = np.union1d(texts.edges[:-1], begins)
    begin, end = _words(texts, breaks)
    begin, end = _without_affixes(texts, begin, end)
    sentence = np.searchsorted(breaks, begin, side="right") - 1
    kinds = texts.kinds
    if (((kinds & SPACE) == 0) & ((kinds & GRAPHIC) == 0)).any():
        begin, end, sentence = _without_invisible(texts, breaks, begin, end, sentence)
    return grouped(texts, begin, end, sentence)


def grouped(texts: Texts, begin: NDArray[np.int64], end: NDArray[np.int64], sentence: NDArray[np.int64]) -> Segments:
    """Tokens, in order, by sentence: `sentence` is anything that differs between neighbouring ones."""
    new = np.ones(len(sentence), np.bool_)
    new[1:] = sentence[1:] != sentence[:-1]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(sentence)) - 1 if len(first) else first
    starts = np.searchsorted(begin[first], texts.edges)
    return Segments(begin, end, np.cumsum(new) - 1, begin[first], end[last], starts)


def _words(texts: Texts, breaks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Begin and end of every run of units that are no white space, cut where a sentence begins."""
    solid = (texts.kinds & SPACE) == 0
    size = len(solid)
    before, after = np.zeros(size + 1, np.bool_), np.zeros(size + 1, np.bool_)
    before[1:] = solid
    before[breaks] = False
    after[:-1] = solid
    after[breaks] = False
    return np.flatnonzero(solid & ~before[:-1]), np.flatnonzero(solid & ~after[1:]) + 1


def _without_affixes(
    texts: Texts, begin: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Words, the punctuation at their ends apart."""
    affix = (texts.kinds & AFFIX) != 0
    worn = np.flatnonzero(affix[begin] | affix[end - 1])
    if not len(worn):
        return begin, end
    size = len(affix)
    cores = np.flatnonzero(((texts.kinds & SPACE) == 0) & ~affix)
    padded = np.concatenate([[-1], cores, [size]])
    inner = padded[np.searchsorted(cores, begin[worn]) + 1]
    outer = padded[np.searchsorted(cores, end[worn])] + 1
    cored = inner < end[worn]
    inner, outer, left, right = inner[cored], outer[cored], begin[worn][cored], end[worn][cored]
    starts, stops = np.zeros(size + 1, np.bool_), np.zeros(size + 1, np.bool_)
    starts[begin] = True
    starts[inner] = True
    starts[outer[outer < right]] = True
    stops[end] = True
    stops[outer] = True
    stops[inner[inner > left]] = True
    return np.flatnonzero(starts), np.flatnonzero(stops)


def _without_invisible(
    texts: Texts,
    breaks: NDArray[np.int64],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    sentence: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Leave out sentences of control characters alone, unless one is a whole text.

    Spark NLP drops a sentence of which String.trim leaves nothing; a text of which its deep detector finds no sentence at
    all it passes on as it is, if it is longer than one unit.
    """
    edges = texts.edges
    graphic = np.concatenate([[0], np.cumsum((texts.kinds & GRAPHIC) != 0)])
    stops = np.append(breaks[1:], len(texts.kinds))
    row = np.minimum(texts.of(breaks), len(texts) - 1)
    whole = (breaks == edges[row]) & (stops == edges[row + 1]) & (stops - breaks > 1)
    kept = ((graphic[stops] > graphic[breaks]) | whole)[sentence]
    return begin[kept], end[kept], sentence[kept]
