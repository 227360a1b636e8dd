"""Compute precision, its confidence interval, recall and a value for `entities.min_confidence` from reviewers' answers.

This value is the smallest with which the mentions that remain reach the precision that the user wants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from rich.table import Table
from rich.text import Text

from entitymill.terminal.console_text import visible
from entitymill.terminal.review_file_reader import Judgment, Review

ALL = "all"
"""Key, in the result of `score_review`, of the score of all labels together."""
LEVEL = 0.95
"""Probability that the interval of the precision contains the precision of the whole table, if the sample is random."""
_STEPS = 10_000
"""A threshold (a value for `entities.min_confidence`) is a multiple of 1 / _STEPS, so that it can be printed exactly."""


@dataclass(frozen=True)
class Threshold:
    """A value for the setting `entities.min_confidence`, and what it would achieve in the sample.

    precision, mentions: precision and number of the sample's mentions whose confidence is at least `min_confidence`.
    """

    min_confidence: float
    precision: float
    mentions: int


@dataclass(frozen=True)
class ReviewScore:
    """The scores of one label, or of several labels together, in a reviewed sample.

    reviewed, correct: number of reviewed mentions, and how many of them are correct.
    precision: correct / reviewed; None if no mention was reviewed.
    low, high: ends of the confidence interval of the precision (see `compute_wilson_interval`).
    threshold: the smallest `min_confidence` with which the remaining mentions reach the wanted precision; None if no
        `min_confidence` achieves this precision.
    annotated: number of mentions that reviewers marked in the sentences shown to them; None for a CSV file, in which
        reviewers cannot mark mentions.
    recall: share of these marked mentions that are also in the `entities` table; None if `annotated` is None or 0.
    """

    reviewed: int
    correct: int
    precision: float | None
    low: float
    high: float
    threshold: Threshold | None
    annotated: int | None
    recall: float | None


def compute_wilson_interval(correct: int, reviewed: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of Wilson's confidence interval for the share correct / reviewed; (0, 1) if nothing was reviewed.

    `level` is the probability with which the interval contains the true share. The interval stays within 0 and 1, and is
    valid for small samples. (The usual interval, p plus or minus 1.96 standard errors, is too narrow for small samples.)
    Source: E. B. Wilson, 1927, JASA 22(158), pages 209-212.
    """
    if not reviewed:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = correct / reviewed
    center = share + z * z / (2 * reviewed)
    margin = z * math.sqrt(share * (1 - share) / reviewed + z * z / (4 * reviewed * reviewed))
    scale = 1 + z * z / reviewed
    low = (center - margin) / scale if correct else 0.0
    high = (center + margin) / scale if correct < reviewed else 1.0
    return low, high


def find_threshold(judgments: Iterable[Judgment], wanted_precision: float) -> Threshold | None:
    """Find the smallest `min_confidence` for which the remaining mentions reach `wanted_precision`; return a Threshold.

    The remaining mentions are those with at least this confidence. This `min_confidence` is a multiple of 1 / _STEPS, and 0
    if all mentions together have at least the wanted precision. Return None if no `min_confidence` achieves this precision.
    Every confidence in the sample is tried, because the precision may fall when the threshold rises.

    Args:
        judgments: the reviewers' answers, one per mention.
        wanted_precision: smallest share of correct mentions, from 0 to 1.
    """
    ordered = sorted(judgments, key=lambda judgment: judgment.confidence, reverse=True)
    best, correct = None, 0
    for number, judgment in enumerate(ordered, 1):
        correct += judgment.correct
        step = math.floor(judgment.confidence * _STEPS)
        following = ordered[number].confidence if number < len(ordered) else -1.0
        if math.floor(following * _STEPS) != step and correct >= wanted_precision * number:
            lowest = step / _STEPS if number < len(ordered) else 0.0
            best = Threshold(lowest, correct / number, number)
    return best


def list_labels(review: Review) -> set[str]:
    """Return the labels of the reviewed mentions and of mentions that reviewers marked, but not of unreviewed mentions."""
    return {judgment.label for judgment in review.judgments} | set(review.annotated or ())


def score_review(review: Review, wanted_precision: float, labels: Sequence[str] = ()) -> dict[str, ReviewScore]:
    """Return a dict from label to score, sorted by label; the last key, ALL, has the score of all these labels together.

    Args:
        wanted_precision: precision, from 0 to 1, that the threshold in each score must reach (see `find_threshold`).
        labels: the labels to score; empty for all labels. Labels that do not occur in the review are ignored.
    """
    occurring = list_labels(review)
    chosen = sorted(occurring & set(labels) if labels else occurring)
    scores = {label: _score_labels(review, wanted_precision, [label]) for label in chosen}
    return {**scores, ALL: _score_labels(review, wanted_precision, chosen)}


def _score_labels(review: Review, wanted_precision: float, labels: Sequence[str]) -> ReviewScore:
    """Return one score for the mentions of all `labels` together."""
    judgments = [judgment for judgment in review.judgments if judgment.label in labels]
    correct = sum(judgment.correct for judgment in judgments)
    low, high = compute_wilson_interval(correct, len(judgments))
    annotated = recall = None
    if review.annotated is not None and review.found is not None:
        annotated = sum(review.annotated[label] for label in labels)
        recall = sum(review.found[label] for label in labels) / annotated if annotated else None
    precision = correct / len(judgments) if judgments else None
    threshold = find_threshold(judgments, wanted_precision)
    return ReviewScore(len(judgments), correct, precision, low, high, threshold, annotated, recall)


def build_table(scores: dict[str, ReviewScore], wanted_precision: float) -> Table:
    """Return the table of scores for the terminal; it has a column for recall only if reviewers could mark mentions.

    `wanted_precision` is the precision with which `scores` was computed, for a heading.
    """
    headings = [
        "label",
        "reviewed",
        "correct",
        "precision",
        f"{LEVEL:.0%} interval",
        f"min_confidence for {wanted_precision:g}",
    ]
    with_recall = any(score.annotated is not None for score in scores.values())
    table = Table(*headings, *(["recall in the sentences shown"] if with_recall else []))
    for label, score in scores.items():
        cells = [f"{score.reviewed:,}", f"{score.correct:,}", _format_share(score.precision)]
        cells.append(f"{score.low:.4f} to {score.high:.4f}")
        threshold = score.threshold
        cells.append("none reaches it" if threshold is None else f"{threshold.min_confidence:g} (n={threshold.mentions:,})")
        if with_recall:
            cells.append(f"{_format_share(score.recall)} of {score.annotated or 0:,}")
        table.add_row(Text(visible(label, lines=False)), *cells)
    return table


def _format_share(share: float | None) -> str:
    """Return a share as text with four decimal places; `-` if the share is None (unknown)."""
    return "-" if share is None else f"{share:.4f}"
