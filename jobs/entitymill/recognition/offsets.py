"""Texts end to end in UTF-16 units, and offsets in them: units as Spark NLP counts, code points as this product does.

One pass over a whole Arrow column takes the place of one over each text: sentences and tokens are found by array operations
on the units' kinds, and an offset is only put into its own text at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SPACE, SKIP, MARK, AFFIX, GRAPHIC = 1, 2, 4, 8, 16
"""Kinds of units, as bits: white space to Spark NLP's Tokenizer; what its sentence detector steps over; what may end a
sentence there; what is cut from a word's ends; what java.lang.String.trim leaves."""
PARTING = "\u2187"
"""Spark NLP parts words at it, though it is a number."""
_KINDS = {SPACE: f" \t\n\v\f\r{PARTING}", SKIP: " \n", MARK: ".:?!;\n", AFFIX: ".,;:!?*-()\"'"}
_UNITS = 1 << 16


def _kind_of_unit() -> NDArray[np.uint8]:
    table = np.zeros(_UNITS, np.uint8)
    table[ord(" ") + 1 :] |= GRAPHIC
    for kind, characters in _KINDS.items():
        table[[ord(character) for character in characters]] |= kind
    return table


_KIND_OF_UNIT = _kind_of_unit()


@dataclass(frozen=True)
class Texts:
    """Texts end to end.

    text: all of them joined.
    units: [units] the UTF-16 units of that; bytes where all of it is ASCII.
    edges: [texts + 1] int64; text t has units[edges[t]:edges[t + 1]].
    """

    text: str
    units: NDArray[np.uint16] | NDArray[np.uint8]
    edges: NDArray[np.int64]

    def __len__(self) -> int:
        """How many texts."""
        return len(self.edges) - 1

    @cached_property
    def kinds(self) -> NDArray[np.uint8]:
        """[units] the kinds of each."""
        return _KIND_OF_UNIT[self.units]

    @cached_property
    def _excess(self) -> NDArray[np.int64] | None:
        """[units + 1] how many more units than code points there are before each; none where there are none at all."""
        if len(self.units) == len(self.text):
            return None
        # A code point ends at every unit but the first of a pair, so counting the second ones so far gives the excess.
        second = (self.units & 0xFC00) == 0xDC00
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(second, dtype=np.int64)])

    def code_points(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in units of the whole, any shape, as code points of the whole."""
        return places if self._excess is None else places - self._excess[places]

    def units_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in code points of the whole, any shape, as units of the whole."""
        return places if self._excess is None else self._units_of_code_points[places]

    @cached_property
    def _units_of_code_points(self) -> NDArray[np.int64]:
        """[code points + 1] where each one's first unit is."""
        return np.append(np.flatnonzero((self.units & 0xFC00) != 0xDC00), len(self.units))

    def slices(self, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> list[str]:
        """The text between places in units of the whole, [things] each."""
        edges = zip(self.code_points(begins).tolist(), self.code_points(ends).tolist(), strict=True)
        return [self.text[begin:end] for begin, end in edges]

    def of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which text each place (a unit of the whole) lies in."""
        return np.searchsorted(self.edges, places, side="right") - 1


def read(column: pa.Array) -> Texts:
    """The texts of an Arrow array of strings or large strings without nulls."""
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
    # Every byte but a continuation opens a code point; those of four bytes take two units.
    sizes = ((octets & 0xC0) != 0x80).astype(np.int8)
    sizes += octets >= 0xF0
    edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])[edges]
    return Texts(text, np.frombuffer(text.encode("utf-16-le"), "<u2"), edges)


def utf16_length(text: str) -> int:
    """UTF-16 units of a text; a lone surrogate is one."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
