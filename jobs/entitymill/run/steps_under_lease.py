"""Run the steps for which a run must hold the lease (the right to write the output).

The steps prepare the tables, find what changed in the source, publish mentions, and compact the tables' files.
"The table protocol" in docs/decisions.md explains the order of the steps.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.run import crashing_documents, guards, work_units
from entitymill.run.core_hours import CostMeter
from entitymill.run.crashing_documents import FailureRecorder
from entitymill.run.recognition_ahead import BusySeconds, UnitInRecognition, recognize_ahead
from entitymill.run.summary import RECOGNIZING_SECONDS, Clock, Summary
from entitymill.run.work_units import UnitSizes
from entitymill.settings import Settings
from entitymill.source import changes
from entitymill.source.changes import Changes, Mode
from entitymill.source.reader import Source
from entitymill.spark import spark_connect
from entitymill.spark.private_session import keep_process_state
from entitymill.tables import (
    Tables,
    maintenance,
    output_tables,
    parquet_export,
    recovery,
    table_setup,
    temporary_tables,
)
from entitymill.tables.lease import Lease
from entitymill.tables.numbered_commits import retry
from entitymill.tables.publisher import Provenance, Publisher, RejectsWriter, Unit
from entitymill.tables.temporary_tables import TemporaryTable
from entitymill.workers.engine_choice import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Options of one run that are not settings.

    full: whether to recompute every document, even if nothing changed.
    allow_removals: whether the run may remove a larger share of documents than limits.max_removed_ratio.
    """

    full: bool = False
    allow_removals: bool = False


