"""Count what a run did, for the run's summary and for its row in the `runs` table."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from entitymill import run_row, schemas
from entitymill.run_row import RunRow
from entitymill.settings import Settings
from entitymill.tables.publisher import Provenance, UnitIds

if TYPE_CHECKING:
    from entitymill.run.dry_runs import Plan

log = logging.getLogger(__name__)
RECOGNITION_CPU, JOB_CPU = "recognition", "job"
"""Keys of `Summary.cpu_seconds`."""
RECOGNIZING_SECONDS = "recognizing"
"""Key of `Summary.seconds`: wall-clock seconds in which any documents were being recognized, including time in which other
documents were being written."""


@dataclass
class Summary:
    """Counts, times and outcome of a run.

    scope: digest of the source table and of the settings that decide which documents the run processes.
    mode: value of the enum `Mode`, such as `full`: how the run found the documents to process; empty if not yet known.
    output_versions: Delta version of each table when the run ended.
    documents, sentences, tokens: number of documents, sentences and tokens that the run processed.
    split_sentences: number of sentences longer than the model's limit.
    removed: number of documents to remove, because the source no longer has a valid row for them. They are counted before
        the first unit; if the run ended early, some of them are still in the output.
    units: planned number of units of work (documents that are published together); after the last unit, `units_done`.
    planned: number of documents to process, counted before the first unit.
    units_done: number of units published so far, without those that only remove documents.
    stage: current stage of the run: `preparation`, `waiting`, `source`, `recognition`, `writing` or `done`.
    waiting: description of the other run for which this run waits, or waited last; empty if this run never waited.
    by_label: number of mentions for each label.
    rejects: number of rejected rows for each reject code; documents that crash the tagger or make it hang count, too.
    seconds: dict with two groups of keys. The first group has wall-clock seconds: `preparation`, `waiting` (only
        if the run waited for another run), `source`, `recognition` (the time until each unit was recognized, without the
        time in which another unit was published), `writing`, `total` (the whole run), and RECOGNIZING_SECONDS. The second
        group divides the core-seconds (seconds multiplied by cores) of recognition: the keys in schemas.PARTS, `spark` and
        `idle`. The keys in schemas.PARTS are the steps of recognition, which the engine sparknlp does not measure. `spark`
        is the CPU time of the driver and of Spark's tasks; the key is missing if Spark does not report this time. `idle` is
        the rest; if `spark` is missing, `idle` includes Spark's work.
    error, exit_code: outcome of the run; `error` is one sentence, or None if the run succeeded or has not ended.
    chars: number of code points of the processed documents.
    cores: number of tasks that Spark's executors can run at once, when it was last counted; 0 if it was never counted.
    core_seconds: seconds of the run so far, multiplied by the number of cores. Each `CostMeter.update` counts the cores,
        and adds the seconds since the previous update times this number.
    cpu_seconds: dict with two keys. RECOGNITION_CPU has the CPU seconds of Python workers and their child processes; they
        are 0 with the engine sparknlp, which does not measure them. JOB_CPU has the CPU seconds of the whole job, including
        those of RECOGNITION_CPU; the key is missing if Spark does not report its CPU time.
    application_id: id of the Spark application or, with Spark Connect, of the session.
    log: path of this program's log file.
    plan: plan of a dry run; None for other runs.
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
    chars: int = 0
    cores: int = 0
    core_seconds: float = 0.0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    plan: Plan | None = None

    @property
    def sentences_per_second(self) -> float:
        """Sentences per wall-clock second of the run, including its preparation; 0 until `seconds["total"]` is recorded."""
        return self.sentences / self.seconds["total"] if self.seconds.get("total") else 0.0

    @property
    def core_hours(self) -> float:
        """Core-hours (hours times cores) that the run had used at the last `CostMeter.update`; 0 before the first update."""
        return self.core_seconds / 3600

    def add_idle_seconds(self, wall: float, spark: float | None) -> None:
        """Record core-seconds that no part of recognition (schemas.PARTS) used, in `seconds["spark"]` and `seconds["idle"]`.

        The core-seconds to divide between the two keys are `wall` times the number of cores, minus the seconds of the parts.

        Args:
            wall: wall-clock seconds in which documents were recognized.
            spark: CPU seconds of the driver and of Spark's tasks in this time; None if unknown.
        """
        rest = max(0.0, self.cores * wall - sum(self.seconds.get(part, 0.0) for part in schemas.PARTS))
        if spark is not None:
            self.seconds["spark"] = min(spark, rest)
        self.seconds["idle"] = rest - self.seconds.get("spark", 0.0)

    def start_waiting(self, holder: str) -> None:
        """Set the stage to `waiting`; `holder` describes the run that holds the lease (the right to write the output)."""
        self.stage, self.waiting = "waiting", holder

    def add_counts(self, rows: list[Row], *, ids_collected: bool = False) -> UnitIds:
        """Add a unit's counts to the summary; return the unit's smallest and greatest doc_id and, if collected, all ids.

        The result also says whether recognition of any document failed (crashed the tagger or made it hang). The
        characters of such documents are added to `chars`, but no other count includes them. Their ids are in the result.

        Args:
            rows: rows of `count_unit_results` for the unit.
            ids_collected: whether `rows` contains all ids of the unit; if not, `UnitIds.ids` is None.
        """
        found = {row["label"]: row for row in rows}
        documents = found.pop(None, None)
        if documents is None:
            return UnitIds()
        self.documents += documents["rows"] - documents["failed"]
        self.chars += documents["chars"] or 0
        self.sentences += documents["sentences"] or 0
        self.tokens += documents["tokens"] or 0
        self.split_sentences += documents["split_sentences"] or 0
        for stage in schemas.PARTS:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + (documents[f"{stage}_seconds"] or 0.0)
        self.cpu_seconds[RECOGNITION_CPU] = self.cpu_seconds.get(RECOGNITION_CPU, 0.0) + (documents["cpu_seconds"] or 0.0)
        for label in sorted(found):
            self.by_label[label] = self.by_label.get(label, 0) + found[label]["rows"]
        return UnitIds(
            documents["first"], documents["last"], documents["ids"] if ids_collected else None, documents["failed"] > 0
        )

    def build_row(self, settings: Settings, provenance: Provenance) -> RunRow:
        """Return the run's row in `runs`, with secrets in the settings masked.

        Columns such as status, ended_at and epoch (the number of a run that took the lease; higher is later) are not set:
        the caller, usually the class `Lease`, sets them.
        """
        counted = {name: getattr(self, name) for name in run_row.COLUMN_NAMES if hasattr(self, name)}
        about = {
            "mode": self.mode or None,
            "settings": json.dumps(settings.dump_masked()),
            "source": provenance.source,
            "source_version": provenance.source_version,
            "source_committed": provenance.source_committed,
            "slice": provenance.slice,
            "model": provenance.model,
            "fingerprint": provenance.fingerprint,
            "entities_by_label": self.by_label,
            "rejects": sum(self.rejects.values()),
        }
        return RunRow(**(counted | about))


