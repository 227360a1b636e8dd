"""Do a dry run: count what a run would do, and estimate how long it would take, without writing any table.

A dry run makes all the checks that a real run makes before the model is loaded. The estimate is based on earlier runs.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.run import guards
from entitymill.run.guards import find_changes
from entitymill.run.summary import RECOGNIZING_SECONDS, Summary
from entitymill.run.work_units import choose_sizes, count_units, read_speed
from entitymill.run_row import RunRow
from entitymill.settings import Settings
from entitymill.source import changes
from entitymill.source.changes import Changes, Mode
from entitymill.source.rows_against_output import Cause
from entitymill.spark import spark_connect, storage
from entitymill.tables import Tables, recovery, table_setup
from entitymill.tables.runs import Runs, collect_rows
from entitymill.workers.engine_choice import Engine

_RESULT_SETTINGS = {
    **dict.fromkeys(("segmentation", "model", "recognition", "mentions", "entities"), ()),
    "source": ("passthrough", "markup"),
    "output": ("annotations",),
}
"""Settings that affect results: a dict from the name of each section to the names of these settings in the section. An empty
tuple means all settings of the section. Sections without such settings are not in the dict."""
CORE_SECONDS_PER_PART_SECOND = 1.15
"""Factor by which an estimate multiplies the measured seconds of the parts of recognition (schemas.PARTS), to get the
core-seconds of recognition. It is greater than 1, because Spark also shuffles rows, which no part measures.
tests/bench/estimates.py compares estimates with runs."""
_MAX_RUNS = 20
"""An estimate uses at most this many runs: the latest ones."""


@dataclass(frozen=True)
class Plan:
    """Numbers that describe what a run would do.

    new: number of documents to recognize that are not in the output.
    changed: number of documents to recognize again; `causes` says why.
    removed, unchanged: numbers of documents in the output that would be removed, and that would not change.
    refused: for each reject code, the number of rows that would be rejected.
    units: number of units of work (documents that are published together).
    causes: number of changed documents for each Cause (reason why a document counts as changed); each has one Cause.
    changed_settings: names of settings, such as `model.path`, that have changed, so that documents must be recomputed.
    hours, core_hours: estimated wall-clock hours, and these hours multiplied by the number of cores. None if there is no
        earlier run on which to base the estimate.
    same_model: whether the estimate is based on a run with the same model and settings; also True without an estimate.
    """

    new: int
    changed: int
    removed: int
    unchanged: int
    refused: dict[str, int]
    units: int
    hours: float | None
    core_hours: float | None
    causes: dict[str, int] = field(default_factory=dict)
    changed_settings: tuple[str, ...] = ()
    same_model: bool = True


def plan_run(
    spark: SparkSession,
    settings: Settings,
    summary: Summary,
    tables: Tables,
    engine: Engine,
    *,
    full: bool,
    allow_removals: bool,
) -> None:
    """Set `summary.plan` and the counts in `summary` to what a run would do; write nothing to the output.

    Also set the mode and the scope in `summary`. If nothing has changed, only count the unchanged documents.

    Args:
        full: whether the run would recompute every document, even if nothing changed.
        allow_removals: whether the run may remove a larger share of documents than limits.max_removed_ratio.

    Raises:
        EntityMillError: a check failed; a real run would end with the same error before it publishes anything.
    """
    record = guards.read_runs_record(tables, Runs(tables))
    source, provenance = guards.open_checked_source(spark, settings, summary, engine, record.owner)
    _check_output(tables)
    table_setup.check_tables_to_write(tables)
    table_setup.check_passthrough_types(tables, source.passthrough)
    guards.check_slice_tables(tables, provenance.slice)
    has_documents = tables.is_complete() and not tables.is_empty("documents")
    if has_documents and not full and guards.has_nothing_to_do(record, tables, summary, provenance, source):
        summary.mode = Mode.NONE
        summary.plan = Plan(0, 0, 0, tables.read("documents").count(), {}, 0, 0.0, 0.0)
        return
    if has_documents:
        trusted = record.settled and recovery.tables_unchanged_since(tables, record.latest)
        published = tables.read_latest("documents") if trusted else recovery.read_settled_documents(tables)
        found = find_changes(
            settings,
            tables,
            source,
            provenance,
            record,
            summary,
            published,
            full=full,
            trusted=trusted,
        )
    else:
        found = changes.select_all_documents(source, Mode.FULL if full else Mode.FIRST)
    with contextlib.closing(found):
        guards.check_rejects(settings, found, "would be")
        if not allow_removals:
            guards.check_removals(settings, tables, found, provenance.slice)
        plan = _build_plan(
            spark,
            settings,
            tables,
            found,
            published.count() if has_documents else 0,
            provenance.fingerprint,
            read_speed(record.last),
        )
        if Cause.FINGERPRINT in plan.causes:
            plan = replace(plan, changed_settings=_find_changed_settings(settings, tables, provenance.fingerprint))
        summary.plan = plan
    summary.mode, summary.removed = found.mode, found.to_remove
    summary.rejects = dict(found.reject_counts)
    summary.documents = summary.planned = found.to_recognize
    summary.units = summary.plan.units


def _build_plan(
    spark: SparkSession,
    settings: Settings,
    tables: Tables,
    found: Changes,
    documents: int,
    fingerprint: str,
    speed: float | None,
) -> Plan:
    """Return the plan of a run with estimated hours; `changed_settings` stays empty, and `plan_run` sets it later.

    Args:
        found: what the run would change.
        documents: number of documents in the output.
        fingerprint: digest of the run's model and settings.
        speed: code points that one core recognizes per second; None if unknown.
    """
    cores = spark_connect.count_cores(spark)
    number = count_units(found, choose_sizes(settings.limits, cores, speed))
    estimate = estimate_run(tables, fingerprint, found.chars, number, cores)
    return Plan(
        new=found.to_recognize - found.to_replace,
        changed=found.to_replace,
        removed=found.to_remove,
        unchanged=documents - found.to_replace - found.to_remove,
        refused=dict(found.reject_counts),
        units=number,
        hours=None if estimate is None else estimate.hours,
        core_hours=None if estimate is None else estimate.core_hours,
        same_model=estimate is None or estimate.same_model,
        causes=dict(found.causes),
    )


def _find_changed_settings(settings: Settings, tables: Tables, fingerprint: str) -> tuple[str, ...]:
    """Return the names of settings, such as `model.path`, that have changed, so that a run must recompute documents.

    `fingerprint` is the digest of this run's model and settings. The current settings are compared with the settings of the
    latest run that ended with status done and had another fingerprint. The tuple is empty if there is no such run. The tuple
    is also empty if only this program or the files of the model have changed since that run. Settings that only one of the
    two runs has are ignored.
    """
    if not tables.exists("runs"):
        return ()
    others = tables.read("runs").where(F.col("fingerprint") != fingerprint).where("status = 'done'")
    rows = others.orderBy(F.desc("started_at")).select("settings").take(1)
    if not rows:
        return ()
    before, now = json.loads(rows[0]["settings"]), settings.dump_masked()
    return tuple(
        f"{section}.{key}"
        for section, keys in _RESULT_SETTINGS.items()
        for key, value in before.get(section, {}).items()
        if (not keys or key in keys) and key in now[section] and now[section][key] != value
    )


def _check_output(tables: Tables) -> None:
    """Raise OutputError if a run would be unable to write the tables. Directories that this check creates are removed again.

    If the output is a schema of a catalog, the schema is not created.
    """
    path = tables.settings.path
    if path is None:
        table_setup.check_writable(tables, create_schema=False)
        return
    missing = []
    while path and not path.endswith(":") and not storage.exists(tables.spark, path):
        missing.append(path)
        path = path.rstrip("/").rpartition("/")[0].rstrip("/")
    table_setup.check_writable(tables)
    for directory in missing:
        storage.remove_empty(tables.spark, directory)


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run: wall-clock hours, and these hours multiplied by the number of cores.

    `same_model` says whether the estimate is based on a run with the same model and settings.
    """

    hours: float
    core_hours: float
    same_model: bool


