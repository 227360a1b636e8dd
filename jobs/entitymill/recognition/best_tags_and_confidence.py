"""Choose the most probable valid sequence of tags from a model's probabilities, and adjust labels and confidences.

Confidences are scaled so that, for example, about nine in ten mentions with confidence 0.9 are correct.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

_MIN_PROBABILITY = np.finfo(np.float32).tiny
_EPSILON = 1e-6


class ViterbiDecoder:
    """Finds the most probable sequence of tags that is valid in the scheme IOB2, for each sentence.

    A sequence is valid if each I- tag follows a B- or I- tag with the same label. For example, B-PER, I-PER is valid, and
    O, I-PER is not. Apart from this rule, tags are treated as independent. So if the most probable tags of a sentence's
    tokens form a valid sequence, this sequence is the result. For all other sentences, a few percent, the result is found
    with the algorithm of Viterbi (1967).
    """

    def __init__(self, labels: Sequence[str]) -> None:
        """Determine which tags may follow each tag; `labels` are the model's tags in the order of its outputs: O, B-PER, …

        If the model has an I- tag but no B- tag for a label, this I- tag may follow any tag.
        """
        bound = [label.startswith("I-") and f"B-{label[2:]}" in labels for label in labels]
        self._may_begin = ~np.array(bound, np.bool_)
        kinds = np.array([label[2:] for label in labels])  # "" for O
        self._may_follow = self._may_begin[None, :] | (kinds[:, None] == kinds[None, :])

    def decode(self, probabilities: NDArray[np.float32], sentence_of: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return one tag for each token, shape [tokens]; each sentence gets its most probable valid sequence of tags.

        A tag is an index into the model's list of tags, the argument `labels` of `ViterbiDecoder`.

        Args:
            probabilities: probability of each of the model's tags for each token, shape [tokens, labels].
            sentence_of: number of each token's sentence, shape [tokens]; must be ascending.
        """
        tags = probabilities.argmax(axis=1)
        if not len(tags):
            return tags
        starts = np.flatnonzero(np.diff(sentence_of, prepend=sentence_of[0] - 1))
        valid = np.empty(len(tags), np.bool_)
        valid[1:] = self._may_follow[tags[:-1], tags[1:]]
        valid[starts] = self._may_begin[tags[starts]]
        invalid = np.unique(np.searchsorted(starts, np.flatnonzero(~valid), side="right") - 1)
        if len(invalid):
            lengths = np.diff(np.append(starts, len(tags)))[invalid]
            # The longest sentence comes first, so the sentences that have a token at a position are a prefix of the list.
            order = np.argsort(-lengths, kind="stable")
            self._decode_invalid(probabilities, starts[invalid][order], lengths[order], tags)
        return tags

    def _decode_invalid(
        self,
        probabilities: NDArray[np.float32],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        tags: NDArray[np.int64],
    ) -> None:
        """Find the most probable valid tags of some sentences with Viterbi's algorithm; write them into the array `tags`.

        `starts` has the index of each sentence's first token, and `lengths` has its number of tokens, in descending order.
        """
        steps = np.where(self._may_follow, 0.0, -np.inf)
        best = np.where(self._may_begin, _compute_logarithms(probabilities[starts]), -np.inf)
        # The number of sentences that have a token at position 1, 2, …
        active = np.searchsorted(-lengths, -np.arange(1, lengths[0]), side="left")
        before = []
        for position, count in enumerate(active.tolist(), 1):
            paths = best[:count, :, None] + steps
            before.append(paths.argmax(axis=1))
            best[:count] = paths.max(axis=1) + _compute_logarithms(probabilities[starts[:count] + position])
        chosen = best.argmax(axis=1)
        tags[starts + lengths - 1] = chosen
        for position in range(int(lengths[0]) - 1, 0, -1):
            count = active[position - 1]
            chosen[:count] = before[position - 1][np.arange(count), chosen[:count]]
            tags[starts[:count] + position - 1] = chosen[:count]


def _compute_logarithms(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the natural logarithms of probabilities; 0 is first replaced by about 1e-38, so all results are finite."""
    return np.log(np.maximum(probabilities, _MIN_PROBABILITY).astype(np.float64))


def make_labels_consistent(
    keys: Sequence[tuple[int, str]], kinds: NDArray[np.int64], confidences: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give one label to all mentions with the same spelling in a document; return the new labels and confidences.

    The label whose confidences have the greatest sum wins. If two sums are equal, the label with the lower index wins. A
    mention whose label changes gets the mean confidence of the mentions that already had the winning label.

    Args:
        keys: (index of the document, exact text) of each mention; mentions with equal keys get the same label.
        kinds: label of each mention, as an index in a list of labels, shape [mentions].
        confidences: confidence of each mention, shape [mentions].
    """
    groups: dict[tuple[int, str], list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    kinds, confidences = kinds.copy(), confidences.copy()
    for members in groups.values():
        before = kinds[members]
        if len(members) > 1 and (before != before[0]).any():
            sums = np.bincount(before, weights=confidences[members])
            winner = int(sums.argmax())
            changed = [member for member in members if kinds[member] != winner]
            kinds[changed] = winner
            confidences[changed] = sums[winner] / np.count_nonzero(before == winner)
    return kinds, confidences


class Scaling(BaseModel):
    """The scaling of the confidences of one label: logit(scaled) = logit(confidence) / temperature + offset.

    A temperature above 1 moves confidences toward 0.5, for a model whose confidences are too extreme. A positive offset
    raises all confidences, and a negative offset lowers them. (Source: Platt, Probabilistic Outputs for Support Vector
    Machines, 1999; Guo et al., On Calibration of Modern Neural Networks, 2017.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(gt=0, le=1000)
    offset: float = Field(ge=-1000, le=1000)


def compute_logits(confidences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(p / (1 - p)) for each confidence p, with p limited to 0.000001 … 0.999999, so that the result is finite."""
    clipped = np.clip(confidences, _EPSILON, 1 - _EPSILON)
    return np.log(clipped) - np.log1p(-clipped)


def scale_confidences(
    confidences: NDArray[np.float64], kinds: NDArray[np.int64], labels: Sequence[str], scalings: Mapping[str, Scaling]
) -> NDArray[np.float64]:
    """Return the scaled confidences of mentions, shape [mentions]; a label without a scaling keeps its confidences.

    Args:
        kinds: index of each mention's label in `labels`, shape [mentions].
        scalings: dict from a label to its scaling.
    """
    if not scalings:
        return confidences
    temperatures = np.array([scalings[label].temperature if label in scalings else 1.0 for label in labels])
    offsets = np.array([scalings[label].offset if label in scalings else 0.0 for label in labels])
    scaled = 1 / (1 + np.exp(-(compute_logits(confidences) / temperatures[kinds] + offsets[kinds])))
    is_scaled = np.array([label in scalings for label in labels])[kinds]
    return np.where(is_scaled, scaled, confidences)