def count_unit_results(recognized: DataFrame, *, collect_ids: bool) -> DataFrame:
    """Return a DataFrame of a unit's counts: one row with a null label for its documents, and one row for each label.

    `Summary.add_counts` adds the rows to the summary. In a row with a label, `rows` is the number of mentions with this
    label; the other columns have no meaning. The row with a null label has the number of documents in `rows`, and the
    smallest and greatest doc_id in `first` and `last`. Its column `failed` counts documents whose recognition failed. Its
    columns `chars`, `sentences`, `tokens`, `split_sentences` and `…_seconds` are sums over the documents.

    With `collect_ids`, the row with a null label lists the ids of all documents in `ids`; use this only for small units.
    """
    columns = ("chars", "sentences", "tokens", "split_sentences", *(f"{name}_seconds" for name in schemas.TIMES))
    # Count in one pass: each document becomes one row with a null label, and one row per mention with its label.
    labels = F.explode(F.concat(F.array(F.lit(None).cast("string")), F.col("mentions.label"))).alias("label")
    each = recognized.select("doc_id", F.col("failure").isNotNull().alias("failed"), *columns, labels)
    return each.groupBy("label").agg(
        F.count("*").alias("rows"),
        F.min("doc_id").alias("first"),
        F.max("doc_id").alias("last"),
        F.collect_list(F.when(F.lit(collect_ids) & F.col("label").isNull(), F.col("doc_id"))).alias("ids"),
        F.sum(F.col("failed").cast("long")).alias("failed"),
        *(F.sum(name).alias(name) for name in columns),
    )


class Clock:
    """A stopwatch that adds the wall-clock seconds of each stage to a summary; it starts when it is created."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._began = self._last = perf_counter()

    def lap(self, stage: str) -> None:
        """Add the seconds since the previous call, or since the start, to `seconds[stage]` of the summary, and log them."""
        now = perf_counter()
        self._summary.seconds[stage] = self._summary.seconds.get(stage, 0.0) + now - self._last
        log.info("stage %s took %.1f s", stage, now - self._last)
        self._last = now

    def record_total(self) -> None:
        """Set `seconds["total"]` of the summary to the time since the start."""
        self._summary.seconds["total"] = perf_counter() - self._began


def compute_scope(settings: Settings, identity: str, address: str) -> str:
    """Return a digest of the source table and of the settings that decide which documents a run processes.

    `identity` is the id that Delta gave the source table; empty if the source is not a Delta table. `address` is the result
    of `guards.locate_source`, which has the same spelling in each run.
    """
    about = {
        "source": {**settings.source.model_dump(mode="json"), "path": address},
        "table": identity,
        "slice": settings.output.replace_slice,
        # If a run ignored documents with an outdated fingerprint, a run with another value of the setting must process them.
        "ignoring": settings.incremental.on_fingerprint_change == "ignore",
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def compute_slice_digest(settings: Settings) -> str | None:
    """Return the digest of source.where if a run replaces a slice (the rows that source.where selects); otherwise None."""
    if not settings.output.replace_slice:
        return None
    return hashlib.sha256((settings.source.where or "").strip().encode()).hexdigest()[:16]
