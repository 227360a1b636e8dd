"""What a run did, in numbers: for its summary and its row of `runs`."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.settings import Settings
from entitymill.tables import Stamp
from entitymill.tables.publisher import UnitCounts

if TYPE_CHECKING:
    from entitymill.run.dry_runs import Plan

log = logging.getLogger(__name__)


@dataclass
class Summary:
    """What a run did, in numbers.

    scope: digest of what says which rows the run is about.
    mode: how its documents were found: `first`, `full`, `compare`, `feed`, `arrivals`, or `none`: there was nothing to do.
    output_versions: table -> its version of Delta when the run ended.
    documents, sentences, tokens, split_sentences: processed.
    removed: documents taken out, since the source has them no more.
    units: the work was cut into.
    planned: documents to be processed, found before the first unit.
    units_done: published so far.
    stage: what the run is at: `preparation`, `waiting`, `source`, `recognition`, `writing`, `done`.
    waiting: for whom, while the stage is that.
    by_label: label -> mentions found.
    rejects: code -> rows.
    seconds: stage -> wall seconds; but `encoding` and `inference` are parts of recognition, summed over all workers, and
        `segmentation` is what is left of all cores' time in it: segmentation, the way to the workers and back, idling.
    error, exit_code: how it ended; one sentence, and none where nothing went wrong.
    application_id: Spark's.
    log: path of this program's log.
    plan: of a dry run.
    """

    run_id: str
    started_at: datetime
    scope: str = ""
    mode: str = ""
    documents: int = 0
    removed: int = 0
    units: int = 0
    planned: int = 0
    units_done: int = 0
    stage: str = "preparation"
    waiting: str = ""
    sentences: int = 0
    tokens: int = 0
    split_sentences: int = 0
    by_label: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    exit_code: int | None = None
    application_id: str | None = None
    log: str | None = None
    output_versions: dict[str, int] = field(default_factory=dict)
    plan: Plan | None = None

    @property
    def sentences_per_second(self) -> float:
        """Sentences over the wall seconds of the whole run, set-up included."""
        return self.sentences / self.seconds["total"] if self.seconds.get("total") else 0.0

    def start_waiting(self, holder: str) -> None:
        """The run cannot begin yet.

        Args:
            holder: of the lease.
        """
        self.stage, self.waiting = "waiting", holder

    def count_unit(self, recognised: DataFrame, *, names: bool = False) -> UnitCounts:
        """Add a unit, but no failed documents.

        Args:
            recognised: schemas.RECOGNISED.
            names: whether all ids are wanted: of a small unit, since they come to the driver.
        """
        columns = ("sentences", "tokens", "split_sentences", "encoding_seconds", "inference_seconds")
        # One pass: a row for each label that a document has, and before these one for the document itself.
        labels = F.explode(F.concat(F.array(F.lit(None).cast("string")), F.col("mentions.label"))).alias("label")
        each = recognised.select("doc_id", F.col("failure").isNotNull().alias("failed"), *columns, labels)
        sums = each.groupBy("label").agg(
            F.count("*").alias("rows"),
            F.min("doc_id").alias("first"),
            F.max("doc_id").alias("last"),
            F.collect_list(F.when(F.lit(names) & F.col("label").isNull(), F.col("doc_id"))).alias("ids"),
            F.sum(F.col("failed").cast("long")).alias("failed"),
            *(F.sum(name).alias(name) for name in columns),
        )
        found = {row["label"]: row for row in sums.collect()}
        documents = found.pop(None, None)
        if documents is None:
            return UnitCounts()
        self.documents += documents["rows"] - documents["failed"]
        self.sentences += documents["sentences"] or 0
        self.tokens += documents["tokens"] or 0
        self.split_sentences += documents["split_sentences"] or 0
        for stage in ("encoding", "inference"):
            self.seconds[stage] = self.seconds.get(stage, 0.0) + (documents[f"{stage}_seconds"] or 0.0)
        for label in sorted(found):
            self.by_label[label] = self.by_label.get(label, 0) + found[label]["rows"]
        return UnitCounts(
            documents["first"], documents["last"], documents["ids"] if names else None, documents["failed"] > 0
        )

    def build_row(self, settings: Settings, stamp: Stamp) -> dict[str, Any]:
        """The run's row of `runs`, without its end and its lease."""
        masked = settings.dump_masked()
        counted = {name: getattr(self, name) for name in schemas.RUNS.names if hasattr(self, name)}
        return counted | {
            "mode": self.mode or None,
            "settings": json.dumps(masked),
            "source": masked["source"]["path"],
            "source_version": stamp.source_version,
            "source_committed": stamp.source_committed,
            "slice": stamp.slice,
            "model": stamp.model,
            "fingerprint": stamp.fingerprint,
            "entities_by_label": self.by_label,
            "rejects": sum(self.rejects.values()),
        }


class Clock:
    """Wall seconds per stage, added up in a summary."""

    def __init__(self, summary: Summary) -> None:
        """Start now."""
        self._summary = summary
        self._began = self._last = perf_counter()

    def lap(self, stage: str) -> None:
        """What passed since the last lap was spent on this stage."""
        now = perf_counter()
        self._summary.seconds[stage] = self._summary.seconds.get(stage, 0.0) + now - self._last
        log.info("%s took %.1f s", stage, now - self._last)
        self._last = now

    def record_total(self) -> None:
        """What passed since the start."""
        self._summary.seconds["total"] = perf_counter() - self._began


def compute_scope(settings: Settings, identity: str) -> str:
    """Return a digest of what says which rows a run is about and where they go.

    Args:
        identity: of the source.
    """
    about = {
        "source": settings.source.model_dump(mode="json"),
        "table": identity,
        "slice": settings.output.replace_slice,
        # What a run ignored, the next one may have to do.
        "ignoring": settings.incremental.on_fingerprint_change == "ignore",
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def compute_slice_digest(settings: Settings) -> str | None:
    """Digest of the slice that a run replaces; none where it is about everything."""
    if not settings.output.replace_slice:
        return None
    return hashlib.sha256((settings.source.where or "").strip().encode()).hexdigest()[:16]
