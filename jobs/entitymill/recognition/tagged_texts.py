"""What was found in some texts, flat: what mentions and annotations are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from entitymill.recognition.mentions import Spans
from entitymill.recognition.offsets import Texts
from entitymill.recognition.tagger.tags import Tags
from entitymill.recognition.tokens import Segments


@dataclass(frozen=True)
class Found:
    """Everything that was found in some texts.

    texts, segments: where.
    tags: as the tagger gave them.
    tokens: [tagged] int64, the tokens that have a tag, in order, each once.
    spans: over these.
    labels: that tags count in; kinds: that spans do.
    """

    texts: Texts
    segments: Segments
    tags: Tags
    tokens: NDArray[np.int64]
    spans: Spans
    labels: tuple[str, ...]
    kinds: tuple[str, ...]

    def listed(self, document: NDArray[np.int64], fields: dict[str, pa.Array]) -> pa.ListArray:
        """Per text its things, `document` [things] being the text of each, in order, and `fields` [things] each."""
        structs = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
        starts = np.searchsorted(document, np.arange(len(self.texts) + 1))
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), structs)
