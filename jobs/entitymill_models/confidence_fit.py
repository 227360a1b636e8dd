"""Scale the confidences of mentions so that, for example, about 80 % of the mentions with confidence 0.8 are correct.

Gold mentions were marked by people. A mention that a model finds is correct if a gold mention has the same span and label. A
scaling has two numbers, temperature and offset: `logit(scaled) = logit(confidence) / temperature + offset`. This module
fits these numbers for each label, and measures how far confidences are from the share of correct mentions.
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
"""Minimum number of mentions to fit a scaling. A label with fewer gets the scaling fitted to the mentions of all labels."""
BINS = 10
"""Number of bins of equal width, from 0 to 1, into which mentions are sorted by confidence."""
OPTION = "--calibrate-confidence"


@dataclass(frozen=True)
class ScoredMentions:
    """Mentions that a model found, compared with gold mentions, which were marked by people.

    labels: the label of each mention.
    confidences: the confidence of each mention, float64, shape [mentions].
    correct: for each mention, whether a gold mention has the same sentence, span and label, bool, shape [mentions].
    """

    labels: Sequence[str]
    confidences: NDArray[np.float64]
    correct: NDArray[np.bool_]

    def select(self, chosen: NDArray[np.bool_]) -> ScoredMentions:
        """Return the mentions for which `chosen`, bool, shape [mentions], is true."""
        labels = [label for label, keep in zip(self.labels, chosen, strict=True) if keep]
        return ScoredMentions(labels, self.confidences[chosen], self.correct[chosen])

    def scale(self, scalings: dict[str, Scaling]) -> ScoredMentions:
        """Return the same mentions with scaled confidences.

        `scalings` is a dict from a label to its scaling. Mentions whose label is not in the dict keep their confidences.
        """
        names = sorted(set(self.labels))
        numbers = np.array([names.index(label) for label in self.labels], np.int64)
        return ScoredMentions(self.labels, scale_confidences(self.confidences, numbers, names, scalings), self.correct)


@dataclass(frozen=True)
class Bin:
    """The mentions whose confidence is at least `low` and below `high`; the last bin also includes confidence 1.

    mentions: number of mentions in the bin.
    confidence: mean confidence of the mentions in the bin.
    correct: share of correct mentions among the mentions in the bin, 0 to 1.
    """

    low: float
    high: float
    mentions: int
    confidence: float
    correct: float


def fit_scalings(mentions: ScoredMentions) -> dict[str, Scaling]:
    """Fit a scaling (temperature and offset) of confidences for each label; return a dict from each label to its scaling.

    A label's scaling minimizes the logarithmic loss of the confidences of the label's mentions. If a label has fewer than
    MIN_MENTIONS mentions, or only correct or only wrong ones, its scaling is fitted to the mentions of all labels.

    Raises:
        SettingsError: scipy is not installed.
        ValueError: there are fewer than MIN_MENTIONS mentions in total, or they are all correct or all wrong.
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
    """Return the scaling (temperature and offset) that minimizes the logarithmic loss of the confidences of mentions.

    The temperature is limited to e^-3 … e^6 (0.05 … 403), and the offset to -20 … 20. Each is rounded to 4 decimals.
    `confidences` and `correct` have the shape [mentions]; `correct` says of each mention whether it is correct. Raise
    SettingsError if scipy is not installed.
    """
    try:
        from scipy import optimize  # noqa: PLC0415  # part of the extra prepare
    except ImportError as error:
        raise SettingsError(f"{OPTION} needs {installation.PREPARE}.") from error
    logits = compute_logits(confidences)

    def loss(parameters: NDArray[np.float64]) -> float:
        scaled = logits * np.exp(-parameters[0]) + parameters[1]
        return float(np.mean(np.logaddexp(0, np.where(correct, -scaled, scaled))))

    # A manifest allows only temperatures above 0. Without bounds, the temperature would become 0 if the confidence of every
    # correct mention is higher than that of every wrong mention.
    result = optimize.minimize(loss, np.zeros(2), bounds=[(-3, 6), (-20, 20)])
    return Scaling(temperature=round(float(np.exp(result.x[0])), 4), offset=round(float(result.x[1]), 4))


def build_reliability_table(mentions: ScoredMentions) -> list[Bin]:
    """Sort mentions by confidence into BINS bins of equal width from 0 to 1; return the bins with mentions, lowest first."""
    numbers = np.minimum((mentions.confidences * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        inside = numbers == number
        confidence, correct = mentions.confidences[inside].mean(), mentions.correct[inside].mean()
        bins.append(Bin(number / BINS, (number + 1) / BINS, int(inside.sum()), float(confidence), float(correct)))
    return bins


def compute_calibration_error(mentions: ScoredMentions) -> float:
    """Return the expected calibration error: how far confidences are from the share of correct mentions.

    Mentions are sorted by confidence into BINS bins. For each bin, the mean confidence is compared with the share of correct
    mentions. The error is the mean of the absolute differences, weighted by the number of mentions in each bin. Without
    mentions, the error is 0.

    (Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015.)
    """
    table = build_reliability_table(mentions)
    return sum(row.mentions * abs(row.confidence - row.correct) for row in table) / max(1, len(mentions.correct))


def calibrate_bundle(directory: Path, table: Path, console: Console) -> None:
    """Fit scalings of a bundle's confidences to a table of sentences with gold tags, and write them to the manifest.

    `table` has the columns `tokens` and `tags`: lists of strings, with one correct IOB2 tag for each token. The bundle runs
    in f32 with Viterbi decoding. Scalings that its manifest already has are not applied, and are replaced. The new scalings
    in the manifest are fitted to all sentences. To show the effect, other scalings are fitted to every second sentence. For
    the other half, the expected calibration errors without and with these other scalings are printed.

    Raises:
        ModelError: the bundle cannot be run.
        SettingsError: the table cannot be read, a row has no tags, or scipy is not installed. Also raised if the mentions
            that the model finds in every second sentence are fewer than MIN_MENTIONS, all correct, or all wrong.
    """
    sample = precision_loss.read_sample(table, OPTION)
    if sample.gold is None:
        raise SettingsError(f"{OPTION}: {table} needs a column tags with one IOB2 tag for each token in every row.")
    found = precision_loss.find_mentions_with_confidences(directory, "f32", sample.sentences, "viterbi")
    gold = precision_loss.join_gold_tags(sample.gold)
    correct = np.array([mention in gold for mention in found], np.bool_)
    mentions = ScoredMentions([label for *_, label in found], np.array(list(found.values())), correct)
    even = np.array([sentence % 2 == 0 for sentence, *_ in found], np.bool_)
    try:
        half, scalings = fit_scalings(mentions.select(even)), fit_scalings(mentions)
    except ValueError as error:
        raise SettingsError(
            f"{OPTION}: in one half of the sentences of {table}, the model finds {error}. In this half, it must find "
            f"at least {MIN_MENTIONS}, some correct and some wrong: use a larger table."
        ) from error
    rest = mentions.select(~even)
    before, after = compute_calibration_error(rest), compute_calibration_error(rest.scale(half))
    bundle.update_manifest(directory, confidence=scalings)
    console.print(
        f"confidences: expected calibration error {before:.4f} without scaling, {after:.4f} with scaling (0 is best)",
        highlight=False,
    )
