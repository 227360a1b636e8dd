"""Find the sentences that Spark NLP 5.5.3's SentenceDetectorDLModel finds, in all texts at once.

A `.`, `:`, `?`, `!`, `;` or line feed is a mark: it may end a sentence. A small network decides from the mark's context: the
mark and five UTF-16 code units on either side. Consecutive blanks and line feeds count as one blank; a blank next to the
mark is skipped. Spark NLP's rules around the network are reproduced exactly (tests/unit/test_golden_segments.py,
tests/spark_nlp/test_parity.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitymill.recognition import sentences_dl_saved as saved
from entitymill.recognition.offsets import GRAPHIC, MARK, SKIP, Texts
from entitymill.recognition.sentences_dl_saved import SavedDetector

_WIDTH = saved.CONTEXT_WIDTH
_SIDE, _REACH = _WIDTH // 2, 15
"""_SIDE: number of code units that the network sees on either side of a mark, where consecutive blanks count as one.
_REACH: number of code units on either side, counting every blank, in which Spark NLP looks for these _SIDE code units."""
_BATCH_MARKS = 512
"""Number of marks (characters that may end a sentence) that the network processes at once: few enough that intermediate
results fit in the cache of a processor core."""
_CODE_UNITS = 1 << 16
_HASH_FACTORS = np.cumprod(np.full(_WIDTH, 0x9E3779B97F4A7C15, np.uint64))
"""Odd factors for hashing a mark's context (the ids of the characters around it) to 64 bits."""


@dataclass(frozen=True)
class _CollapsedTexts:
    """Texts in which consecutive blanks and line feeds are replaced by one blank.

    All arrays have one value per code unit that remains after the replacement, and padding on both sides.

    values: the code units.
    blank: whether the code unit is a blank, which replaces one or more blanks and line feeds.
    first, last: positions in the original texts. A blank has the positions of the first and of the last code unit that it
        replaces; for any other code unit, both are its own position.
    """

    values: NDArray[np.uint16]
    blank: NDArray[np.bool_]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


class Network:
    """The network of a sentence detector; it decides whether a sentence ends at a mark (a full stop or similar character).

    The network sees the mark's context: eleven characters, with the mark in the middle. Embedding and convolution are
    precomputed as eleven look-up tables, one for each place in a context. So a mark costs eleven look-ups and two matrix
    products.
    """

    def __init__(self, detector: SavedDetector) -> None:
        """Compute the look-up tables, one for each place in a context, from weights that `read_detector` has checked."""
        weights = {name: array.astype(np.float64) for name, array in detector.weights.items()}
        embedding = weights[saved.EMBEDDING][: max(detector.ids.values()) + 1]
        taps = np.einsum("vd,kdf->kvf", embedding, weights[saved.KERNEL])
        width, _, filters = taps.shape[0], taps.shape[1], taps.shape[2]
        steps = _WIDTH - width + 1  # of the convolution along the context
        tables = np.zeros((_WIDTH, len(embedding), steps, filters))
        for at in range(_WIDTH):
            for step in range(max(0, at - width + 1), min(steps, at + 1)):
                tables[at, :, step] = taps[at - step]
        tables[0] += weights[saved.FILTER_BIAS]  # every context looks up the first table exactly once
        self._tables = tables.reshape(_WIDTH, len(embedding), steps * filters)
        self._shape = (steps, filters)
        self._hidden = np.concatenate([weights[saved.HIDDEN], weights[saved.HIDDEN_BIAS][None]])
        self._output = weights[saved.OUTPUT][:, 0], float(weights[saved.OUTPUT_BIAS][0])

    def compute_logits(self, contexts: NDArray[np.uint16]) -> NDArray[np.float64]:
        """Return a score for each mark (character that may end a sentence); it is positive if a sentence ends at the mark.

        Args:
            contexts: ids of the characters around each mark, shape [marks, 11]; 0 for a missing or unknown character.
        """
        scores = np.zeros(len(contexts))
        columns = np.ascontiguousarray(contexts.T)
        # The buffers are reused: allocating a megabyte per batch costs more than the computation.
        sums, terms = (np.empty((_BATCH_MARKS, self._tables.shape[-1])) for _ in range(2))
        pooled = np.ones((_BATCH_MARKS, len(self._hidden)))  # the last column, of ones, is multiplied by the bias
        hidden_buffer = np.empty((_BATCH_MARKS, len(self._output[0])))
        for first in range(0, len(contexts), _BATCH_MARKS):
            part = columns[:, first : first + _BATCH_MARKS]
            size = part.shape[1]
            total, term = sums[:size], terms[:size]
            # All ids are in the tables, so mode="clip" only skips NumPy's check.
            np.take(self._tables[0], part[0], axis=0, out=total, mode="clip")
            for at in range(1, _WIDTH):
                np.take(self._tables[at], part[at], axis=0, out=term, mode="clip")
                total += term
            np.maximum.reduce(total.reshape(-1, *self._shape).swapaxes(0, 1), out=pooled[:size, :-1], initial=0)
            hidden = np.matmul(pooled[:size], self._hidden, out=hidden_buffer[:size])
            scores[first : first + size] = np.maximum(hidden, 0, out=hidden) @ self._output[0] + self._output[1]
        return scores


