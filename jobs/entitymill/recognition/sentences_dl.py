"""Sentences as Spark NLP 5.5.3's SentenceDetectorDLModel finds them, for all texts at once.

A `.`, `:`, `?`, `!`, `;` or line feed may end a sentence. A small network decides from five units on either side, runs of
blanks and line feeds taken as one blank. Its embedding and convolution multiply out to one table per place of the window,
so that a mark costs eleven look-ups and two small products. Spark NLP's rules around it are reproduced unit for unit
(tests/unit/test_golden_segments.py, tests/integration/test_parity.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitymill.recognition import sentences_dl_saved as saved
from entitymill.recognition.offsets import GRAPHIC, MARK, SKIP, Texts
from entitymill.recognition.sentences_dl_saved import SavedDetector

_SIDE, _REACH = saved.WINDOW // 2, 15
"""Units the network sees on either side, and how far Spark NLP looks for them, runs of blanks counted in full."""
_WIDTH = saved.WINDOW
_AT_ONCE = 512
"""Marks whose sums stay in the core's cache."""
_UNITS = 1 << 16
_MIXED = np.cumprod(np.full(_WIDTH, 0x9E3779B97F4A7C15, np.uint64))
"""Odd numbers that spread the ids of a window over 64 bits."""


@dataclass(frozen=True)
class _Squeezed:
    """Texts with every run of blanks as one; all arrays are [kept + 2 * pad], padded on both sides.

    values: the units; blank: whether it stands for a run; first, last: where what it stands for begins and ends.
    """

    values: NDArray[np.uint16]
    blank: NDArray[np.bool_]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


class Network:
    """The detector's network, multiplied out."""

    def __init__(self, detector: SavedDetector) -> None:
        weights = {name: array.astype(np.float64) for name, array in detector.weights.items()}
        embedding = weights[saved.EMBEDDING][: max(detector.ids.values()) + 1]
        taps = np.einsum("vd,kdf->kvf", embedding, weights[saved.KERNEL])
        width, _, filters = taps.shape[0], taps.shape[1], taps.shape[2]
        places = _WIDTH - width + 1
        tables = np.zeros((_WIDTH, len(embedding), places, filters))
        for at in range(_WIDTH):
            for place in range(max(0, at - width + 1), min(places, at + 1)):
                tables[at, :, place] = taps[at - place]
        tables[0] += weights[saved.FILTER_BIAS]  # every window has one character in the first place
        self._tables = tables.reshape(_WIDTH, len(embedding), places * filters)
        self._shape = (places, filters)
        self._hidden = np.concatenate([weights[saved.HIDDEN], weights[saved.HIDDEN_BIAS][None]])
        self._output = weights[saved.OUTPUT][:, 0], float(weights[saved.OUTPUT_BIAS][0])

    def logits(self, windows: NDArray[np.uint16]) -> NDArray[np.float64]:
        """[marks] positive where a sentence ends; `windows` [marks, 11] are ids of characters, 0 where there is none."""
        found = np.zeros(len(windows))
        columns = np.ascontiguousarray(windows.T)
        # Made once: a fresh megabyte a round costs more than what is computed in it.
        sums, taken = (np.empty((_AT_ONCE, self._tables.shape[-1])) for _ in range(2))
        pooled = np.ones((_AT_ONCE, len(self._hidden)))  # the last column, of ones, takes the bias
        spare = np.empty((_AT_ONCE, len(self._output[0])))
        for first in range(0, len(windows), _AT_ONCE):
            part = columns[:, first : first + _AT_ONCE]
            size = part.shape[1]
            total, term = sums[:size], taken[:size]
            np.take(self._tables[0], part[0], axis=0, out=total, mode="clip")  # ids are known: clip checks nothing
            for at in range(1, _WIDTH):
                np.take(self._tables[at], part[at], axis=0, out=term, mode="clip")
                total += term
            np.maximum.reduce(total.reshape(-1, *self._shape).swapaxes(0, 1), out=pooled[:size, :-1], initial=0)
            hidden = np.matmul(pooled[:size], self._hidden, out=spare[:size])
            found[first : first + size] = np.maximum(hidden, 0, out=hidden) @ self._output[0] + self._output[1]
        return found


