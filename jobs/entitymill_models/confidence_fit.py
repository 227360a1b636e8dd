"""Scale the confidences of a model's mentions to match how often the mentions are correct, and measure how well they match.

A mention is a place in a text where an entity is named. Gold mentions were marked by people, and are correct. A scaling has
two numbers, fitted to gold mentions: `logit(scaled) = logit(confidence) / temperature + offset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from entitymill.errors import SettingsError
from entitymill.recognition.best_tags_and_confidence import Scaling, compute_logits, scale_confidences
from entitymill.recognition.tagger import bundle
from entitymill.spark import installation
from entitymill_models import precision_loss

MIN_MENTIONS = 50
"""A label with fewer mentions than this gets the scaling that is fitted to the mentions of all labels."""
BINS = 10
"""Number of bins of equal width, from 0 to 1, in which confidences are compared with the share of correct mentions."""
OPTION = "--calibrate-confidence"


@dataclass(frozen=True)
class ScoredMentions:
    """Mentions that a model found, compared with gold mentions.

    labels: the label of each mention.
    confidences: the confidence of each mention, float64, shape [mentions].
    correct: whether a gold mention has the same span and label, bool, shape [mentions].
    """

    labels: Sequence[str]
    confidences: NDArray[np.float64]
    correct: NDArray[np.bool_]

    def select(self, chosen: NDArray[np.bool_]) -> ScoredMentions:
        """Return the mentions for which `chosen` is true."""
        labels = [label for label, keep in zip(self.labels, chosen, strict=True) if keep]
        return ScoredMentions(labels, self.confidences[chosen], self.correct[chosen])

    def scale(self, scalings: dict[str, Scaling]) -> ScoredMentions:
        """Return the same mentions with scaled confidences; if a label has no scaling, its confidences do not change."""
        names = sorted(set(self.labels))
        kinds = np.array([names.index(label) for label in self.labels], np.int64)
        return ScoredMentions(self.labels, scale_confidences(self.confidences, kinds, names, scalings), self.correct)


@dataclass(frozen=True)
class Bin:
    """The mentions whose confidence is at least `low` and below `high`; the last bin also includes 1.

    mentions: number of mentions in the bin.
    confidence: mean confidence of these mentions.
    correct: share of these mentions that is correct, 0 to 1.
    """

    low: float
    high: float
    mentions: int
    confidence: float
    correct: float


def fit_scalings(mentions: ScoredMentions) -> dict[str, Scaling]:
    """Return a dict from each label to the scaling that minimizes the logarithmic loss of its mentions' confidences.

    Some labels have fewer than MIN_MENTIONS mentions, or only correct ones, or only wrong ones. They get the scaling that is
    fitted to the mentions of all labels.

    Raises:
        SettingsError: scipy is not installed.
        ValueError: there are fewer than MIN_MENTIONS mentions in total, or all or none of them are correct.
    """
    if len(mentions.correct) < MIN_MENTIONS or mentions.correct.all() or not mentions.correct.any():
        raise ValueError(f"{len(mentions.correct)} mentions, {int(mentions.correct.sum())} of them correct")
    names = np.array(mentions.labels)
    general = _fit_scaling(mentions.confidences, mentions.correct)
    scalings = {}
    for label in sorted(set(mentions.labels)):
        chosen = mentions.select(names == label)
        enough = len(chosen.correct) >= MIN_MENTIONS and chosen.correct.any() and not chosen.correct.all()
        scalings[label] = _fit_scaling(chosen.confidences, chosen.correct) if enough else general
    return scalings


def _fit_scaling(confidences: NDArray[np.float64], correct: NDArray[np.bool_]) -> Scaling:
    """Return the scaling that minimizes the logarithmic loss; raise SettingsError if scipy is not installed."""
    try:
        from scipy import optimize  # noqa: PLC0415  # part of the extra prepare
    except ImportError as error:
        raise SettingsError(f"{OPTION} needs {installation.PREPARE}.") from error
    logits = compute_logits(confidences)

    def loss(parameters: NDArray[np.float64]) -> float:
        scaled = logits * np.exp(-parameters[0]) + parameters[1]
        return float(np.mean(np.logaddexp(0, np.where(correct, -scaled, scaled))))

    # If confidences separate correct from wrong mentions perfectly, the best temperature is 0, which no manifest allows.
    result = optimize.minimize(loss, np.zeros(2), bounds=[(-3, 6), (-20, 20)])
    return Scaling(temperature=round(float(np.exp(result.x[0])), 4), offset=round(float(result.x[1]), 4))


def build_reliability_table(mentions: ScoredMentions) -> list[Bin]:
    """Sort mentions by confidence into BINS bins of equal width from 0 to 1; return the bins that have a mention."""
    numbers = np.minimum((mentions.confidences * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        inside = numbers == number
        confidence, correct = mentions.confidences[inside].mean(), mentions.correct[inside].mean()
        bins.append(Bin(number / BINS, (number + 1) / BINS, int(inside.sum()), float(confidence), float(correct)))
    return bins


def compute_calibration_error(mentions: ScoredMentions) -> float:
    """Return the expected calibration error: how far confidences are from the share of correct mentions.

    Each bin of `build_reliability_table` has a mean confidence and a share of correct mentions. The error is the mean of the
    absolute differences between the two, weighted by the number of mentions in each bin. Without mentions, the error is 0.

    (Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015.)
    """
    table = build_reliability_table(mentions)
    return sum(row.mentions * abs(row.confidence - row.correct) for row in table) / max(1, len(mentions.correct))


def calibrate_bundle(directory: Path, table: Path, console: Console) -> None:
    """Fit the scaling of a bundle's confidences to a table of tagged sentences, and write the scaling to the manifest.

    `table` has the columns tokens and tags (see `precision_loss.read_sample`). The scaling in the manifest is fitted to all
    its sentences. To show the effect, a second scaling is fitted to half of the sentences. It is tried on the other half,
    whose calibration errors without and with scaling are printed.

    Raises:
        ModelError: the bundle cannot be run.
        SettingsError: the table cannot be read, or a row has no tags; scipy is not installed; or the mentions that the model
            finds in half of the sentences are too few, all correct or all wrong.
    """
    sample = precision_loss.read_sample(table, OPTION)
    if sample.gold is None:
        raise SettingsError(f"{OPTION}: {table} needs a column tags with one IOB2 tag for each token in every row.")
    found = precision_loss.find_confidences(directory, "f32", sample.sentences, "viterbi")
    gold = precision_loss.join_gold_tags(sample.gold)
    correct = np.array([mention in gold for mention in found], np.bool_)
    mentions = ScoredMentions([label for *_, label in found], np.array(list(found.values())), correct)
    even = np.array([sentence % 2 == 0 for sentence, *_ in found], np.bool_)
    try:
        half, scalings = fit_scalings(mentions.select(even)), fit_scalings(mentions)
    except ValueError as error:
        raise SettingsError(
            f"{OPTION}: in every second sentence of {table}, the model finds {error}. To fit confidences, there must be "
            f"at least {MIN_MENTIONS}, some correct and some wrong: use a larger table."
        ) from error
    rest = mentions.select(~even)
    before, after = compute_calibration_error(rest), compute_calibration_error(rest.scale(half))
    bundle.update_manifest(directory, confidence=scalings)
    console.print(
        f"confidences: expected calibration error {before:.4f} without scaling, {after:.4f} with scaling", highlight=False
    )