class DeepDetector:
    """A re-implementation of Spark NLP's SentenceDetectorDLModel in NumPy, which finds the same sentences."""

    def __init__(self, detector: SavedDetector) -> None:
        """Build the network; store the ids of characters, and the words after which no sentence ends, from a saved model."""
        self._network = Network(detector)
        self._ids = np.zeros(_CODE_UNITS, np.uint16)
        for character, number in detector.ids.items():
            self._ids[ord(character[0]) % _CODE_UNITS] = number
        self._never_last = [np.frombuffer(word.encode("utf-16-le", "surrogatepass"), "<u2") for word in detector.never_last]
        self._ends_never_last = np.zeros(_CODE_UNITS, np.bool_)
        self._ends_never_last[[word[-1] for word in self._never_last]] = True

    def find_breaks(self, texts: Texts) -> NDArray[np.int64]:
        """Return the positions where sentences end (see `sentences.Detector.find_breaks`)."""
        marks = np.flatnonzero(texts.classes & MARK)
        if not len(marks):
            return marks
        size = len(texts.classes)
        solid = np.flatnonzero((texts.classes & SKIP) == 0)
        begins = np.append(solid, size)[np.searchsorted(solid, texts.edges[:-1])]  # begin of each text after leading blanks
        row = texts.find_texts(marks)
        # A text that consists only of control characters is one sentence, even if it contains marks.
        graphic = np.flatnonzero(texts.classes & GRAPHIC)
        has_graphic = np.diff(np.searchsorted(graphic, texts.edges)) > 0
        inside = (marks >= begins[row]) & has_graphic[row]
        marks, row = marks[inside], row[inside]
        collapsed, shifted = _collapse_blanks(texts, marks)
        contexts, lefts, count = self._build_contexts(texts, collapsed, marks, shifted, begins[row], texts.edges[row + 1])
        candidates = ~self._follows_never_last(texts, begins[row], marks, lefts, count)
        marks, contexts = marks[candidates], contexts[candidates]
        distinct, index = _find_distinct_contexts(contexts)
        return marks[self._network.compute_logits(contexts[distinct])[index] > 0] + 1

    def _build_contexts(
        self,
        texts: Texts,
        collapsed: _CollapsedTexts,
        marks: NDArray[np.int64],
        collapsed_marks: NDArray[np.int64],
        begins: NDArray[np.int64],
        ends: NDArray[np.int64],
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int64]]:
        """Return, for each mark, the ids of its context, the five code units to its left, and how many of these five exist.

        A mark is a character that may end a sentence; its context is the mark and five code units on either side. A blank
        next to the mark is skipped. The shapes of the results are [marks, 11], [marks, 5] and [marks]. An id is the
        number that stands for a code unit in the network's input; 0 stands for a missing or unknown code unit.

        Args:
            marks: positions of the marks in `texts`.
            collapsed: the texts of `texts`, with one blank in place of consecutive blanks and line feeds.
            collapsed_marks: indices of the same marks in the arrays of `collapsed`.
            begins: position where the text of each mark begins, without leading blanks. As in Spark NLP, the code unit at
                this position counts as missing.
            ends: position where the text of each mark ends.
        """
        left, right = collapsed_marks - 1, collapsed_marks + 1
        left = left - collapsed.blank[left]
        right = right + collapsed.blank[right]
        reach = np.arange(_SIDE)
        lefts, rights = left[:, None] - reach[::-1], right[:, None] + reach
        low = np.maximum(begins, collapsed.last[left] - _REACH)
        high = np.minimum(ends, collapsed.first[right] + _REACH)
        left_exists = collapsed.last[lefts] > low[:, None]
        right_exists = collapsed.first[rights] < high[:, None]
        values = collapsed.values[lefts]
        contexts = np.concatenate(
            [
                np.where(left_exists, self._ids[values], 0),
                self._ids[texts.code_units[marks]][:, None],
                np.where(right_exists, self._ids[collapsed.values[rights]], 0),
            ],
            axis=1,
        ).astype(np.uint16)
        count = left_exists.sum(axis=1)
        short = np.flatnonzero(count < _SIDE)
        if len(short):  # if code units are missing on the left, Spark NLP shifts the context and pads it on the right
            shifted = np.arange(_WIDTH) + (_SIDE - count[short])[:, None]
            padded = np.concatenate([contexts[short], np.zeros((len(short), _SIDE), np.uint16)], axis=1)
            contexts[short] = np.take_along_axis(padded, shifted, axis=1)
        return contexts, values, count

    def _follows_never_last(
        self,
        texts: Texts,
        begins: NDArray[np.int64],
        marks: NDArray[np.int64],
        lefts: NDArray[np.uint16],
        count: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Return whether each mark follows a word after which no sentence ends, such as Dr, shape [marks].

        Like Spark NLP, look for such a word in two places: at the end of `lefts`, and at the end of the text that precedes
        the mark. In the second place, blanks and control characters between the word and the mark are ignored. "Dr" also
        matches the end of a longer word; " Dr", as in models/sentence_detector, does not.

        Args:
            begins: position where the text of each mark begins, without leading blanks.
            marks: positions in `texts` of the marks (characters that may end a sentence).
            lefts: the five code units to the left of each mark, shape [marks, 5].
            count: how many of these five code units exist, shape [marks].
        """
        solid = np.flatnonzero(texts.classes & GRAPHIC)
        padded = np.concatenate([[-1], solid, [len(texts.classes)]])
        last = padded[np.searchsorted(solid, marks)]
        begin = padded[np.searchsorted(solid, begins) + 1]
        last = np.where(last < begin, -1, last)  # no graphic code unit before the mark
        behind = np.where(last < 0, 0, texts.code_units[last])
        found = np.zeros(len(marks), np.bool_)
        near = np.flatnonzero(self._ends_never_last[behind] | self._ends_never_last[lefts[:, -1]])
        begin, last, behind, lefts, count = begin[near], last[near], behind[near], lefts[near], count[near]
        for word in self._never_last:
            size = len(word)
            if size <= _SIDE:
                chosen = np.flatnonzero((lefts[:, -1] == word[-1]) & (count >= size))
                found[near[chosen[(lefts[chosen, _SIDE - size :] == word).all(axis=1)]]] = True
            chosen = np.flatnonzero((behind == word[-1]) & (last - size + 1 >= begin))
            ending = texts.code_units[last[chosen][:, None] + np.arange(1 - size, 1)]
            found[near[chosen[(ending == word).all(axis=1)]]] = True
        return found


def _find_distinct_contexts(contexts: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the distinct contexts, and for each context its index among the distinct contexts.

    A context is the ids of the characters around a mark. With the result, the caller runs the network only once for equal
    contexts, such as in a long row of dots. If different contexts have the same hash (rare), all contexts count as distinct.
    """
    hashed = contexts.astype(np.uint64) @ _HASH_FACTORS
    _, distinct, index = np.unique(hashed, return_index=True, return_inverse=True)
    index = index.reshape(-1)  # numpy 2.0 returns another shape
    if not (contexts[distinct[index]] == contexts).all():  # two different contexts have the same hash
        return np.arange(len(contexts)), np.arange(len(contexts))
    return distinct, index


def _collapse_blanks(texts: Texts, marks: NDArray[np.int64]) -> tuple[_CollapsedTexts, NDArray[np.int64]]:
    """Replace each sequence of blanks and line feeds by one blank; return the result, and each mark's index in its arrays.

    `marks` are positions in `texts`, which must contain at least one character. A sequence never continues in the next
    text. The arrays have _SIDE + 1 values of padding at both ends.
    """
    skip, size = (texts.classes & SKIP) != 0, len(texts.classes)
    kept = ~skip
    kept[1:] |= ~skip[:-1]
    kept[0] = True
    kept[texts.edges[:-1][texts.edges[:-1] < size]] = True
    first = np.flatnonzero(kept)
    values = texts.code_units[first].astype(np.uint16)
    blank = skip[first]
    values[blank] = ord(" ")
    pad = _SIDE + 1
    nothing = np.zeros(pad, np.uint16)
    last = np.append(first[1:], size) - 1  # the last of consecutive blanks, or the code unit itself
    collapsed = _CollapsedTexts(
        np.concatenate([nothing, values, nothing]),
        np.concatenate([nothing != 0, blank, nothing != 0]),
        np.concatenate([np.full(pad, -1), first, np.full(pad, size)]),
        np.concatenate([np.full(pad, -1), last, np.full(pad, size)]),
    )
    return collapsed, np.cumsum(kept)[marks] - 1 + pad
