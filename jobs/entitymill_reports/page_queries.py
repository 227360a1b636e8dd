"""The output's tables -> figures, in a few queries whose answers do not grow with the tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

import yaml
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.errors import OutputError, SettingsError
from entitymill.settings import Settings
from entitymill.spark.run_session import open_private_session
from entitymill.spark.sql_text import quote_part
from entitymill.tables import Tables, table_setup
from entitymill.tables.runs import IDLE, exclude_maintenance
from entitymill_reports import page_figures, page_sentences
from entitymill_reports.page_figures import CONFIDENCE_BINS, SENTENCE_BIN, SENTENCE_BINS, Figures, Run, UnitSpeed

RUNS = 40
"""Shown and compared at most."""
STEPS = {"day": 1, "week": 7, "month": 30, "year": 365}
MOST_STEPS = 70
"""Bars that a plot has room for, about; of the longest step the latest are kept."""
SAMPLED_MENTIONS = 1_000_000
"""Whose sentences are measured; of more mentions it is a part of the documents."""
MOST_LABELS, MOST_CODES = 30, 50
"""What is read at most; models have a few labels, and there are a few codes."""
MOST_COMMITS = 300
"""Looked at: of a run of more units the latest."""
_DATES = (T.DateType, T.TimestampType, T.TimestampNTZType, T.StringType)


def read(spark: SparkSession, settings: Settings, tables: Tables, run_id: str | None = None) -> Figures:
    """All that a page shows.

    Args:
        run_id: of the run that the page is about; none: the latest that came to its end and had anything to do.

    Raises:
        OutputError: there are no tables.
        SettingsError: report.date_column has no days, or there is no such run.
    """
    check_there(tables)
    with open_private_session(spark, settings.source.time_zone, {}) as own:
        tables = Tables(own, tables.settings)
        entities = tables.read("entities")
        date = _date(entities, settings)
        rows = _rows(tables)
        counts = _counts(entities, date, [row["run_id"] for row in rows])
        runs = _runs(rows, counts)
        run = subject(runs, run_id)
        if run is None and run_id is not None:
            raise SettingsError(f"--run: {run_id} is not among the latest {RUNS} runs of {tables.place}.")
        labels = _labels(counts)
        return Figures(
            output=tables.place,
            run=run,
            runs=runs,
            documents=_documents(tables),
            labels=labels,
            days=_days(entities, date, settings.report.date_column or "", counts) if date is not None else None,
            lengths=_lengths(entities, sum(label.mentions for label in labels)),
            rejects=_rejects(tables),
            units=unit_speeds(tables, run),
            settings=_settings(rows, run),
            shown=page_sentences.read(own, settings, tables) if settings.report.show_text else None,
        )


def read_runs(spark: SparkSession, tables: Tables, run_id: str | None = None) -> tuple[Run | None, tuple[Run, ...]]:
    """What drift needs alone: the run, and those before it, newest first.

    Raises:
        OutputError: there are no tables.
    """
    check_there(tables)
    with open_private_session(spark, "UTC", {}) as own:
        tables = Tables(own, tables.settings)
        rows = _rows(tables)
        runs = _runs(rows, _counts(tables.read("entities"), None, [row["run_id"] for row in rows]))
    run = subject(runs, run_id)
    return run, tuple(other for other in runs if run is not None and other.started < run.started)


def check_there(tables: Tables) -> None:
    """Find out whether there are tables to read.

    Raises:
        OutputError: there are none, or they are not ours.
    """
    if not (tables.is_complete() and tables.exists("runs")):
        raise OutputError(f"output: no entity tables in {tables.place}: run the job first.")
    table_setup.check_tables(tables)


def subject(runs: Iterable[Run], run_id: str | None) -> Run | None:
    """The run that a page is about: a given one, or the newest of the rest that came to its end and had anything to do."""
    wanted = (run for run in runs if run.run_id == run_id or (not run_id and run.status == "done" and run.mode != IDLE))
    return next(wanted, None)


def _rows(tables: Tables) -> list[Row]:
    runs = exclude_maintenance(tables.read("runs"))
    return runs.withColumn("started_at", F.unix_micros("started_at")).orderBy(F.desc("started_at")).limit(RUNS).collect()


def _runs(rows: list[Row], counts: list[Row]) -> tuple[Run, ...]:
    found = []
    for row in rows:
        started = datetime.fromtimestamp(row["started_at"] / 1e6, timezone.utc)
        own = [count for count in counts if count["run_id"] == row["run_id"]]
        kept = sum(count["mentions"] for count in own)
        mean = sum(count["confidence"] for count in own) / kept if kept else None
        found.append(Run.of({**row.asDict(), "started_at": started}, kept, mean))
    return tuple(found)


def _date(entities: DataFrame, settings: Settings) -> Column | None:
    name = settings.report.date_column
    if name is None:
        return None
    held = {field.name.lower(): field.dataType for field in entities.schema}
    kind = held.get(name.lower())
    if not isinstance(kind, _DATES):
        is_what = "not in the table entities yet" if kind is None else kind.simpleString()
        raise SettingsError(
            f"report.date_column: {name} is {is_what}; it must be a date, a timestamp, or text such as 2026-11-30."
        )
    column = F.col(quote_part(name))
    # try_to_date is not there yet; a cast would fail under ANSI.
    return (
        F.to_date(F.expr(f"try_to_timestamp({quote_part(name)})")) if isinstance(kind, T.StringType) else F.to_date(column)
    )


def _counts(entities: DataFrame, date: Column | None, runs: list[str]) -> list[Row]:
    """One pass: mentions by label, bin of confidence and recent run, their summed confidence, their days' two ends."""
    bin_ = F.least(F.floor(F.col("confidence") * CONFIDENCE_BINS), F.lit(CONFIDENCE_BINS - 1)).cast("int").alias("bin")
    run = F.when(F.col("run_id").isin(runs), F.col("run_id")).alias("run_id")
    day = F.lit(None).cast("date") if date is None else date
    ends = [F.min(day).alias("first"), F.max(day).alias("last"), F.count(day).alias("dated")]
    sums = [F.count("*").alias("mentions"), F.sum("confidence").alias("confidence")]
    return entities.groupBy("label", bin_, run).agg(*sums, *ends).limit(MOST_LABELS * CONFIDENCE_BINS * (RUNS + 1)).collect()


