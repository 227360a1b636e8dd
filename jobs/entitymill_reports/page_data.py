"""Define the content of a report page, as plain values whose size does not grow with the tables. Does not use Spark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from entitymill.run_row import RunRow

CONFIDENCE_BINS = 20
"""Number of bins for confidences; the bins have equal widths and cover 0 to 1."""
SENTENCE_BIN = 20
"""Width of a bin for lengths of sentences, in characters."""
SENTENCE_BINS = 21
"""Number of bins for lengths of sentences; the last bin also counts all longer sentences."""


@dataclass(frozen=True)
class Run(RunRow):
    """A row of the `runs` table, with measures of the run's mentions.

    current_mentions: number of the run's mentions that are still in the `entities` table.
    confidence: mean confidence of the current mentions; None if there are no current mentions.
    """

    current_mentions: int = 0
    confidence: float | None = None

    @property
    def core_hours_per_million(self) -> float:
        """The core-hours per million documents, computed from this run; 0 if the run processed no documents."""
        return 1e6 * self.core_hours / self.documents if self.documents else 0.0

    @property
    def mentions(self) -> int:
        """The number of mentions that the run found."""
        return sum(self.entities_by_label.values())

    @property
    def total(self) -> float:
        """The wall-clock seconds of the complete run; 0 if they were not recorded."""
        return self.seconds.get("total", 0.0)

    @property
    def cost(self) -> Mapping[str, Any]:
        """The section `cost` of the run's settings: `per_core_hour` (None if it is not set) and `currency`."""
        return {"per_core_hour": None, "currency": "", **json.loads(self.settings or "{}").get("cost", {})}


@dataclass(frozen=True)
class Documents:
    """The numbers of documents, sentences and tokens in the `documents` table.

    documents, blank: number of documents, and number of documents whose text is only white space.
    sentences, tokens: numbers of sentences and tokens of all documents.
    split_sentences: number of sentences longer than the model's limit.
    by_tokens: a dict from n to the number of documents with 2^n to 2^(n+1) - 1 tokens; key -1: documents without tokens.
    """

    documents: int = 0
    blank: int = 0
    sentences: int = 0
    tokens: int = 0
    split_sentences: int = 0
    by_tokens: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Label:
    """The number and the confidences of the mentions that have one label, such as PER.

    mentions: number of mentions.
    confidence: mean confidence of the mentions.
    bins: number of mentions in each of the CONFIDENCE_BINS ranges of confidence, from 0 to 1.
    """

    name: str
    mentions: int
    confidence: float
    bins: tuple[int, ...]


@dataclass(frozen=True)
class MentionsByPeriod:
    """The numbers of mentions by time.

    column: name of the column of `entities` that has the date of a mention.
    step: the period that one bar of the plot stands for: day, week, month or year.
    counts: a dict from the first day of a period to the number of its mentions of each label.
    without: number of mentions without a date.
    """

    column: str
    step: str
    counts: Mapping[date, Mapping[str, int]]
    without: int = 0


@dataclass(frozen=True)
class Lengths:
    """How many sentences with a mention have each length.

    bins: number of counted sentences in each of the SENTENCE_BINS ranges of lengths. Each range is SENTENCE_BIN characters
        wide, but the last one also includes all longer sentences.
    one_in: n if only the sentences of about one in n documents were counted; 1 if all documents were included.
    """

    bins: tuple[int, ...]
    one_in: int = 1


@dataclass(frozen=True)
class Reject:
    """All rows of the `rejects` table that have the same stage (source or recognition) and the same reject code.

    rows: number of rows.
    examples: the document ids of up to four of the rows.
    detail: the column `detail` of one of the rows, which says more about the reason; never text of a document.
    """

    stage: str
    code: str
    rows: int
    examples: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class UnitSpeed:
    """The speed of one unit of work (documents that are published together) of a run.

    number: the number of the unit in the run, from 1.
    seconds: the seconds from the commit of the previous unit (for unit 1: from the start of the run) to its own commit.
    documents: the number of documents that the commit added or changed.
    """

    number: int
    seconds: float
    documents: int

    @property
    def speed(self) -> float:
        """The documents per second; 0 if `seconds` is 0."""
        return self.documents / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Part:
    """A part of a sentence: a mention if `label` is set, otherwise the text between mentions.

    sampled: whether the part is a mention that was chosen for a sample; the page also shows the sentence's other mentions.
    """

    text: str
    label: str = ""
    confidence: float = 0.0
    sampled: bool = False


@dataclass(frozen=True)
class Sentence:
    """A sentence on the report page, split into mentions and the text between them.

    samples: the names of the samples for which a mention in the sentence was chosen: `least`, `rarest` or `random`.
    """

    doc_id: str
    parts: tuple[Part, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True)
class TextSamples:
    """The parts of a report page that show text of documents.

    top: for each label, the most frequent entities, with their numbers of mentions.
    sentences: the sentences that contain a sampled mention.
    changed: number of sentences that were left out because their document's text in the source has changed or is missing.
    problem: the reason why the sentences could not be read; otherwise empty.
    """

    top: Mapping[str, tuple[tuple[str, int], ...]]
    sentences: tuple[Sentence, ...] = ()
    changed: int = 0
    problem: str = ""


@dataclass(frozen=True)
class PageContent:
    """The complete content of a report page.

    output: path or schema of the tables.
    run: the run that the page shows; None as long as no run that processed or removed documents has completed.
    runs: the latest runs, newest first, without idle runs (runs that had nothing to do) and maintenance.
    days: the mentions by time; None if report.date_column is not set.
    units: the speed of each unit of work of `run`; units whose speed is not known are left out.
    settings: the settings of `run` as YAML, without secrets; empty if they are not known.
    shown: samples of text from the documents; None if report.show_text is false.
    last_idle: when the latest idle run started, in UTC; None if there is no idle run.
    """

    output: str
    run: Run | None
    runs: tuple[Run, ...]
    documents: Documents
    labels: tuple[Label, ...]
    days: MentionsByPeriod | None
    lengths: Lengths
    rejects: tuple[Reject, ...]
    units: tuple[UnitSpeed, ...]
    settings: str
    shown: TextSamples | None = None
    last_idle: datetime | None = None

    @property
    def mentions(self) -> int:
        """The number of mentions in the `entities` table."""
        return sum(label.mentions for label in self.labels)

    @property
    def before(self) -> tuple[Run, ...]:
        """Those of `runs` that started before the run that the page shows, newest first."""
        return () if self.run is None else tuple(run for run in self.runs if run.started_at < self.run.started_at)
