"""Scale the confidences of mentions, so that, for example, nine in ten mentions with confidence 0.9 are correct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

_EPSILON = 1e-6
"""Confidences are clipped to _EPSILON..1 - _EPSILON, because the logit of 0 and of 1 is not finite."""


class Scaling(BaseModel):
    """The scaling of the confidences of one label: logit(scaled) = logit(confidence) / temperature + offset.

    A temperature above 1 corrects a model whose confidences are too extreme, but never changes a confidence of 0.5. The
    offset raises or lowers all confidences, including 0.5. (Source: Platt, Probabilistic Outputs for Support Vector
    Machines, 1999; Guo et al., On Calibration of Modern Neural Networks, 2017.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(gt=0, le=1000)
    offset: float = Field(ge=-1000, le=1000)


def compute_logits(confidences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(p / (1 - p)) for each confidence p, clipped so that the result is finite (see _EPSILON)."""
    clipped = np.clip(confidences, _EPSILON, 1 - _EPSILON)
    return np.log(clipped) - np.log1p(-clipped)


def scale_confidences(
    confidences: NDArray[np.float64], kinds: NDArray[np.int64], labels: Sequence[str], scalings: Mapping[str, Scaling]
) -> NDArray[np.float64]:
    """Return the scaled confidences of mentions, shape [mentions]; a label without a scaling keeps its confidences.

    Args:
        confidences: confidence of each mention, shape [mentions].
        kinds: index of each mention's label in `labels`, shape [mentions].
        scalings: label -> scaling.
    """
    if not scalings:
        return confidences
    temperatures = np.array([scalings[label].temperature if label in scalings else 1.0 for label in labels])
    offsets = np.array([scalings[label].offset if label in scalings else 0.0 for label in labels])
    scaled = 1 / (1 + np.exp(-(compute_logits(confidences) / temperatures[kinds] + offsets[kinds])))
    is_scaled = np.array([label in scalings for label in labels])[kinds]
    return np.where(is_scaled, scaled, confidences)
