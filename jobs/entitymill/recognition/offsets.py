"""Concatenate texts, and convert offsets between UTF-16 code units, which Spark NLP counts, and code points.

In this package, a unit is a UTF-16 code unit, and a place is an index into the concatenation of all texts. Array operations
on the concatenation find the sentences and tokens of all texts at once, which is faster than a loop over texts. Places are
converted to offsets in the individual texts only at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SPACE, SKIP, MARK, AFFIX, GRAPHIC = 1, 2, 4, 8, 16
"""Kinds of units, as bits. SPACE: white space for Spark NLP's Tokenizer. SKIP: skipped by Spark NLP's sentence detector.
MARK: may end a sentence. AFFIX: split off the ends of words. GRAPHIC: kept by java.lang.String.trim."""
NUMERIC_SEPARATOR = "\u2187"
"""The Roman numeral \u2187, at which Spark NLP's Tokenizer splits words as at white space, although it is a number."""
_KINDS = {SPACE: f" \t\n\v\f\r{NUMERIC_SEPARATOR}", SKIP: " \n", MARK: ".:?!;\n", AFFIX: ".,;:!?*-()\"'"}
_UNITS = 1 << 16


def _build_kinds() -> NDArray[np.uint8]:
    """Return a table whose entry u has the kinds of the unit u, as the bits SPACE, SKIP, MARK, AFFIX and GRAPHIC."""
    table = np.zeros(_UNITS, np.uint8)
    table[ord(" ") + 1 :] |= GRAPHIC
    for kind, characters in _KINDS.items():
        table[[ord(character) for character in characters]] |= kind
    return table


_KIND_OF_UNIT = _build_kinds()


@dataclass(frozen=True)
class Texts:
    """Several texts and their concatenation. A place is an index into the concatenation.

    text: the concatenation.
    units: UTF-16 code units of the concatenation, shape [units]; stored as uint8 if the concatenation is ASCII.
    edges: int64, shape [texts + 1]; text t has units[edges[t]:edges[t + 1]].
    """

    text: str
    units: NDArray[np.uint16] | NDArray[np.uint8]
    edges: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.edges) - 1

    @cached_property
    def kinds(self) -> NDArray[np.uint8]:
        """Return the kinds of each unit, as the bits SPACE, SKIP, MARK, AFFIX and GRAPHIC, shape [units]."""
        return _KIND_OF_UNIT[self.units]

    @cached_property
    def _excess(self) -> NDArray[np.int64] | None:
        """Return how many more units than code points precede each unit, shape [units + 1]; None if all are 0."""
        if len(self.units) == len(self.text):
            return None
        # Each surrogate pair has one more unit than code points. It is counted at the second unit of the pair.
        second = (self.units & 0xFC00) == 0xDC00
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(second, dtype=np.int64)])

    def code_points(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Convert offsets, in an array of any shape, from units to code points."""
        return units if self._excess is None else units - self._excess[units]

    def units_at(self, code_points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Convert offsets, in an array of any shape, from code points to units."""
        return code_points if self._excess is None else self._units_of_code_points[code_points]

    @cached_property
    def _units_of_code_points(self) -> NDArray[np.int64]:
        """Return the offset of the first unit of each code point, shape [code points + 1]."""
        return np.append(np.flatnonzero((self.units & 0xFC00) != 0xDC00), len(self.units))

    def slices(self, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> list[str]:
        """Return the substrings between `begins` and `ends`, which are offsets in UTF-16 code units."""
        edges = zip(self.code_points(begins).tolist(), self.code_points(ends).tolist(), strict=True)
        return [self.text[begin:end] for begin, end in edges]

    def text_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the text at each offset (in UTF-16 code units); where all texts end, the number of texts."""
        return np.searchsorted(self.edges, units, side="right") - 1


def read_texts(column: pa.Array) -> Texts:
    """Return the `Texts` of an Arrow array of strings or large strings, which must not contain nulls."""
    if len(column) == 0:
        return Texts("", np.zeros(0, np.uint8), np.zeros(1, np.int64))
    width = np.int64 if pa.types.is_large_string(column.type) else np.int32
    _, offsets, data = column.buffers()
    edges = np.frombuffer(offsets, width)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    raw = memoryview(data)[edges[0] : edges[-1]] if data is not None else memoryview(b"")
    edges -= edges[0]
    text = str(raw, "utf8")
    octets = np.frombuffer(raw, np.uint8)
    if len(text) == len(octets):
        return Texts(text, octets, edges)
    # Every byte except a continuation byte begins a code point. A code point of four bytes has two units.
    sizes = ((octets & 0xC0) != 0x80).astype(np.int8)
    sizes += octets >= 0xF0
    edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])[edges]
    return Texts(text, np.frombuffer(text.encode("utf-16-le"), "<u2"), edges)


def utf16_length(text: str) -> int:
    """Return the number of UTF-16 code units of a text; a lone surrogate is one unit."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
