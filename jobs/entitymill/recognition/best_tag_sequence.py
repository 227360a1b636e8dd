"""Choose the most probable sequence of tags that the tagging scheme allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MIN_PROBABILITY = np.finfo(np.float32).tiny
"""Replaces a probability of 0, whose logarithm is not finite."""


class ViterbiDecoder:
    """A decoder for the most probable sequence of tags in which every I-X follows a B-X or an I-X (IOB2).

    Apart from that rule, tags are treated as independent. So if the most probable tag of each token gives a valid sequence,
    that sequence is also the most probable one. Only sentences in which it is not valid, a few in a hundred, need the
    algorithm of Viterbi (1967).
    """

    def __init__(self, labels: Sequence[str]) -> None:
        """Derive the allowed transitions from a model's labels.

        Args:
            labels: the model's labels, in the model's order: O, B-PER, I-PER, … If there is no label B-X, I-X may follow
                any label.
        """
        bound = [label.startswith("I-") and f"B-{label[2:]}" in labels for label in labels]
        self._starts = ~np.array(bound, np.bool_)
        kinds = np.array([label[2:] for label in labels])  # "" for O
        self._allowed = self._starts[None, :] | (kinds[:, None] == kinds[None, :])

    def decode(self, probabilities: NDArray[np.float32], sentence_of: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return each sentence's most probable valid sequence of tags, as indices into the labels, shape [tokens].

        Args:
            probabilities: probability of each label for each token, shape [tokens, labels].
            sentence_of: number of each token's sentence, ascending, shape [tokens].
        """
        tags = probabilities.argmax(axis=1)
        if not len(tags):
            return tags
        starts = np.flatnonzero(np.diff(sentence_of, prepend=sentence_of[0] - 1))
        valid = np.empty(len(tags), np.bool_)
        valid[1:] = self._allowed[tags[:-1], tags[1:]]
        valid[starts] = self._starts[tags[starts]]
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
        """Write the most probable valid tags of some sentences into `tags`.

        Args:
            probabilities: as in `decode`.
            starts: index of the first token of each sentence; sentences are sorted from longest to shortest.
            lengths: number of tokens of each sentence.
            tags: tags of the tokens of all sentences; only the tags of these sentences are changed, in place.
        """
        steps = np.where(self._allowed, 0.0, -np.inf)
        best = np.where(self._starts, _logarithms(probabilities[starts]), -np.inf)
        # The number of sentences that have a token at position 1, 2, …
        active = np.searchsorted(-lengths, -np.arange(1, lengths[0]), side="left")
        before = []
        for place, count in enumerate(active.tolist(), 1):
            paths = best[:count, :, None] + steps
            before.append(paths.argmax(axis=1))
            best[:count] = paths.max(axis=1) + _logarithms(probabilities[starts[:count] + place])
        chosen = best.argmax(axis=1)
        tags[starts + lengths - 1] = chosen
        for place in range(int(lengths[0]) - 1, 0, -1):
            count = active[place - 1]
            chosen[:count] = before[place - 1][np.arange(count), chosen[:count]]
            tags[starts[:count] + place - 1] = chosen[:count]


def _logarithms(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the natural logarithms of probabilities; all are finite."""
    return np.log(np.maximum(probabilities, _MIN_PROBABILITY).astype(np.float64))


def choose_labels(
    keys: Sequence[tuple[int, str]], kinds: NDArray[np.int64], confidences: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return new labels and confidences for mentions, in which equal spellings in a document have the same label.

    Of the labels of a spelling, the one whose confidences have the greatest sum is chosen, or the one with the lower index
    if the sums are equal. A mention whose label changes gets the mean confidence of the mentions that had the chosen label.

    Args:
        keys: (document, spelling) of each mention.
        kinds: index of each mention's label, shape [mentions].
        confidences: confidence of each mention, shape [mentions].

    Returns:
        New label indices (like `kinds`) and new confidences, both of shape [mentions].
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