def _labels(counts: list[Row]) -> tuple[page_figures.Label, ...]:
    found = []
    for name in {row["label"] for row in counts}:
        own = [row for row in counts if row["label"] == name]
        mentions = sum(row["mentions"] for row in own)
        bins = tuple(sum(row["mentions"] for row in own if row["bin"] == at) for at in range(CONFIDENCE_BINS))
        found.append(page_figures.Label(name, mentions, sum(row["confidence"] for row in own) / mentions, bins))
    return tuple(sorted(found, key=lambda label: (-label.mentions, label.name)))


def _documents(tables: Tables) -> page_figures.Documents:
    size = F.when(F.col("tokens") > 0, F.floor(F.log2("tokens"))).otherwise(-1).cast("int").alias("size")
    names = ("sentences", "tokens", "split_sentences")
    sums = [F.sum(F.col(name).cast("long")).alias(name) for name in names]
    blank = F.sum((F.col("status") == "blank").cast("long")).alias("blank")
    rows = tables.read("documents").groupBy(size).agg(F.count("*").alias("documents"), blank, *sums).collect()
    totals = {name: sum(row[name] or 0 for row in rows) for name in ("documents", "blank", *names)}
    return page_figures.Documents(**totals, by_tokens={row["size"]: row["documents"] for row in rows})


def _days(entities: DataFrame, date: Column, name: str, counts: list[Row]) -> page_figures.Days:
    dated = sum(row["dated"] for row in counts)
    without = sum(row["mentions"] for row in counts) - dated
    if not dated:
        return page_figures.Days(name, "day", {}, without)
    first = min(row["first"] for row in counts if row["first"])
    last = max(row["last"] for row in counts if row["last"])
    span = (last - first).days + 1
    step = next((step for step, days in STEPS.items() if span / days <= MOST_STEPS), "year")
    at = F.trunc(date, step).cast("date") if step != "day" else date
    rows = entities.groupBy(at.alias("at"), "label").agg(F.count("*").alias("mentions")).where("at IS NOT NULL")
    found: dict[Any, dict[str, int]] = {}
    for row in rows.orderBy(F.desc("at")).limit(MOST_STEPS * MOST_LABELS).collect():
        found.setdefault(row["at"], {})[row["label"]] = row["mentions"]
    return page_figures.Days(name, step, dict(sorted(found.items())), without)


