"""Concatenate texts, and convert offsets between UTF-16 code units, which Spark NLP counts, and code points.

In this package, a position is an index into the concatenation of all texts, in UTF-16 code units. Array operations on the
concatenation process all texts at once, which is faster than a loop over texts. Only at the end are positions converted to
offsets in the individual texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SPACE, SKIP, MARK, AFFIX, GRAPHIC = 1, 2, 4, 8, 16
"""Classes of code units, as bits. SPACE: white space for Spark NLP's Tokenizer. SKIP: a blank or line feed, which
SentenceDetectorDLModel skips. MARK: a character at which SentenceDetectorDLModel may end a sentence. AFFIX: punctuation
that the Tokenizer splits off the ends of words. GRAPHIC: a code unit that java.lang.String.trim does not remove."""
NUMERIC_SEPARATOR = "\u2187"
"""The Roman numeral \u2187. Spark NLP's Tokenizer puts it between words internally, so in a text it separates words, too."""
_CHARACTERS = {SPACE: f" \t\n\v\f\r{NUMERIC_SEPARATOR}", SKIP: " \n", MARK: ".:?!;\n", AFFIX: ".,;:!?*-()\"'"}
_CODE_UNITS = 1 << 16
_WIDE_BLANKS = re.compile("[" + "".join(chr(code) for code in range(0x80, 0x3001) if chr(code).isspace()) + "]")
"""Matches white space outside ASCII, such as a no-break space. Each of these characters is one code unit."""


def _build_class_table() -> NDArray[np.uint8]:
    """Return an array with the classes of every code unit, as the bits SPACE, SKIP, MARK, AFFIX and GRAPHIC."""
    table = np.zeros(_CODE_UNITS, np.uint8)
    table[ord(" ") + 1 :] |= GRAPHIC
    for bit, characters in _CHARACTERS.items():
        table[[ord(character) for character in characters]] |= bit
    return table


_CLASSES = _build_class_table()


@dataclass(frozen=True)
class Texts:
    """Several texts and their concatenation.

    text: the concatenation.
    code_units: the UTF-16 code units of the concatenation, shape [code units]; may be uint8 if the concatenation is ASCII.
    edges: int64, shape [texts + 1]; text t has code_units[edges[t]:edges[t + 1]].
    """

    text: str
    code_units: NDArray[np.uint16] | NDArray[np.uint8]
    edges: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.edges) - 1

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """Return the classes of each UTF-16 code unit: the bits SPACE, SKIP, MARK, AFFIX, GRAPHIC; shape [code units]."""
        return _CLASSES[self.code_units]

    @cached_property
    def _excess(self) -> NDArray[np.int64] | None:
        """Return, for each position, how many more code units than code points precede the position, shape [code units + 1].

        Return None if all numbers are 0.
        """
        if len(self.code_units) == len(self.text):
            return None
        # A surrogate pair is two code units but one code point. The excess is counted at the second code unit.
        second = (self.code_units & 0xFC00) == 0xDC00
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(second, dtype=np.int64)])

    def to_code_points(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Convert positions in the concatenation from UTF-16 code units to code points; the array may have any shape."""
        return positions if self._excess is None else positions - self._excess[positions]

    def to_positions(self, code_points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Convert positions in the concatenation from code points to UTF-16 code units; the array may have any shape."""
        return code_points if self._excess is None else self._code_point_positions[code_points]

    @cached_property
    def _code_point_positions(self) -> NDArray[np.int64]:
        """Return the index of each code point's first UTF-16 code unit, and last, the end; shape [code points + 1]."""
        return np.append(np.flatnonzero((self.code_units & 0xFC00) != 0xDC00), len(self.code_units))

    def extract_substrings(self, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> list[str]:
        """Return the substring from each position in `begins` to the matching position in `ends` (exclusive).

        A position is an index into the concatenation of all texts, in UTF-16 code units.
        """
        edges = zip(self.to_code_points(begins).tolist(), self.to_code_points(ends).tolist(), strict=True)
        return [self.text[begin:end] for begin, end in edges]

    def replace_wide_blanks(self) -> Texts:
        """Return a copy with a blank instead of each white-space character outside ASCII; no position changes."""
        text = self.text if self.text.isascii() else _WIDE_BLANKS.sub(" ", self.text)
        return self if text == self.text else Texts(text, _encode_utf16(text), self.edges)

    def find_texts(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the text that contains each position; for the end of the last text, the number of texts.

        A position is an index into the concatenation of all texts, in UTF-16 code units.
        """
        return np.searchsorted(self.edges, positions, side="right") - 1


def read_texts(column: pa.Array) -> Texts:
    """Convert an Arrow array of strings or large strings to `Texts`; the array must not contain nulls."""
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
    # Every byte except a continuation byte begins a code point. A code point of four bytes has two code units.
    sizes = ((octets & 0xC0) != 0x80).astype(np.int8)
    sizes += octets >= 0xF0
    edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])[edges]
    return Texts(text, _encode_utf16(text), edges)


def _encode_utf16(text: str) -> NDArray[np.uint16]:
    """Return the UTF-16 code units of a text."""
    return np.frombuffer(text.encode("utf-16-le"), "<u2")


def utf16_length(text: str) -> int:
    """Return the number of UTF-16 code units of a text; a lone surrogate is one code unit."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
