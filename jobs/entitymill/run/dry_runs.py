"""What a run would do, without doing it: documents by kind, units, hours, and every refusal that the run would end with."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill.engines.engine import Engine
from entitymill.platform import spark_connect, storage
from entitymill.run import guards, units
from entitymill.run.summary import Summary
from entitymill.settings import Settings
from entitymill.source import changes
from entitymill.source.changes import Changes, Policy
from entitymill.tables import Tables, table_setup
from entitymill.tables.runs import Runs


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    new, changed, removed, unchanged: documents.
    refused: rows, by code.
    units: the work would be cut into.
    hours, core_hours: at the speed of the last run that recognised documents; none: there was none.
    """

    new: int
    changed: int
    removed: int
    unchanged: int
    refused: dict[str, int]
    units: int
    hours: float | None
    core_hours: float | None


def make(
    spark: SparkSession,
    settings: Settings,
    summary: Summary,
    tables: Tables,
    engine: Engine,
    *,
    full: bool,
    allow_removals: bool,
) -> None:
    """Find out what a run would do, and put it into its summary; reads all rows, and writes nothing that stays.

    Raises:
        EntityMillError: what the run would end with, before it published anything.
    """
    seen = guards.seen(tables, Runs(tables))
    source, stamp = guards.opened(spark, settings, summary, engine, seen.owner)
    _try_output(tables)
    table_setup.check_ours(tables)
    table_setup.check_types(tables, source.passthrough)
    guards.check_other_slices(tables, stamp.slice, trusted=True)
    whole = full or not tables.complete()
    known = None if whole else tables.read_as_it_is("documents")
    if known is not None and not full and guards.nothing_new(seen.last, tables, summary, stamp, source):
        summary.mode, summary.plan = "none", Plan(0, 0, 0, known.count(), {}, 0, 0.0, 0.0)
        return
    policy = Policy(stamp.fingerprint, settings.incremental.on_fingerprint_change, stamp.slice)
    if known is None:
        found = changes.everything(source, "full" if full else "first")
    else:
        changes.check_fingerprints(known, policy)
        found = changes.compared(source, known, policy)
    try:
        guards.check_rejects(settings, found, "would be")
        if not allow_removals:
            guards.check_removals(settings, tables, found, policy.slice, whole=whole)
        summary.plan = _plan(spark, settings, tables, found, known.count() if known is not None else 0)
    finally:
        found.close()
    summary.mode, summary.rejects, summary.removed = found.mode, dict(found.counts), found.to_remove
    summary.documents = summary.planned = found.to_recognise
    summary.units = summary.plan.units


def _plan(spark: SparkSession, settings: Settings, tables: Tables, found: Changes, held: int) -> Plan:
    wanted = units.wanted(found, settings.limits)
    speed = _documents_per_second(tables)
    hours = None if speed is None else found.to_recognise / speed / 3600
    return Plan(
        new=found.to_recognise - found.known,
        changed=found.known,
        removed=found.to_remove,
        unchanged=held - found.known - found.to_remove,
        refused=dict(found.counts),
        units=wanted,
        hours=hours,
        core_hours=None if hours is None else hours * spark_connect.cores(spark),
    )


def _documents_per_second(tables: Tables) -> float | None:
    """Of the latest run that recognised any: over recognition and writing, which grow with the documents."""
    if not tables.exists("runs"):
        return None
    spent = F.col("seconds")["recognition"] + F.coalesce(F.col("seconds")["writing"], F.lit(0.0))
    runs = tables.read("runs").where("status = 'done' AND documents > 0").withColumn("spent", spent).where("spent > 0")
    last = runs.orderBy(F.desc("started_at")).select("documents", "spent").take(1)
    return float(last[0]["documents"]) / float(last[0]["spent"]) if last else None


def _try_output(tables: Tables) -> None:
    """Whether the output can be written; what that leaves of a directory is taken away again."""
    path = tables.settings.path
    if path is None:
        table_setup.check_place(tables, make=False)
        return
    missing = []
    while path and not path.endswith(":") and not storage.exists(tables.spark, path):
        missing.append(path)
        path = path.rstrip("/").rpartition("/")[0].rstrip("/")
    table_setup.check_place(tables)
    for made in missing:
        storage.remove_empty(tables.spark, made)
