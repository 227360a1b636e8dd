"""What a tagger returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tags:
    """What a model says of a list of sentences, in order.

    tokens: [tagged] int64, which tokens got a tag: every one once, except in the encoding sparknlp.
    tags: [tagged] int16, indices into the labels.
    confidences: [tagged] float32, the probability of each one's own tag.
    scores: [tagged, labels] float32, the probability of every label; none unless asked for.
    split: [sentences] bool, which sentences were longer than the model's limit; in the encoding sparknlp, cut short by it.
    """

    tokens: NDArray[np.int64]
    tags: NDArray[np.int16]
    confidences: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    split: NDArray[np.bool_]
