"""What a page shows, as plain values: nothing here grows with the tables. No Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

STAGES = ("preparation", "source", "recognition", "writing")
"""Of a run, by the clock, in order."""
CONFIDENCE_BINS = 20
"""Of equal width, from 0 to 1."""
SENTENCE_BIN = 20
"""Characters."""
SENTENCE_BINS = 21
"""The last one holds all that is longer."""
_NAMES = ("mode", "model", "fingerprint", "source", "source_version")
_NUMBERS = ("documents", "removed", "units", "sentences", "rejects")


@dataclass(frozen=True)
class Run:
    """A row of `runs`.

    started: in UTC.
    by_label: label -> mentions it found.
    seconds: stage -> seconds; those of STAGES and `total` are by the clock.
    kept: its mentions that still are in `entities`.
    confidence: mean of these; none where there are none.
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
    kept: int = 0
    confidence: float | None = None

    @property
    def mentions(self) -> int:
        """Found by it."""
        return sum(self.by_label.values())

    @property
    def total(self) -> float:
        """Seconds by the clock."""
        return self.seconds.get("total", 0.0)

    @property
    def speed(self) -> float:
        """Sentences a second of the whole run."""
        return self.sentences / self.total if self.total else 0.0

    @classmethod
    def of(cls, row: Mapping[str, Any], kept: int = 0, confidence: float | None = None) -> Run:
        """From a row of `runs` of any version, its times in UTC."""
        names: dict[str, Any] = {name: row.get(name) or "" for name in _NAMES}
        numbers: dict[str, Any] = {name: row.get(name) or 0 for name in _NUMBERS}
        return cls(
            run_id=row["run_id"],
            started=row["started_at"],
            status=row["status"],
            kept=kept,
            confidence=confidence,
            **names,
            **numbers,
            by_label=dict(row.get("entities_by_label") or {}),
            seconds=dict(row.get("seconds") or {}),
        )


@dataclass(frozen=True)
class Documents:
    """Sums over the table `documents`.

    by_tokens: n -> documents of 2^n to 2^(n+1) - 1 tokens; those without a token are at -1.
    """

    documents: int = 0
    blank: int = 0
    sentences: int = 0
    tokens: int = 0
    split_sentences: int = 0
    by_tokens: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Label:
    """The mentions of a label: how many, their mean confidence, and how many in each of CONFIDENCE_BINS."""

    name: str
    mentions: int
    confidence: float
    bins: tuple[int, ...]


@dataclass(frozen=True)
class Days:
    """Mentions by time. step: day, week, month or year; counts: the step's first day -> label -> mentions."""

    column: str
    step: str
    counts: Mapping[date, Mapping[str, int]]
    without: int = 0


@dataclass(frozen=True)
class Lengths:
    """Characters of sentences that hold a mention: how many in each of SENTENCE_BINS; of one document in so many."""

    bins: tuple[int, ...]
    one_in: int = 1


@dataclass(frozen=True)
class Reject:
    """Rows that are refused for one reason, a few of their ids, and one of their details, which never hold text."""

    stage: str
    code: str
    rows: int
    examples: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class UnitSpeed:
    """A unit of a run, by its commit: its number from 1, seconds since the one before, documents."""

    number: int
    seconds: float
    documents: int

    @property
    def speed(self) -> float:
        """Documents a second."""
        return self.documents / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Part:
    """A piece of a sentence: plain text, or a mention where it has a label; judged: whether a sample is about it."""

    text: str
    label: str = ""
    confidence: float = 0.0
    judged: bool = False


@dataclass(frozen=True)
class Sentence:
    """A sentence in parts, and the samples it is in: `least`, `rarest`, `random`."""

    doc_id: str
    parts: tuple[Part, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """What is text.

    top: label -> the most frequent entities, and how many mentions each has.
    changed: sentences left out, since the source holds another text now.
    problem: why there are no sentences.
    """

    top: Mapping[str, tuple[tuple[str, int], ...]]
    sentences: tuple[Sentence, ...] = ()
    changed: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Figures:
    """All that a page shows.

    run: the one that it is about.
    runs: newest first, that one among them.
    shown: only where text is allowed.
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
    shown: Shown | None = None

    @property
    def mentions(self) -> int:
        """In the table."""
        return sum(label.mentions for label in self.labels)

    @property
    def before(self) -> tuple[Run, ...]:
        """The runs before the one that the page is about, newest first."""
        return () if self.run is None else tuple(run for run in self.runs if run.started < self.run.started)