@dataclass
class Run:
    """The part of a run for which the run must hold the lease (the right to write the output).

    The caller must call `execute` once, inside `with lease`.

    provenance: values that show from which run, model and source version a row of the output comes.
    summary: summary of the run, which `execute` updates.
    clock: stopwatch of the run.
    tables: tables of the output.
    engine: model and sentence detector.
    """

    spark: SparkSession
    settings: Settings
    provenance: Provenance
    summary: Summary
    clock: Clock
    tables: Tables
    lease: Lease
    source: Source
    engine: Engine
    options: Options

    def __post_init__(self) -> None:
        """Take `commits` and `earlier_runs` from the lease, and create helper objects; no table is read or written.

        `units` is a temporary table for the texts of all units. `meter` measures the run's costs from now on. `execute` sets
        `versions_before`, the tables' versions at the start, and `trusted`, whether the tables needed no repair.
        """
        self.commits = self.lease.commits
        self.earlier_runs = self.lease.earlier_runs
        self.units = TemporaryTable(self.tables, self.lease.epoch)
        self.versions_before: dict[str, int] = {}
        self.trusted = False
        self.meter = CostMeter(self.spark, self.summary, self.clock, self.settings.limits.max_core_hours)

    def execute(self) -> None:
        """Create missing tables, find what changed in the source, and publish the mentions of new and changed documents.

        These are steps 3 to 6 of "The table protocol" in docs/decisions.md; `Lease` performs the other steps.

        Raises:
            RejectedError: too many documents would be removed; nothing is published. Or too many rows are rejected; only
                these rows are written, to `rejects`. Or too many documents of a unit crash the tagger or make it hang;
                earlier units stay published.
            LimitError: the run reached limits.max_core_hours; it has published its finished units.
            OutputError: a table check failed, `incremental.on_fingerprint_change` refuses the run, or another run took over.
        """
        self.summary.stage = "source"
        self.trusted = self._prepare_tables()
        found = self._find_changes()
        self.summary.mode = found.mode
        self.summary.rejects = dict(found.reject_counts)
        cores, speed = spark_connect.count_cores(self.spark), work_units.read_speed(self.earlier_runs.last)
        sizes = work_units.choose_sizes(self.settings.limits, cores, speed)
        self.summary.units = work_units.count_units(found, sizes)
        self.summary.planned = found.to_recognize
        with contextlib.closing(self.units), contextlib.closing(found):
            if not self.options.allow_removals and not guards.exceeds_reject_ratio(self.settings, found):
                # Rejected documents are also removed. So if too many rows are rejected, report only the rejected rows.
                guards.check_removals(self.settings, self.tables, found, self.provenance.slice)
            failures = self._write_rejects(found)
            guards.check_rejects(self.settings, found)
            self.clock.lap("source")
            self._publish(found, sizes, failures)
        self._finish()
        self.meter.raise_if_stopped()

    def _prepare_tables(self) -> bool:
        """Create missing tables, and repair the tables if an earlier run may have left its changes incomplete.

        First remove temporary tables of earlier runs. If an earlier run died while it replaced the Parquet export, move the
        previous export back. Also store the versions of existing tables in `versions_before`.

        Return True if the tables need no repair: earlier runs completed all their changes, no table was missing, and no
        other program has changed rows. Also return True in the first run, if no table existed. In all other cases, repair
        the tables, and return False. A run with --full always repairs existing tables.

        Raise OutputError if a check of the tables fails, or a later run has written to a table.
        """
        tables, earlier = self.tables, self.earlier_runs
        temporary_tables.remove_leftovers(tables, self.lease.epoch)
        guards.check_slice_tables(tables, self.provenance.slice)
        table_setup.check_passthrough_types(tables, self.source.passthrough)
        if tables.exported:
            parquet_export.restore_previous(tables)
        tables_existed = any(tables.exists(name) for name in output_tables.PUBLISHED_TABLES)
        first_run = earlier.latest is None
        created = recovery.create_missing(tables, self._build_schemas())
        # An older run may still create a table after this line and write to it, so the table's version must not be recorded.
        existing = [name for name in output_tables.DOCUMENT_TABLES if tables.exists(name)]
        self.versions_before = recovery.read_versions(tables, existing)
        settled = not self.options.full and not created and earlier.settled
        settled = settled and recovery.tables_unchanged_since(tables, earlier.latest)
        if first_run and not tables_existed and earlier.certain:
            settled = True
        if not settled:
            recovery.settle(tables, self.commits)
        self.commits.earlier_runs_settled = True
        return settled

    def _build_schemas(self) -> dict[str, T.StructType]:
        """Return a dict from table name to column schema, for each table that this run writes, except `runs`."""
        chosen = {
            "entities": schemas.entities_schema(self.source.passthrough),
            "documents": schemas.DOCUMENTS,
            "rejects": schemas.REJECTS,
        }
        return {**chosen, "annotations": schemas.ANNOTATION_TABLE} if self.settings.output.annotations else chosen

    def _find_changes(self) -> Changes:
        """Return what the run must change so that the output fits the source: documents to process or remove, and the mode.

        If the table `documents` is empty, the run processes all valid rows of the source. Otherwise,
        `guards.find_changes` compares the source with this table.
        """
        tables, full = self.tables, self.options.full
        if tables.is_empty("documents"):
            return changes.select_all_documents(self.source, Mode.FULL if full else Mode.FIRST)
        published = tables.read_latest("documents")
        return guards.find_changes(
            self.settings,
            tables,
            self.source,
            self.provenance,
            self.earlier_runs,
            self.summary,
            published,
            full=full,
            trusted=self.trusted,
        )

    def _write_rejects(self, found: Changes) -> FailureRecorder:
        """Replace rows of `rejects` by the source's rejected rows; return a recorder for documents that crash the tagger.

        If the run compared only rows with certain ids, only the rows of `rejects` with these ids are replaced. If the run
        replaces a slice (the rows that source.where selects), only rows of the slice are replaced.
        """
        before = crashing_documents.read_known_failures(self.tables)
        rejects = RejectsWriter(self.tables, self.commits, self.provenance)
        if found.compared_ids is None:
            rejects.replace_all(found.rejected, any_rejected=bool(found.reject_counts))
        else:
            rejects.replace_for_ids(
                found.compared_ids, found.rejected, any_rejected=bool(found.reject_counts), any_stale=found.stale_rejects > 0
            )
        return FailureRecorder(self.spark, self.settings, self.summary, rejects, before)

    def _publish(self, found: Changes, sizes: UnitSizes, failures: FailureRecorder) -> None:
        """Publish the units of work, until limits.max_core_hours is reached; count their documents in the summary.

        A unit's documents are recognized first; some units only remove documents. If the run has nothing to recognize, no
        model is loaded. After the last unit, a run that replaces a slice (the rows that source.where selects) assigns
        `found.adopted` to its slice: unchanged documents that had another slice or none. A run that replaces the whole
        output, and was not stopped by the limit, sets the slice of all documents to null.

        Args:
            found: what the run must change.
            sizes: maximum size of a unit, and size of a Spark task.
            failures: recorder for documents that crash the tagger or make it hang.
        """
        publisher = Publisher(
            self.tables, self.commits, self.provenance, self.source.passthrough, annotations=self.settings.output.annotations
        )
        recognize = self.engine.load() if found.to_recognize else lambda documents: documents
        self.summary.removed = found.to_remove

        def recognize_unit(unit: work_units.PlannedUnit) -> DataFrame:
            """Return a lazy DataFrame of a unit's results."""
            split = self.settings.spark.partitions
            documents = work_units.repartition_unit(
                self.spark, unit, sizes.task_chars, split, drop_duplicates=not self.source.is_pinned
            )
            with keep_process_state():
                recognized = recognize(documents)
            # Make the query plan unique: Spark must not use rows that another run cached from older files of the path.
            return recognized.withColumn("run_id", F.lit(self.provenance.run_id))

        busy, spark_before = BusySeconds(), self.meter.read_spark_seconds()
        # If cached rows are lost, Spark rereads the source. If that has changed, a unit would mix old and new rows.
        store = not self.source.is_pinned and not spark_connect.keeps_caches(self.spark)
        planned_units = work_units.split_work(found, sizes, always_store=store, write=self.units.write)
        split_work = self.meter.limit_units(planned_units)
        open_results = partial(TemporaryTable, self.tables, self.lease.epoch)
        with contextlib.closing(recognize_ahead(self.spark, split_work, recognize_unit, open_results)) as ahead:
            for unit in ahead:
                if isinstance(unit, UnitInRecognition):
                    self._publish_unit(unit, publisher, failures)
                    busy.add(unit.action)
                    self.summary.seconds[RECOGNIZING_SECONDS] = busy.seconds
                elif unit.removed is not None:
                    self.lease.check_if_due()
                    publisher.remove(unit.removed)
                self.clock.lap("writing")
        self.meter.update()
        spark_after = self.meter.read_spark_seconds()
        spark = None if spark_before is None or spark_after is None else spark_after - spark_before
        self.summary.add_idle_seconds(busy.seconds, spark)
        if found.to_adopt:
            publisher.move_to_slice(found.adopted)
        # If the run stopped early, documents that it has not removed keep their slices: runs on these slices remove them.
        # If the tables cannot be trusted, `runs` may have lost rows, and `sliced` may be wrong. Perhaps the last run noticed
        # this, but ended before it cleared the slices.
        last = self.earlier_runs.last
        last_ended_early = last is not None and last.status != "done"
        may_have_slices = self.earlier_runs.sliced or not self.trusted or last_ended_early
        if self.provenance.slice is None and may_have_slices and not self.meter.stopped:
            publisher.clear_slices()
        self.summary.units = self.summary.units_done  # with few, large documents, some planned units are empty

    def _publish_unit(self, unit: UnitInRecognition, publisher: Publisher, failures: FailureRecorder) -> None:
        """Wait until a unit is recognized, publish its documents, and count it in the summary.

        Documents that crashed the tagger or made it hang are rejected instead, and removed from the output. If there are too
        many of them, raise RejectedError. If another run took over, raise OutputError.
        """
        self.summary.stage = "recognition"
        doc_ids = self.summary.add_counts(unit.wait(), ids_collected=unit.lists_ids)
        self.clock.lap("recognition")
        self.summary.stage = "writing"
        work, recognized = unit.work, unit.recognized
        removed = work.removed
        if not doc_ids.some_failed:
            healthy = crashing_documents.exclude_failed(recognized, [])
        else:
            healthy, failed = failures.record(recognized, work)
            if work.in_output:
                removed = failed if removed is None else removed.select("doc_id").unionByName(failed)
        self.lease.check_if_due()
        publisher.publish(Unit(healthy, work.in_output, doc_ids, removed))
        self.summary.units_done += 1

    def _finish(self) -> None:
        """Compact small files, update an outdated Parquet export, and record the tables' versions and the run's costs."""
        retry("files", lambda: maintenance.compact_small_files(self.tables))
        if self.tables.exported and not parquet_export.is_current(self.tables):
            parquet_export.export(self.tables, self.lease.epoch, self.lease.check_now)
        self.record_versions()
        self.clock.lap("writing")
        self.meter.update()

    def record_versions(self) -> None:
        """Record the tables' versions in the summary, unless another program has changed the tables' rows during this run.

        Errors are ignored. Without versions, the next run checks and compares all documents.
        """
        with contextlib.suppress(Exception):
            found = recovery.read_versions_if_undisturbed(self.tables, self.versions_before, self.commits)
            self.summary.output_versions = found
