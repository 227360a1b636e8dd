"""How a run finds its documents, and what counts as changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

KNOWN_COLUMNS = ("doc_id", "status", "text_hash", "passthrough_hash", "fingerprint", "slice", "run_id")
"""Columns of `documents` that a comparison needs."""
PENDING = "pending"
"""Status of a known document whose mentions may not all be there."""


class Mode(StrEnum):
    """How a run found the documents it has to recognise."""

    FIRST = "first"
    FULL = "full"
    COMPARE = "compare"
    FEED = "feed"
    ARRIVALS = "arrivals"
    NONE = "none"


@dataclass(frozen=True)
class Policy:
    """What counts as changed.

    fingerprint: of this run.
    on_fingerprint_change: as `incremental.on_fingerprint_change`; ignored by a full run, which reprocesses.
    slice: digest of the slice that is replaced; None if the run is about the whole source.
    full: recompute every document, changed or not, except those of `interrupted_runs`.
    interrupted_runs: run_id of earlier full runs of this fingerprint that did not end: their documents are recomputed.
    """

    fingerprint: str
    on_fingerprint_change: str
    slice: str | None
    full: bool = False
    interrupted_runs: frozenset[str] = frozenset()

    @property
    def refuses(self) -> bool:
        """Whether documents of another fingerprint fail the run."""
        return self.on_fingerprint_change == "refuse" and not self.full

    @property
    def reprocesses(self) -> bool:
        """Whether documents of another fingerprint count as changed."""
        return self.on_fingerprint_change != "ignore" or self.full
