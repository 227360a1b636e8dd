"""One run: source -> changes -> documents -> sentences -> tokens -> tags -> mentions -> tables, unit by unit."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill.engines.engine import Engine, open_engine
from entitymill.errors import SettingsError, StorageError
from entitymill.platform import spark_connect, storage
from entitymill.platform.session import ADAPTIVE, calendars, configured, in_turn
from entitymill.run import dry_runs, failed_documents, guards, outcome, units
from entitymill.run.failed_documents import Failures
from entitymill.run.summary import Clock, Summary
from entitymill.settings import Settings
from entitymill.source import change_feed, changes
from entitymill.source.changes import Changes
from entitymill.source.reader import Source
from entitymill.tables import Stamp, Tables, table_setup
from entitymill.tables.commits import retried
from entitymill.tables.lease import Lease, claim_of
from entitymill.tables.publisher import FEW, Publisher, Rejects, Unit, adopt, take_back
from entitymill.tables.runs import Runs
from entitymill.tables.staging import Staging
from entitymill.tables.temporary_tables import Kept, given_back

log = logging.getLogger(__name__)
SMALL_BYTES = 64_000_000
"""Of a source: up to here the run is many small queries."""
SMALL_QUERIES = {
    # Planning anew after each shuffle makes a job of each, and compiling takes longer than the rows: half of a run's time.
    ADAPTIVE: "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


def extract(
    spark: SparkSession,
    settings: Settings,
    *,
    full: bool = False,
    dry_run: bool = False,
    allow_removals: bool = False,
    watch: Callable[[Summary], object] = lambda _: None,
    log_path: str | None = None,
) -> Summary:
    """Run the job: bring the output up to the source, and touch what is as it should be no more than needed.

    Args:
        spark: a session that `session.check` found fit; of several runs in one session each waits for the one before.
        full: process everything anew, and swap it in when it is done.
        dry_run: find out what there is to do, and write nothing: see `plan`.
        allow_removals: take out as many documents as the source has no more, whatever limits.max_removed_ratio says.
        watch: is given the summary before any work, to look at while it fills.
        log_path: of this program's log, for the record.

    Raises:
        EntityMillError: of the kind that says what is wrong; of the units that were not published yet nothing is then.
    """
    if full and settings.output.replace_slice:
        raise SettingsError("--full makes the whole output anew: it does not go with output.replace_slice.")
    spark_connect.check(spark, settings.output)
    storage.forget(spark)
    summary = Summary(uuid.uuid4().hex[:12], datetime.now(timezone.utc))
    summary.application_id, summary.log = spark_connect.session_id(spark), log_path
    watch(summary)
    clock = Clock(summary)
    engine = open_engine(spark, settings)
    tables = Tables(spark, settings.output)
    with in_turn(spark):
        own = {key: str(spark.conf.get(key)) for key in SMALL_QUERIES}
        with configured(spark, {**calendars(spark), **tables.confs(), **({} if dry_run else SMALL_QUERIES)}):
            if dry_run:
                dry_runs.make(spark, settings, summary, tables, engine, full=full, allow_removals=allow_removals)
            else:
                _bring_up(spark, settings, summary, clock, engine, tables, own, full=full, allow_removals=allow_removals)
    summary.stage = "done"
    return summary


def _bring_up(
    spark: SparkSession,
    settings: Settings,
    summary: Summary,
    clock: Clock,
    engine: Engine,
    tables: Tables,
    own: Mapping[str, str],
    *,
    full: bool,
    allow_removals: bool,
) -> None:
    # Before the source: a run that comes and goes in between is seen under the lease, and the source is looked at again.
    runs = Runs(tables)
    seen = guards.seen(tables, runs)
    source, stamp = guards.opened(spark, settings, summary, engine, seen.owner)
    table_setup.check_place(tables)
    clock.lap("preparation")
    if not full and guards.nothing_new(seen.last, tables, summary, stamp, source):
        _idle(runs, tables, settings, stamp, summary, clock)
        return

    def row() -> dict[str, Any]:
        clock.total()
        return summary.row(settings, stamp)

    table_setup.check_ours(tables)
    with Lease(tables, settings.limits, summary.run_id, row, seen, summary.wait) as lease:
        summary.started_at = lease.started
        try:
            if lease.before.last != seen.last:
                # Another run came between, perhaps with a newer version of the source: an older one must not follow.
                tables.forget()
                source, stamp = guards.opened(spark, settings, summary, engine, lease.before.owner)
            stamp = replace(stamp, started_at=summary.started_at)
            run = _Run(spark, settings, stamp, summary, clock, tables, lease, source, engine, allow_removals=allow_removals)
            small = source.size is not None and source.size <= SMALL_BYTES
            with configured(spark, {} if small else own):
                run.go(full=full)
            lease.check()
        except BaseException as error:
            if isinstance(outcome.known(error), StorageError):
                lease.commits.try_once()
            summary.error, summary.exit_code = outcome.told(error)
            raise
        summary.exit_code, summary.stage = 0, "done"
        lease.end("done")


def _idle(runs: Runs, tables: Tables, settings: Settings, stamp: Stamp, summary: Summary, clock: Clock) -> None:
    summary.mode, summary.stage, summary.exit_code = "none", "done", 0
    clock.total()
    claim = claim_of(tables, settings.limits, summary.run_id)
    if claim is not None and not claim.take():
        log.info("nothing to do, and not recorded: another run is at work")
        return
    try:
        runs.idle(summary.row(settings, stamp) | {"ended_at": datetime.now(timezone.utc), "status": "done"})
    finally:
        if claim is not None:
            claim.release()


@dataclass
class _Run:
    """A run that holds the lease."""

    spark: SparkSession
    settings: Settings
    stamp: Stamp
    summary: Summary
    clock: Clock
    tables: Tables
    lease: Lease
    source: Source
    engine: Engine
    _: KW_ONLY
    allow_removals: bool

    def __post_init__(self) -> None:
        """The lease is taken."""
        self.commits, self.last = self.lease.commits, self.lease.before.last
        self.kept = Kept(self.tables)

    def go(self, *, full: bool) -> None:
        self.summary.stage = "source"
        staging = Staging(self.tables, self.lease)
        staging.settle()
        trusted = take_back(self.tables, self.commits, self.last, self.lease.before.done)
        guards.check_other_slices(self.tables, self.stamp.slice, trusted=trusted)
        if self.last is not None and self.last["status"] != "done":
            self.kept.drop()
        table_setup.check_types(self.tables, self.source.passthrough)
        whole = full or (self.tables.parquet and not self.tables.complete())
        collecting = whole or self.tables.parquet
        publisher = self._publisher(staging, whole=whole) if collecting else None
        known = self._known(staging if collecting else None) if trusted else None
        found = self._changes(known, full=full)
        self.summary.mode, self.summary.rejects = found.mode, dict(found.counts)
        self.summary.units, self.summary.planned = units.wanted(found, self.settings.limits), found.to_recognise
        with given_back(found.close, self.kept.close):
            # Where too much is refused, that is what is said, and `rejects` lists it: refused documents go out, too.
            if not self.allow_removals and not guards.refused_too_many(self.settings, found):
                anew, collected = whole or found.mode == "first", known if whole else None
                guards.check_removals(self.settings, self.tables, found, self.stamp.slice, whole=anew, collected=collected)
            before = failed_documents.listed(self.tables)
            rejects = Rejects(self.tables, self.commits, self.stamp)
            failed = Failures(self.spark, self.settings, self.summary, rejects, before)
            if found.whole:
                rejects.replace(found.refused, some=bool(found.counts))
            guards.check_rejects(self.settings, found)
            self.clock.lap("source")
            recognise = self.engine.load() if found.to_recognise else lambda documents: documents
            publisher = publisher or self._publisher(None, whole=False)
            if found.mode == "first" and not collecting and not publisher.fresh:
                publisher.clear()
            self._publish(found, recognise, publisher, failed, tombstones=collecting and not whole)
        if collecting:
            staging.finish()
        if self.stamp.slice is None and self.lease.before.sliced:
            adopt(self.tables, self.commits)
        retried("files", self.tables.compact)
        self.clock.lap("writing")

    def _publisher(self, staging: Staging | None, *, whole: bool) -> Publisher:
        passthrough, annotations = self.source.passthrough, self.settings.output.annotations
        if staging is not None:
            return staging.open(self.stamp, passthrough, whole=whole, annotations=annotations)
        return Publisher(self.tables, self.commits, self.stamp, passthrough, annotations=annotations)

    def _known(self, staging: Staging | None) -> DataFrame | None:
        """What the output holds of each document; none where it holds nothing."""
        if staging is None:
            held = self.tables.complete() and not self.tables.empty("documents")
            return self.tables.read_as_it_is("documents") if held else None
        known = staging.known()
        return known if known.take(1) else None

    def _changes(self, known: DataFrame | None, *, full: bool) -> Changes:
        if known is None:
            return changes.everything(self.source, "full" if full else "first")
        how = "reprocess" if full else self.settings.incremental.on_fingerprint_change
        policy = changes.Policy(self.stamp.fingerprint, how, self.stamp.slice)
        changes.check_fingerprints(known, policy)
        if not full and guards.continues(self.last, self.tables, self.summary, self.stamp, self.source):
            found = self._told(known, policy)
            if found is not None:
                return found
        found = changes.compared(self.source, known, policy)
        return replace(found, mode="full") if full else found  # the rest of one that died

    def _told(self, known: DataFrame, policy: changes.Policy) -> Changes | None:
        """What Delta says has changed since the last run, if it can tell."""
        before = self.last.source_version if self.last is not None else ""
        told = change_feed.since(self.spark, self.source, before, self.kept.arrived)
        if told is None:
            return None
        refused = None if self.tables.empty("rejects") else self.tables.read_as_it_is("rejects")
        return changes.told(self.source, told, known, refused, policy)

    def _publish(
        self,
        found: Changes,
        recognise: Callable[[DataFrame], DataFrame],
        publisher: Publisher,
        failed: Failures,
        *,
        tombstones: bool,
    ) -> None:
        # Removed documents go with the first unit: the fewer commits, the better.
        removed = found.removed if found.to_remove else None
        self.summary.removed = found.to_remove
        for piece in units.cut(found, self.settings.limits, self.kept.units):
            self.summary.stage = "recognition"
            documents = units.spread(self.spark, piece, self.settings.spark.partitions, once=not self.source.pinned)
            # Kept: all tables and the counts read it, and the model must run once. Spark hands out what is kept of an equal
            # plan: of another run in this process, perhaps of older files of the same path. So the plan names the run.
            recognised = recognise(documents).withColumn("run_id", F.lit(self.stamp.run_id))
            recognised = recognised.persist(StorageLevel.MEMORY_AND_DISK)
            try:
                few = piece.rows <= FEW and (piece.known or removed is not None)
                counted = self.summary.count(recognised, names=few)
                self.clock.lap("recognition")
                self.summary.stage = "writing"
                healthy = failed_documents.without(recognised, [])
                if counted.some_failed:
                    healthy, lost = failed.take(recognised, piece)
                    if piece.known:
                        removed = lost if removed is None else removed.select("doc_id").unionByName(lost)
                self.lease.check()
                publisher.publish(Unit(healthy, piece.known, counted), removed, tombstones=tombstones)
                removed = None
                self.summary.units_done += 1
                self.clock.lap("writing")
            finally:
                recognised.unpersist()
        self.summary.units = self.summary.units_done  # few large documents may leave some empty
        if removed is not None:
            publisher.remove(removed, tombstones=tombstones)
            self.clock.lap("writing")
        seconds = self.summary.seconds
        spent = seconds.get("encoding", 0.0) + seconds.get("inference", 0.0)
        seconds["segmentation"] = max(0.0, spark_connect.cores(self.spark) * seconds.get("recognition", 0.0) - spent)
