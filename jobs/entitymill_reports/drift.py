"""Compare a run with earlier runs, without Spark: shares of labels, mentions per 1,000 sentences, and mean confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from entitymill.errors import DriftError
from entitymill.settings.report_sections import ReportSettings
from entitymill_reports.page_data import Run

MAX_EARLIER_RUNS = 20
"""Maximum number of earlier runs with which a run is compared."""


@dataclass(frozen=True)
class Change:
    """A measure of a run, compared with the same measure of all earlier runs together.

    measure: `share` (the share of a label in all mentions, 0 to 1), `rate` (mentions per 1,000 sentences) or `confidence`
        (mean, 0 to 1).
    label: the label for the measure `share`; None for the other measures.
    before, now: the value for all earlier runs together, and the value for the run.
    change: `now` - `before`. For `rate`, this difference divided by `before`; infinite if `before` is 0 and `now` is not.
    bound: the largest absolute value of `change` that does not count as drift.
    """

    measure: str
    label: str | None
    before: float
    now: float
    change: float
    bound: float

    @property
    def flagged(self) -> bool:
        """Whether the change counts as drift: its absolute value is larger than `bound`, by more than a rounding error."""
        return abs(self.change) > self.bound + 1e-9

    @property
    def name(self) -> str:
        """The measure's name for messages and the report page, such as "share of PER"; it contains no document text."""
        return {"share": f"share of {self.label}", "rate": "mentions per 1,000 sentences"}.get(
            self.measure, "mean confidence"
        )

    def __str__(self) -> str:
        """Return the name of the measure with the values now and before, for error messages."""
        decimals = 1 if self.measure == "rate" else 3
        return f"{self.name} {self.now:.{decimals}f} instead of {self.before:.{decimals}f}"


@dataclass(frozen=True)
class Drift:
    """The result of comparing a run with earlier runs.

    run: the run that was compared; None if the output has no run to compare.
    runs: number of earlier runs in the comparison; if the run or the earlier runs tagged too few sentences for a comparison,
        number of earlier runs that could have been compared.
    sentences: total number of sentences that these earlier runs tagged.
    changes: one Change per label for the measure `share`, and one for each other measure; empty if nothing was compared.
    why_not_compared: the reason, as a sentence, if nothing was compared; otherwise empty.
    other_model: whether any of these earlier runs used another model, precision or other settings that affect results.
    """

    run: Run | None
    runs: int = 0
    sentences: int = 0
    changes: tuple[Change, ...] = ()
    why_not_compared: str = ""
    other_model: bool = False

    @property
    def earlier_runs(self) -> str:
        """A phrase for the earlier runs, such as "the 3 previous runs"."""
        return "the previous run" if self.runs == 1 else f"the {self.runs} previous runs"

    @property
    def flagged(self) -> tuple[Change, ...]:
        """The changes that are larger than their bounds."""
        return tuple(change for change in self.changes if change.flagged)


def compare_runs(run: Run | None, before: Sequence[Run], bounds: ReportSettings) -> Drift:
    """Compare a run with the latest completed runs before it; return the changes, or the reason why nothing was compared.

    Args:
        run: the run to compare; None if the output has no run to compare.
        before: the earlier runs, newest first. Runs that did not complete or tagged no sentence are ignored. Of the
            rest, the newest MAX_EARLIER_RUNS are used.
        bounds: the settings `report.drift_*`: the largest changes that are not flagged, and a minimum number of sentences.
            If the run, or all earlier runs together, tagged fewer sentences, nothing is compared.
    """
    completed = [other for other in before if other.status == "done" and other.sentences][:MAX_EARLIER_RUNS]
    sentences = sum(other.sentences for other in completed)
    least = bounds.drift_sentences
    if run is None:
        return Drift(run, why_not_compared="No run has completed yet.")
    if run.status != "done":
        return Drift(run, why_not_compared="This run did not complete.")
    if run.sentences < least:
        why = f"The run tagged {run.sentences:,} sentences, but report.drift_sentences requires {least:,} for a comparison."
        return Drift(run, len(completed), sentences, why_not_compared=why)
    if not completed:
        return Drift(run, why_not_compared="No earlier run tagged any sentence.")
    if sentences < least:
        why = f"Earlier runs tagged {sentences:,} sentences, but report.drift_sentences requires {least:,} for a comparison."
        return Drift(run, len(completed), sentences, why_not_compared=why)
    other_model = any(other.fingerprint != run.fingerprint for other in completed)
    changes = tuple(_compute_changes(run, completed, bounds))
    return Drift(run, len(completed), sentences, changes, other_model=other_model)


def check_drift(drift: Drift | None, bounds: ReportSettings) -> None:
    """Raise DriftError if report.fail_on_drift is set, and a run differs too much from earlier runs.

    Call this only after the run has published its results, because the error message says that it has. `drift` is the
    result of `compare_runs`; if it is None, nothing is raised. `bounds` contains the setting report.fail_on_drift.
    """
    if drift is not None and bounds.fail_on_drift and drift.flagged:
        flagged = ", ".join(str(change) for change in drift.flagged)
        raise DriftError(
            f"report.fail_on_drift: the run was published, but differs from {drift.earlier_runs}: {flagged}. Look "
            "at its report page; if the results are right, raise the bound in report.drift_*. Later runs will be compared "
            "with this run, too."
        )


def _compute_changes(run: Run, before: Sequence[Run], bounds: ReportSettings) -> list[Change]:
    """Return how each label's share, the mentions per 1,000 sentences and the mean confidence differ from earlier runs.

    `before` has the earlier runs. Labels that only some of the runs found are included. Mean confidences cover only mentions
    that are still in the table `entities`. If the run, or all earlier runs, have no such mention, confidence is left out.
    """
    mentions, earlier_mentions = run.mentions, sum(other.mentions for other in before)
    changes = []
    for label in sorted({label for other in (run, *before) for label in other.entities_by_label}):
        was = sum(other.entities_by_label.get(label, 0) for other in before) / earlier_mentions if earlier_mentions else 0.0
        now = run.entities_by_label.get(label, 0) / mentions if mentions else 0.0
        changes.append(Change("share", label, was, now, now - was, bounds.drift_share))
    was = 1000 * earlier_mentions / sum(other.sentences for other in before)
    now = 1000 * mentions / run.sentences
    change_from_zero = math.inf if now else 0.0
    relative = (now - was) / was if was else change_from_zero
    changes.append(Change("rate", None, was, now, relative, bounds.drift_rate))
    weight = sum(other.current_mentions for other in before)
    if run.confidence is not None and weight:
        was = sum(other.current_mentions * (other.confidence or 0.0) for other in before) / weight
        changes.append(Change("confidence", None, was, run.confidence, run.confidence - was, bounds.drift_confidence))
    return changes
