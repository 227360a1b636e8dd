"""How a run differs from the ones before: shares of labels, mentions per 1,000 sentences, mean confidence. No Spark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from entitymill.errors import DriftError
from entitymill.settings.report_sections import ReportSettings
from entitymill_reports.page_figures import Run

BEFORE = 20
"""Runs that one is held against, at most."""


@dataclass(frozen=True)
class Change:
    """One figure of a run, beside the same of the runs before, taken together.

    what: `share` of a label's mentions (0 to 1), `rate` (mentions per 1,000 sentences) or `confidence` (mean, 0 to 1).
    label: whose share; none for the others.
    change: of the rate, as a part of what it was; of the others the difference.
    bound: largest change that is not marked.
    """

    what: str
    label: str | None
    before: float
    now: float
    change: float
    bound: float

    @property
    def marked(self) -> bool:
        """Whether it is beyond its bound; a rounding error is not."""
        return abs(self.change) > self.bound + 1e-9

    @property
    def name(self) -> str:
        """For people; labels are no text of documents."""
        return {"share": f"share of {self.label}", "rate": "mentions per 1,000 sentences"}.get(self.what, "mean confidence")

    def __str__(self) -> str:
        """For messages."""
        places = 1 if self.what == "rate" else 3
        return f"{self.name} {self.now:.{places}f} instead of {self.before:.{places}f}"


@dataclass(frozen=True)
class Drift:
    """What was compared.

    run: the run.
    runs, sentences: before it.
    changes: of each figure; none where nothing could be compared.
    why_not: then why.
    other_model: whether a run before was of another model, precision or setting that decides results.
    """

    run: Run | None
    runs: int = 0
    sentences: int = 0
    changes: tuple[Change, ...] = ()
    why_not: str = ""
    other_model: bool = False

    @property
    def those(self) -> str:
        """The runs before, in words."""
        return "the run before" if self.runs == 1 else f"the {self.runs} runs before"

    @property
    def marked(self) -> tuple[Change, ...]:
        """What changed too much."""
        return tuple(change for change in self.changes if change.marked)


def compare(run: Run | None, before: Sequence[Run], bounds: ReportSettings) -> Drift:
    """Hold a run against those before it that came to their end, the latest of them.

    Args:
        run: or none where there is none.
        before: newest first.
        bounds: of the changes.
    """
    done = [other for other in before if other.status == "done" and other.sentences][:BEFORE]
    sentences = sum(other.sentences for other in done)
    least = bounds.drift_sentences
    if run is None or run.status != "done":
        return Drift(run, why_not="No run has come to its end yet.")
    if run.sentences < least:
        why = f"The run tagged {run.sentences:,} sentences; fewer than report.drift_sentences, {least:,}, are not compared."
        return Drift(run, len(done), sentences, why_not=why)
    if not done:
        return Drift(run, why_not="No run before it tagged anything.")
    if sentences < least:
        why = (
            f"The runs before tagged {sentences:,} sentences; fewer than report.drift_sentences, {least:,}, say too little."
        )
        return Drift(run, len(done), sentences, why_not=why)
    other_model = any(other.fingerprint != run.fingerprint for other in done)
    return Drift(run, len(done), sentences, tuple(_changes(run, done, bounds)), other_model=other_model)


def check_drift(drift: Drift | None, bounds: ReportSettings) -> None:
    """Give a run that differs too much its exit code, where the settings want that.

    Raises:
        DriftError: it does.
    """
    if drift is not None and bounds.fail_on_drift and drift.marked:
        marked = ", ".join(str(change) for change in drift.marked)
        raise DriftError(
            f"report.fail_on_drift: the run was published, but differs from {drift.those}: {marked}. Look at its "
            "page; if all is well, raise the bound in report.drift_*. The next run counts this one among those before it."
        )


def _changes(run: Run, before: Sequence[Run], bounds: ReportSettings) -> list[Change]:
    mentions, counted = run.mentions, sum(other.mentions for other in before)
    found = []
    for label in sorted({label for other in (run, *before) for label in other.by_label}):
        was = sum(other.by_label.get(label, 0) for other in before) / counted if counted else 0.0
        now = run.by_label.get(label, 0) / mentions if mentions else 0.0
        found.append(Change("share", label, was, now, now - was, bounds.drift_share))
    was = 1000 * counted / sum(other.sentences for other in before)
    now = 1000 * mentions / run.sentences
    part = (now - was) / was if was else (math.inf if now else 0.0)
    found.append(Change("rate", None, was, now, part, bounds.drift_rate))
    kept = sum(other.kept for other in before)
    if run.confidence is not None and kept:
        was = sum(other.kept * (other.confidence or 0.0) for other in before) / kept
        found.append(Change("confidence", None, was, run.confidence, run.confidence - was, bounds.drift_confidence))
    return found
