"""Run the job: find new and changed documents in the source, find their mentions, and write the tables."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone

from pyspark.sql import SparkSession

from entitymill.errors import EntityMillError, OutputError, SettingsError, StorageError
from entitymill.run import dry_runs, exit_codes, guards
from entitymill.run.steps_under_lease import Options, Run
from entitymill.run.summary import Clock, Summary
from entitymill.run_row import RunRow
from entitymill.settings import Settings
from entitymill.source.changes import Mode
from entitymill.spark import spark_connect, storage
from entitymill.spark.private_session import open_private_session, override_conf
from entitymill.spark.session import ADAPTIVE
from entitymill.tables import Tables, output_tables, table_setup
from entitymill.tables.heartbeats import Heartbeat
from entitymill.tables.lease import Lease, describe_process
from entitymill.tables.publisher import Provenance
from entitymill.tables.runs import Runs
from entitymill.workers.engine_choice import Engine, open_engine

log = logging.getLogger(__name__)
SMALL_BYTES = 64_000_000
"""Maximum size of a source, in bytes, that a run processes with the Spark properties in SMALL_QUERIES."""
SMALL_QUERIES = {
    # With few rows, adaptive execution (one Spark job per shuffle) and compiling queries would take half of the time.
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
    """Run the job: bring the output up to date with the source, processing only what has changed, and return a summary.

    Args:
        spark: session that the caller has checked with `session.check_session`. Its Spark properties are the same
            after the call.
        full: whether to recompute every document, even if nothing changed.
        dry_run: whether to only plan the run and write nothing; the plan is in `Summary.plan`.
        allow_removals: whether the run may remove a larger share of documents than limits.max_removed_ratio.
        watch: function that is called once, with the summary, before the work begins. The run keeps this summary up to date,
            so the function can, for example, start a display of the run's progress.
        log_path: path of this program's log file, to record in the run's row of `runs`; None if there is no log file.

    Raises:
        EntityMillError: the run failed; the subclass tells why. Other errors, such as Spark's, may be raised, too. In any
            case, units that are already published stay published.
    """
    if full and settings.output.replace_slice:
        raise SettingsError(
            "--full recomputes every document of the output, so it cannot be combined with output.replace_slice. Leave out "
            "one of the two."
        )
    spark_connect.check_output_supported(spark, settings.output)
    storage.forget_configuration(spark)
    summary = Summary(uuid.uuid4().hex[:12], datetime.now(timezone.utc))
    summary.application_id, summary.log = spark_connect.get_session_id(spark), log_path
    watch(summary)
    clock = Clock(summary)
    options = Options(full=full, allow_removals=allow_removals)
    large_source_confs = {key: str(spark.conf.get(key)) for key in SMALL_QUERIES}
    confs = {**output_tables.build_write_confs(settings.output), **({} if dry_run else SMALL_QUERIES)}
    with open_private_session(spark, settings.source.time_zone, confs) as own:
        engine = open_engine(own, settings)
        tables = Tables(own, settings.output)
        if dry_run:
            dry_runs.plan_run(own, settings, summary, tables, engine, full=full, allow_removals=allow_removals)
        else:
            _run_or_record_idle(own, settings, summary, clock, engine, tables, large_source_confs, options)
    summary.stage = "done"
    return summary


def _run_or_record_idle(
    spark: SparkSession,
    settings: Settings,
    summary: Summary,
    clock: Clock,
    engine: Engine,
    tables: Tables,
    large_source_confs: Mapping[str, str],
    options: Options,
) -> None:
    """Take the lease (the right to write the output) and run the job; if nothing has changed, only record an idle run.

    If the run fails after it took the lease, log the error, write its message and exit code to the summary, and raise it. An
    error that explains the failure better may be raised instead (see `_find_reason`).

    `large_source_confs` has the caller's values of the Spark properties in SMALL_QUERIES. The source is processed with these
    values, unless it is known to have at most SMALL_BYTES.
    """
    # Read `runs` before the source. If another run begins in between, this run notices it when it takes the lease, and then
    # opens the source again.
    runs = Runs(tables)
    record = guards.read_runs_record(tables, runs)
    source, provenance = guards.open_checked_source(spark, settings, summary, engine, record.owner)
    table_setup.check_writable(tables)
    clock.lap("preparation")
    if not options.full and guards.has_nothing_to_do(record, tables, summary, provenance, source):
        _record_idle(runs, tables, settings, provenance, summary, clock)
        return

    def build_row() -> RunRow:
        clock.record_total()
        return summary.build_row(settings, provenance)

    table_setup.check_tables_to_write(tables)
    if options.full:
        summary.mode = Mode.FULL  # written to `runs` at the start: if this run is killed, the next one continues it
    with Lease(tables, settings.limits, summary.run_id, build_row, record, summary.start_waiting) as lease:
        summary.started_at = lease.started
        run = None
        if summary.waiting:
            clock.lap("waiting")
        try:
            if lease.earlier_runs.latest != record.latest or not lease.earlier_runs.certain:
                # Another run has begun meanwhile, and may have read a newer version of the source: open the source again.
                tables.forget()
                source, provenance = guards.open_checked_source(spark, settings, summary, engine, lease.earlier_runs.owner)
            provenance = replace(provenance, started_at=summary.started_at)
            run = Run(spark, settings, provenance, summary, clock, tables, lease, source, engine, options)
            small = source.size is not None and source.size <= SMALL_BYTES
            with override_conf(spark, {} if small else large_source_confs):
                run.execute()
            summary.exit_code, summary.stage = 0, "done"
            lease.end("done")
        except BaseException as error:
            reason = _find_reason(error, lease)
            if isinstance(reason, StorageError):
                lease.commits.stop_retrying()
            summary.error, summary.exit_code = exit_codes.describe_error(reason)
            log.info(exit_codes.RUN_FAILED, summary.run_id, summary.error)
            if run is not None:
                run.record_versions()
                with suppress(Exception):
                    run.meter.update()
            if reason is error:
                raise
            raise reason from error


def _find_reason(error: BaseException, lease: Lease) -> BaseException:
    """Return the error that explains why a run failed; `error` is the error that the run raised.

    An EntityMillError or KeyboardInterrupt is returned unchanged. For any other error, the result is a StorageError if the
    storage failed, an OutputError if another run took over the lease, and otherwise `error` itself. If the lease cannot be
    checked, the error of that check is only logged.
    """
    if not isinstance(error, Exception) or isinstance(error, EntityMillError):
        return error
    known = exit_codes.convert_error(error)
    if isinstance(known, StorageError):
        return known
    try:
        lease.check_now()
    except OutputError as lost:
        return lost
    except Exception:
        log.exception("the run failed, and the check whether another run took over the output failed, too")
    return error


def _record_idle(
    runs: Runs, tables: Tables, settings: Settings, provenance: Provenance, summary: Summary, clock: Clock
) -> None:
    """Append the row of an idle run (a run with nothing to do) to `runs`; set the summary's mode, stage and exit code.

    The settings in the row lack `source.where`, which may contain ids of documents.

    If the output is in a directory (not in a catalog schema), first write a heartbeat file, and look for heartbeat files of
    other runs. If another run is alive, append no row, and log this.
    """
    summary.mode, summary.stage, summary.exit_code = Mode.NONE, "done", 0
    clock.record_total()
    # Leave out `source.where`, which may contain ids of documents: `erase` does not wait for idle runs, so it could miss ids
    # in this row.
    shown = settings.model_copy(update={"source": settings.source.model_copy(update={"where": None})})
    row = replace(summary.build_row(shown, provenance), ended_at=datetime.now(timezone.utc), status="done")
    if tables.root is None:
        runs.append_idle(row)
        return
    heartbeat = Heartbeat(tables, summary.run_id, settings.limits.lease_seconds)
    try:
        heartbeat.beat(RunRow(summary.run_id, process=describe_process(settings.limits.lease_seconds)))
        if heartbeat.read_other_runs():
            log.info("nothing to do; this run gets no row in the `runs` table, because another run is working on the output")
        else:
            runs.append_idle(row)
    finally:
        heartbeat.stop()
