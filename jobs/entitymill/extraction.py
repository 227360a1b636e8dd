"""One run: source -> documents -> sentences -> tokens -> tags -> mentions -> tables."""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from time import perf_counter
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill.errors import RejectedError
from entitymill.recognition import Recogniser, open_recogniser
from entitymill.settings import Settings
from entitymill.source import Source, open_source
from entitymill.tables import Stamp, Tables

log = logging.getLogger(__name__)
CHARS_PER_TASK = 250_000
"""Some 2,000 sentences: two windows of the tagger, and short enough that no core waits long for the last task."""
FEWEST_TASKS_PER_CORE, MOST_TASKS_PER_CORE = 2, 1000


@dataclass
class Summary:
    """What a run did, in numbers.

    by_label: label -> mentions.
    rejects: code -> rows.
    seconds: stage -> wall seconds; but `encoding` and `inference` are parts of recognition, summed over all workers, and
        `segmentation` is what is left of all cores' time in it: segmentation, the way to the workers and back, idling.
    """

    run_id: str
    started_at: datetime
    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    split_sentences: int = 0
    by_label: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def sentences_per_second(self) -> float:
        """Sentences over the wall seconds of the whole run, set-up included."""
        return self.sentences / self.seconds["total"] if self.seconds.get("total") else 0.0


def extract(spark: SparkSession, settings: Settings, *, dry_run: bool = False) -> Summary:
    """Run the job.

    Args:
        spark: a session that `session.check` found fit.
        settings: of this run.
        dry_run: check source and model, count, and write nothing; whether the output can be written is not tried.

    Raises:
        EntityMillError: of the kind that says what is wrong; nothing is published then.
    """
    started = datetime.now(timezone.utc)
    summary = Summary(uuid.uuid4().hex[:12], started)
    clock = _Clock(summary)
    tables = Tables(spark, settings.output)
    recogniser = open_recogniser(spark, settings)
    if not dry_run:
        tables.prepare()
    clock.lap("preparation")
    source = open_source(spark, settings.source)
    summary.rejects = {code: rows for code, rows in source.counts.items() if code}
    clock.lap("source")
    stamp = Stamp(summary.run_id, F.lit(started), recogniser.name, recogniser.fingerprint, source.version)
    if dry_run:
        summary.documents = source.counts.get("", 0)
        return summary
    try:
        tables.publish_rejects(source.rejects, stamp)
        _check_rejects(source, settings)
        _recognise_and_publish(spark, settings, recogniser, source, tables, stamp, summary, clock)
    except Exception:
        _record(tables, settings, summary, stamp, clock, "failed")
        raise
    _record(tables, settings, summary, stamp, clock, "done")
    return summary


def _record(tables: Tables, settings: Settings, summary: Summary, stamp: Stamp, clock: _Clock, status: str) -> None:
    """Add the run to `runs`; a failed run keeps its own error even where this fails too."""
    clock.total()
    try:
        tables.append_run(_run_row(settings, summary, stamp, status))
    except Exception:
        if status == "done":
            raise
        log.exception("the failed run could not be recorded")


def _check_rejects(source: Source, settings: Settings) -> None:
    ratio = source.rejected / source.rows if source.rows else 0.0
    allowed = settings.limits.max_reject_ratio
    if ratio > allowed:
        reasons = ", ".join(f"{rows} {code}" for code, rows in sorted(source.counts.items()) if code)
        raise RejectedError(
            f"{source.rejected} of {source.rows} rows of {settings.source.path} were refused ({reasons}), more than "
            f"limits.max_reject_ratio {allowed:g} allows: nothing was published; the rejects table lists the rows."
        )


def _recognise_and_publish(
    spark: SparkSession,
    settings: Settings,
    recogniser: Recogniser,
    source: Source,
    tables: Tables,
    stamp: Stamp,
    summary: Summary,
    clock: _Clock,
) -> None:
    documents = spread(spark, source, settings.spark.partitions)
    # Kept: both tables and the counts read it, and the model must run once.
    recognised = recogniser.recognise(documents).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        _count(recognised, summary)
        clock.lap("recognition")
        seconds, slots = summary.seconds, spark.sparkContext.defaultParallelism
        seconds["segmentation"] = max(0.0, slots * seconds["recognition"] - seconds["encoding"] - seconds["inference"])
        tables.publish(recognised, source.passthrough, stamp)
        clock.lap("writing")
    finally:
        recognised.unpersist()


def spread(spark: SparkSession, source: Source, partitions: int | None) -> DataFrame:
    """Spread documents over tasks by a hash of their id: the same on every try."""
    cores = spark.sparkContext.defaultParallelism
    wanted = min(source.chars // CHARS_PER_TASK, MOST_TASKS_PER_CORE * cores)
    return source.documents.repartition(partitions or max(wanted, FEWEST_TASKS_PER_CORE * cores), "doc_id")


def _count(recognised: DataFrame, summary: Summary) -> None:
    columns = ["sentences", "tokens", "split_sentences", "encoding_seconds", "inference_seconds"]
    sums = recognised.agg(F.count("*").alias("documents"), *(F.sum(c).alias(c) for c in columns)).collect()[0]
    summary.documents = sums["documents"]
    summary.sentences = sums["sentences"] or 0
    summary.tokens = sums["tokens"] or 0
    summary.split_sentences = sums["split_sentences"] or 0
    for stage in ("encoding", "inference"):
        summary.seconds[stage] = sums[f"{stage}_seconds"] or 0.0
    labels = recognised.select(F.explode("mentions.label").alias("label")).groupBy("label").count()
    summary.by_label = {row["label"]: row["count"] for row in labels.orderBy("label").collect()}


def _run_row(settings: Settings, summary: Summary, stamp: Stamp, status: str) -> dict[str, Any]:
    return {
        "run_id": summary.run_id,
        "started_at": summary.started_at,
        "ended_at": datetime.now(timezone.utc),
        "status": status,
        "settings": json.dumps(settings.masked()),
        "source": settings.masked()["source"]["path"],
        "source_version": stamp.source_version,
        "model": stamp.model,
        "fingerprint": stamp.fingerprint,
        "entities_by_label": summary.by_label,
        "documents": summary.documents,
        "sentences": summary.sentences,
        "rejects": sum(summary.rejects.values()),
        "seconds": summary.seconds,
        "sentences_per_second": summary.sentences_per_second,
    }


class _Clock:
    """Wall seconds per stage."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._began = self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self._summary.seconds[stage] = now - self._last
        log.info("%s took %.1f s", stage, now - self._last)
        self._last = now

    def total(self) -> None:
        self._summary.seconds["total"] = perf_counter() - self._began