def estimate_run(tables: Tables, fingerprint: str, chars: int, units: int, cores: int) -> Estimate | None:
    """Estimate the cost of a run; return None if no earlier run recognized documents.

    Only the latest _MAX_RUNS runs that recognized documents, and ended with status done or stopped, are considered. The time
    for recognition and writing is based on the one with the most code points, because small runs are measured less
    precisely. For this, only runs with the given fingerprint are considered, if there are any. The time for preparation and
    reading the source is based on the latest run, whatever its fingerprint.

    Args:
        fingerprint: digest of the model and settings of the run to estimate.
        chars: code points of the documents to recognize.
        units: number of units of work (documents that are published together).
        cores: number of cores of Spark's executors.
    """
    if not tables.exists("runs"):
        return None
    is_measured = f"chars > 0 AND cores > 0 AND units_done > 0 AND seconds['{RECOGNIZING_SECONDS}'] IS NOT NULL"
    usable = tables.read("runs").where(f"status IN ('done', 'stopped') AND {is_measured}")
    rows = collect_rows(usable.orderBy(F.desc("started_at")).limit(_MAX_RUNS))
    if not rows:
        return None
    alike = [row for row in rows if row.fingerprint == fingerprint]
    measured = max(alike or rows, key=lambda row: row.chars)
    hours = estimate_seconds(measured, rows[0], chars, units, cores) / 3600
    return Estimate(hours, hours * cores, bool(alike))


def estimate_seconds(measured: RunRow, latest: RunRow, chars: int, units: int, cores: int) -> float:
    """Return the estimated wall-clock seconds of a run, based on earlier runs.

    Each unit is recognized while the previous one is written. So the result includes the longer of two times: to recognize
    all units, or to write all but the last. The time to write the last unit is added. The time of the measured parts of
    recognition (schemas.PARTS) is assumed to grow with the number of code points. All other time of recognition is assumed
    to be the start of the workers, which takes equally long in each run. If the parts were not measured, all time of
    recognition is assumed to grow. If `units` is 0, the result has only the time for preparation and reading the source.

    Args:
        measured: row of `runs` of the run on which the estimate of recognition and writing is based.
        latest: row of `runs` of the latest run, for the estimate of preparation and reading the source.
        chars: code points of the documents to recognize.
        units: number of units of work (documents that are published together).
        cores: number of cores of Spark's executors.
    """
    seconds = latest.seconds.get("preparation", 0.0) + latest.seconds.get("source", 0.0)
    if not units:
        return seconds
    before = measured.seconds
    work = CORE_SECONDS_PER_PART_SECOND * sum(before.get(part, 0.0) for part in schemas.PARTS)
    if not work:  # the engine sparknlp does not measure its parts
        work = before[RECOGNIZING_SECONDS] * measured.cores
    start = max(0.0, before[RECOGNIZING_SECONDS] - work / measured.cores)
    recognition = start + work / measured.chars * chars / cores
    writing = before.get("writing", 0.0) / measured.units_done
    return seconds + max(recognition, (units - 1) * writing) + writing
