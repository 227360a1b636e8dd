"""The content of a page, as plain values whose size does not grow with the tables. No Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

STAGES = ("preparation", "source", "recognition", "writing")
"""Stages of a run in order, measured in wall-clock time."""
CONFIDENCE_BINS = 20
"""Bins of equal width, from 0 to 1."""
SENTENCE_BIN = 20
"""Width of a bin in characters."""
SENTENCE_BINS = 21
"""Number of bins; the last one also counts all longer sentences."""
_NAMES = ("mode", "model", "fingerprint", "source", "source_version")
_NUMBERS = ("documents", "removed", "units", "sentences", "rejects")


@dataclass(frozen=True)
class Run:
    """A row of `runs`.

    started: in UTC.
    by_label: label -> mentions that the run found.
    seconds: stage -> seconds; wall-clock time for STAGES and `total`, summed over cores for others.
    current_mentions: its mentions that are still in `entities`.
    confidence: mean confidence of these; none if there are none.
    """

    run_id: str
    started: datetime
    status: str
    mode: str = ""
    model: str = ""
    fingerprint: str = ""
    source: str = ""
    source_version: str = ""
    documents: int = 0
    removed: int = 0
    units: int = 0
    sentences: int = 0
    rejects: int = 0
    by_label: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    current_mentions: int = 0
    confidence: float | None = None

    @property
    def mentions(self) -> int:
        """Number of mentions that the run found."""
        return sum(self.by_label.values())

    @property
    def total(self) -> float:
        """Wall-clock seconds."""
        return self.seconds.get("total", 0.0)

    @property
    def speed(self) -> float:
        """Sentences per second of the complete run."""
        return self.sentences / self.total if self.total else 0.0

    @classmethod
    def from_row(cls, row: Mapping[str, Any], current_mentions: int = 0, confidence: float | None = None) -> Run:
        """Build a run from a row of `runs` that any version wrote; its times must be in UTC."""
        names: dict[str, Any] = {name: row.get(name) or "" for name in _NAMES}
        numbers: dict[str, Any] = {name: row.get(name) or 0 for name in _NUMBERS}
        return cls(
            run_id=row["run_id"],
            started=row["started_at"],
            status=row["status"],
            current_mentions=current_mentions,
            confidence=confidence,
            **names,
            **numbers,
            by_label=dict(row.get("entities_by_label") or {}),
            seconds=dict(row.get("seconds") or {}),
        )


@dataclass(frozen=True)
class Documents:
    """Sums over the table `documents`.

    by_tokens: n -> documents of 2^n to 2^(n+1) - 1 tokens; -1 -> documents without a token.
    """

    documents: int = 0
    blank: int = 0
    sentences: int = 0
    tokens: int = 0
    split_sentences: int = 0
    by_tokens: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Label:
    """Mentions of a label; confidence: their mean; bins: how many are in each of CONFIDENCE_BINS."""

    name: str
    mentions: int
    confidence: float
    bins: tuple[int, ...]


@dataclass(frozen=True)
class Days:
    """Mentions by time. step: day, week, month or year; counts: first day -> label -> mentions; without: undated."""

    column: str
    step: str
    counts: Mapping[date, Mapping[str, int]]
    without: int = 0


@dataclass(frozen=True)
class Lengths:
    """Lengths of sentences with a mention, counted in SENTENCE_BINS; one_in: one document in this many was counted."""

    bins: tuple[int, ...]
    one_in: int = 1


@dataclass(frozen=True)
class Reject:
    """Rows rejected for one reason; examples: some of their ids; detail: one of their details, never text of documents."""

    stage: str
    code: str
    rows: int
    examples: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class UnitSpeed:
    """A unit of a run; number: from 1; seconds: from the previous unit's commit to its own."""

    number: int
    seconds: float
    documents: int

    @property
    def speed(self) -> float:
        """Documents per second."""
        return self.documents / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Part:
    """A piece of a sentence: a mention if it has a label, else plain text; sampled: whether it is in a sample."""

    text: str
    label: str = ""
    confidence: float = 0.0
    sampled: bool = False


@dataclass(frozen=True)
class Sentence:
    """A sentence in parts; samples: those that it is in, of `least`, `rarest` and `random`."""

    doc_id: str
    parts: tuple[Part, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True)
class TextSamples:
    """The content of a page that is text of documents.

    top: label -> the most frequent entities, and the number of mentions of each.
    changed: number of sentences left out because the source now has another text.
    problem: why there are no sentences; else empty.
    """

    top: Mapping[str, tuple[tuple[str, int], ...]]
    sentences: tuple[Sentence, ...] = ()
    changed: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Figures:
    """The complete content of a page.

    run: the run that the page shows.
    runs: all runs, newest first.
    shown: only if report.show_text allows text.
    """

    output: str
    run: Run | None
    runs: tuple[Run, ...]
    documents: Documents
    labels: tuple[Label, ...]
    days: Days | None
    lengths: Lengths
    rejects: tuple[Reject, ...]
    units: tuple[UnitSpeed, ...]
    settings: str
    shown: TextSamples | None = None

    @property
    def mentions(self) -> int:
        """Number of mentions in the table."""
        return sum(label.mentions for label in self.labels)

    @property
    def before(self) -> tuple[Run, ...]:
        """The runs before the one that the page shows, newest first."""
        return () if self.run is None else tuple(run for run in self.runs if run.started < self.run.started)
