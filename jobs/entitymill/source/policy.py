"""Define how a run finds its documents, and which documents count as changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

KNOWN_COLUMNS = ("doc_id", "status", "text_hash", "passthrough_hash", "fingerprint", "slice", "run_id")
"""Columns of `documents` that a comparison needs."""
PENDING = "pending"
"""Status of a document whose mentions may be incomplete."""


class Mode(StrEnum):
    """How a run found the documents that it must recognize."""

    FIRST = "first"
    FULL = "full"
    COMPARE = "compare"
    FEED = "feed"
    ARRIVALS = "arrivals"
    NONE = "none"


@dataclass(frozen=True)
class Policy:
    """Rules that decide which documents a run recomputes.

    fingerprint: fingerprint of this run.
    on_fingerprint_change: value of `incremental.on_fingerprint_change`; a full run ignores it and reprocesses.
    slice: digest of the slice that is replaced; None if the run covers the entire source.
    full: recompute every document, changed or not, except those of `interrupted_runs`.
    interrupted_runs: run_id of earlier full runs with this fingerprint that did not end; the documents that they wrote are
        up to date.
    """

    fingerprint: str
    on_fingerprint_change: str
    slice: str | None
    full: bool = False
    interrupted_runs: frozenset[str] = frozenset()

    @property
    def refuses(self) -> bool:
        """Whether documents of another fingerprint make the run fail."""
        return self.on_fingerprint_change == "refuse" and not self.full

    @property
    def reprocesses(self) -> bool:
        """Whether documents of another fingerprint count as changed."""
        return self.on_fingerprint_change != "ignore" or self.full
