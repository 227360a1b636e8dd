"""Define how a run finds its documents (`Mode`), and by which rules it decides what to recompute (`Policy`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

COMPARED_COLUMNS = ("doc_id", "status", "text_hash", "passthrough_hash", "fingerprint", "slice", "run_id")
"""Columns of the `documents` table that are needed to compare the table with the source."""
PENDING = "pending"
"""Status of a document whose mentions may be incomplete, because a run died; the next run recomputes the document."""


class Mode(StrEnum):
    """How a run finds the documents that it must recognize.

    FIRST: all documents, because the output had none. FULL: all documents, because the user asked for it (--full).
    COMPARE: all rows were compared with the output. FEED: rows from the change feed were compared. ARRIVALS: rows from
    appended data files were compared. NONE: the run had nothing to do.
    """

    FIRST = "first"
    FULL = "full"
    COMPARE = "compare"
    FEED = "feed"
    ARRIVALS = "arrivals"
    NONE = "none"


@dataclass(frozen=True)
class Policy:
    """Rules that decide which documents a run recomputes.

    fingerprint: fingerprint of this run: a digest of models, precision and other settings that affect results.
    on_fingerprint_change: value of `incremental.on_fingerprint_change`: `reprocess` documents in the output whose
        fingerprint differs from this run's, `ignore` them (leave them as they are), or `refuse` the run. A full run always
        reprocesses them.
    slice: digest of source.where if the run replaces a slice (the rows that source.where selects); otherwise None.
    full: whether to recompute every document, even if it has not changed. Documents that `interrupted_runs` wrote are not
        recomputed once more.
    interrupted_runs: ids of full runs with this fingerprint that did not complete; the documents that they wrote are up to
        date.
    """

    fingerprint: str
    on_fingerprint_change: str
    slice: str | None
    full: bool = False
    interrupted_runs: frozenset[str] = frozenset()

    @property
    def refuses_other_fingerprints(self) -> bool:
        """Whether the run fails if the output has documents whose fingerprint differs from this run's."""
        return self.on_fingerprint_change == "refuse" and not self.full

    @property
    def reprocesses_other_fingerprints(self) -> bool:
        """Whether documents whose fingerprint differs from this run's count as changed; also true if they are refused."""
        return self.on_fingerprint_change != "ignore" or self.full