class DeepDetector:
    """See the module."""

    def __init__(self, detector: SavedDetector) -> None:
        self._network = Network(detector)
        self._ids = np.zeros(_UNITS, np.uint16)
        for character, number in detector.ids.items():
            self._ids[ord(character[0]) % _UNITS] = number
        self._never_last = [np.frombuffer(word.encode("utf-16-le", "surrogatepass"), "<u2") for word in detector.never_last]
        self._ends_one = np.zeros(_UNITS, np.bool_)
        self._ends_one[[word[-1] for word in self._never_last]] = True

    def breaks(self, texts: Texts) -> NDArray[np.int64]:
        """See `sentences.Detector`."""
        marks = np.flatnonzero(texts.kinds & MARK)
        if not len(marks):
            return marks
        size = len(texts.kinds)
        solid = np.flatnonzero((texts.kinds & SKIP) == 0)
        begins = np.append(solid, size)[np.searchsorted(solid, texts.edges[:-1])]  # of each text, blanks before it left out
        row = texts.of(marks)
        # A text of control characters alone is one sentence, whatever marks are in it.
        graphic = np.flatnonzero(texts.kinds & GRAPHIC)
        lit = np.diff(np.searchsorted(graphic, texts.edges)) > 0
        inside = (marks >= begins[row]) & lit[row]
        marks, row = marks[inside], row[inside]
        squeezed, place = _squeeze(texts, marks)
        windows, lefts, count = self._windows(texts, squeezed, marks, place, begins[row], texts.edges[row + 1])
        may = ~self._follows_never_last(texts, begins[row], marks, lefts, count)
        marks, windows = marks[may], windows[may]
        kept, same = _distinct(windows)
        return marks[self._network.logits(windows[kept])[same] > 0] + 1

    def _windows(
        self,
        texts: Texts,
        squeezed: _Squeezed,
        marks: NDArray[np.int64],
        place: NDArray[np.int64],
        low: NDArray[np.int64],
        high: NDArray[np.int64],
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int64]]:
        """[marks, 11] ids around each mark, the five units on its left, and how many of these are there.

        Args:
            texts: the texts.
            squeezed: they without runs of blanks.
            marks: units of the whole.
            place: of each mark in `squeezed`.
            low: [marks] where each one's text begins.
            high: [marks] where it ends.
        """
        left, right = place - 1, place + 1
        left = left - squeezed.blank[left]
        right = right + squeezed.blank[right]
        reach = np.arange(_SIDE)
        lefts, rights = left[:, None] - reach[::-1], right[:, None] + reach
        low = np.maximum(low, squeezed.last[left] - _REACH)
        high = np.minimum(high, squeezed.first[right] + _REACH)
        left_there = squeezed.last[lefts] > low[:, None]
        right_there = squeezed.first[rights] < high[:, None]
        values = squeezed.values[lefts]
        windows = np.concatenate(
            [
                np.where(left_there, self._ids[values], 0),
                self._ids[texts.units[marks]][:, None],
                np.where(right_there, self._ids[squeezed.values[rights]], 0),
            ],
            axis=1,
        ).astype(np.uint16)
        count = left_there.sum(axis=1)
        short = np.flatnonzero(count < _SIDE)
        if len(short):  # what is missing on the left moves the rest, as Spark NLP fills up on the right
            shifted = np.arange(_WIDTH) + (_SIDE - count[short])[:, None]
            padded = np.concatenate([windows[short], np.zeros((len(short), _SIDE), np.uint16)], axis=1)
            windows[short] = np.take_along_axis(padded, shifted, axis=1)
        return windows, values, count

    def _follows_never_last(
        self,
        texts: Texts,
        begins: NDArray[np.int64],
        marks: NDArray[np.int64],
        lefts: NDArray[np.uint16],
        count: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """[marks] whether a word that ends no sentence is before a mark: as the window has it, or as the text, trimmed."""
        solid = np.flatnonzero(texts.kinds & GRAPHIC)
        padded = np.concatenate([[-1], solid, [len(texts.kinds)]])
        last = padded[np.searchsorted(solid, marks)]
        begin = padded[np.searchsorted(solid, begins) + 1]
        last = np.where(last < begin, -1, last)  # nothing to be seen before
        behind = np.where(last < 0, 0, texts.units[last])
        found = np.zeros(len(marks), np.bool_)
        near = np.flatnonzero(self._ends_one[behind] | self._ends_one[lefts[:, -1]])
        begin, last, behind, lefts, count = begin[near], last[near], behind[near], lefts[near], count[near]
        for word in self._never_last:
            size = len(word)
            if size <= _SIDE:
                chosen = np.flatnonzero((lefts[:, -1] == word[-1]) & (count >= size))
                found[near[chosen[(lefts[chosen, _SIDE - size :] == word).all(axis=1)]]] = True
            chosen = np.flatnonzero((behind == word[-1]) & (last - size + 1 >= begin))
            there = texts.units[last[chosen][:, None] + np.arange(1 - size, 1)]
            found[near[chosen[(there == word).all(axis=1)]]] = True
        return found


def _distinct(windows: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows that differ, and for each one which of these it equals: a line of dots costs as much as one."""
    hashed = windows.astype(np.uint64) @ _MIXED
    _, kept, same = np.unique(hashed, return_index=True, return_inverse=True)
    same = same.reshape(-1)  # numpy 2.0 gives it another shape
    if not (windows[kept[same]] == windows).all():  # two windows of one hash
        return np.arange(len(windows)), np.arange(len(windows))
    return kept, same


def _squeeze(texts: Texts, marks: NDArray[np.int64]) -> tuple[_Squeezed, NDArray[np.int64]]:
    """The texts without runs of blanks, and where the marks are in that. A run is never part of two texts."""
    skip, size = (texts.kinds & SKIP) != 0, len(texts.kinds)
    kept = ~skip
    kept[1:] |= ~skip[:-1]
    kept[0] = True
    kept[texts.edges[:-1][texts.edges[:-1] < size]] = True
    first = np.flatnonzero(kept)
    values = texts.units[first].astype(np.uint16)
    blank = skip[first]
    values[blank] = ord(" ")
    pad = _SIDE + 1
    nothing = np.zeros(pad, np.uint16)
    last = np.append(first[1:], size) - 1  # the run's end; of what is no blank, itself
    squeezed = _Squeezed(
        np.concatenate([nothing, values, nothing]),
        np.concatenate([nothing != 0, blank, nothing != 0]),
        np.concatenate([np.full(pad, -1), first, np.full(pad, size)]),
        np.concatenate([np.full(pad, -1), last, np.full(pad, size)]),
    )
    return squeezed, np.cumsum(kept)[marks] - 1 + pad
