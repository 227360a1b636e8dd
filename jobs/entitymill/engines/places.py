"""Where something lies in its document, and columns with one list per document."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Places:
    """Places of some things in a batch of blocks, each within one sentence; all arrays are [things] int64.

    block: number of the block among all.
    document: number of the document among all.
    sentence: number of the sentence in its document.
    documents: [] how many documents the batch has.
    """

    def __init__(self, sentences: NDArray[np.int64], sentence_starts: NDArray[np.int64], opens: NDArray[np.bool_]) -> None:
        """Find the places.

        Args:
            sentences: [things] number of each one's sentence among all.
            sentence_starts: [blocks + 1] where each block's sentences start.
            opens: [blocks] whether a block is its document's first.
        """
        self._first = np.flatnonzero(opens)
        self._document_of = np.cumsum(opens) - 1
        self.documents = len(self._first)
        self.block = np.searchsorted(sentence_starts, sentences, side="right") - 1
        self.document = self._document_of[self.block]
        self.sentence = sentences - sentence_starts[self._first][self.document]

    def before(self, lengths: list[int]) -> NDArray[np.int64]:
        """[things] what a document has before the block of each, `lengths` being those of the blocks."""
        ends = np.cumsum(np.array(lengths, np.int64))
        starts = ends - lengths
        return (starts - starts[self._first][self._document_of])[self.block]

    def listed(self, fields: dict[str, pa.Array]) -> pa.ListArray:
        """Per document its things, which are in order; `fields` are [things] each."""
        structs = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
        offsets = np.searchsorted(self.document, np.arange(self.documents + 1))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)
