"""Offsets: Java counts UTF-16 units, this product counts Unicode code points, begin inclusive, end exclusive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def utf16_length(text: str) -> int:
    """UTF-16 units of a text; a lone surrogate is one."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def code_points(text: str, utf16: NDArray[np.int32]) -> NDArray[np.int32]:
    """Code point offsets of UTF-16 offsets into `text`.

    Args:
        text: without lone surrogates.
        utf16: any shape, values 0..length in UTF-16 units.
    """
    units = text.encode("utf-16-le")
    if len(units) == 2 * len(text):
        return utf16
    # A code point ends at every unit but the first of a pair, so counting the second ones so far gives the excess.
    second = (np.frombuffer(units, "<u2") & 0xFC00) == 0xDC00
    excess = np.concatenate([np.zeros(1, np.int32), np.cumsum(second, dtype=np.int32)])
    return utf16 - excess[utf16]