def _lengths(entities: DataFrame, mentions: int) -> page_figures.Lengths:
    one_in = max(1, mentions // SAMPLED_MENTIONS)
    some = entities.where(F.pmod(F.xxhash64("doc_id"), F.lit(one_in)) == 0) if one_in > 1 else entities
    length = (F.col("sentence_end") - F.col("sentence_begin")).alias("length")
    each = some.select("doc_id", "sentence_id", length).distinct()
    bin_ = F.least(F.floor(F.col("length") / SENTENCE_BIN), F.lit(SENTENCE_BINS - 1)).cast("int").alias("bin")
    rows = {row["bin"]: row["count"] for row in each.groupBy(bin_).count().collect()}
    return page_figures.Lengths(tuple(rows.get(at, 0) for at in range(SENTENCE_BINS)), one_in)


def _rejects(tables: Tables) -> tuple[page_figures.Reject, ...]:
    if not tables.exists("rejects") or tables.is_empty("rejects"):
        return ()
    key, by_chance = F.col("doc_id"), F.xxhash64("doc_id")
    # Four ids that take no more memory for more rows.
    ids = F.array_distinct(F.array(F.min(key), F.max(key), F.min_by(key, by_chance), F.max_by(key, by_chance)))
    rows = (
        tables.read("rejects")
        .groupBy("stage", "code")
        .agg(F.count("*").alias("rows"), ids.alias("ids"), F.min_by("detail", by_chance).alias("detail"))
        .orderBy(F.desc("rows"), "code")
        .limit(MOST_CODES)
    )
    return tuple(
        page_figures.Reject(
            row["stage"], row["code"], row["rows"], tuple(i for i in row["ids"] if i is not None), row["detail"] or ""
        )
        for row in rows.collect()
    )


def _settings(rows: list[Row], run: Run | None) -> str:
    """As YAML, secrets masked as they stand in `runs`."""
    own = next((row["settings"] for row in rows if run is not None and row["run_id"] == run.run_id), None)
    return yaml.safe_dump(json.loads(own), sort_keys=False, allow_unicode=True) if own else ""


def unit_speeds(tables: Tables, run: Run | None) -> tuple[UnitSpeed, ...]:
    """From Delta's record of the commits of `documents`; a run that swaps everything in at its end leaves none."""
    if run is None:
        return ()
    history = tables.history("documents", MOST_COMMITS).where(F.col("userMetadata").contains(run.run_id))
    at = F.unix_micros("timestamp").alias("at")
    found: list[UnitSpeed] = []
    last: datetime | None = None
    for row in history.select("version", at, "userMetadata", "operationMetrics").orderBy("version").collect():
        told, time = json.loads(row["userMetadata"]), datetime.fromtimestamp(row["at"] / 1e6, timezone.utc)
        if "unit" not in told:
            continue
        last = run.started if told["unit"] == 1 else last
        if last is not None:  # else it is not known when the unit began
            seconds = max(0.0, (time - last).total_seconds())
            found.append(UnitSpeed(told["unit"], seconds, _rows_of(row["operationMetrics"] or {})))
        last = time
    return tuple(found)


def _rows_of(metrics: Mapping[str, str]) -> int:
    """That a commit is about: of what it wrote without those that it only copied; a MERGE counts them its own way."""
    counted = {name: int(value) for name, value in metrics.items() if name.endswith(("Rows", "Inserted", "Updated"))}
    if "numTargetRowsInserted" in counted:
        return counted["numTargetRowsInserted"] + counted.get("numTargetRowsUpdated", 0)
    return counted.get("numOutputRows", 0) - counted.get("numCopiedRows", 0)
