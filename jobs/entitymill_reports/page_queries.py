"""Read the content of a report page from the output's tables, with a few queries whose results have a limited size."""

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
from entitymill.spark.private_session import open_private_session
from entitymill.spark.sql_text import quote_part
from entitymill.tables import Tables, table_setup
from entitymill.tables.runs import IDLE, exclude_maintenance
from entitymill_reports import page_content, page_excerpts
from entitymill_reports.page_content import CONFIDENCE_BINS, SENTENCE_BIN, SENTENCE_BINS, PageContent, Run, UnitSpeed

MAX_RUNS = 40
"""Maximum number of runs to read."""
STEPS = {"day": 1, "week": 7, "month": 30, "year": 365}
"""Step of the plot of mentions by time -> approximate number of days in a step."""
MAX_STEPS = 70
"""Maximum number of bars in a plot of mentions by time, by which its step is chosen. If there are more years than this, only
the latest are shown."""
SAMPLED_MENTIONS = 1_000_000
"""Number of mentions above which only the sentences of a sample of documents are measured."""
MAX_LABELS, MAX_CODES = 30, 50
"""Maximum number of labels and of reject codes to read; usually there are only a few."""
MAX_COMMITS = 300
"""Maximum number of commits to read; older commits are ignored."""
_DATES = (T.DateType, T.TimestampType, T.TimestampNTZType, T.StringType)


def read_page_content(spark: SparkSession, settings: Settings, tables: Tables, run_id: str | None = None) -> PageContent:
    """Return the content of a report page.

    Args:
        run_id: the id of the run to show, or None for the latest completed run that processed or removed documents.

    Raises:
        OutputError: the output has no tables, or another program wrote them.
        SettingsError: report.date_column is not a column of dates, or none of the latest MAX_RUNS runs has this id.
    """
    check_tables_exist(tables)
    with open_private_session(spark, settings.source.time_zone, {}) as own:
        tables = Tables(own, tables.settings)
        entities = tables.read("entities")
        date = _select_date(entities, settings)
        rows = _read_run_rows(tables)
        counts = _count_mentions(entities, date, [row["run_id"] for row in rows])
        runs = _build_runs(rows, counts)
        run = select_run(runs, run_id)
        if run is None and run_id is not None:
            raise SettingsError(
                f"--run: {run_id} is not among the latest {MAX_RUNS} runs of {tables.output}; `entitymill runs` lists them."
            )
        labels = _build_labels(counts)
        return PageContent(
            output=tables.output,
            run=run,
            runs=runs,
            documents=_read_documents(tables),
            labels=labels,
            days=_read_days(entities, date, settings.report.date_column or "", counts) if date is not None else None,
            lengths=_read_lengths(entities, sum(label.mentions for label in labels)),
            rejects=_read_rejects(tables),
            units=read_unit_speeds(tables, run),
            settings=_format_settings(rows, run),
            shown=page_excerpts.read_samples(own, settings, tables) if settings.report.show_text else None,
        )


def read_runs(spark: SparkSession, tables: Tables, run_id: str | None = None) -> tuple[Run | None, tuple[Run, ...]]:
    """Return a run, and the runs before it, newest first; this is all that the computation of drift needs.

    Only the latest MAX_RUNS runs are read. If the run is not among them, the result is (None, ()).

    Args:
        run_id: the id of the run, or None for the latest completed run that processed or removed documents.

    Raises:
        OutputError: the output has no tables, or another program wrote them.
    """
    check_tables_exist(tables)
    with open_private_session(spark, "UTC", {}) as own:
        tables = Tables(own, tables.settings)
        rows = _read_run_rows(tables)
        runs = _build_runs(rows, _count_mentions(tables.read("entities"), None, [row["run_id"] for row in rows]))
    run = select_run(runs, run_id)
    return run, tuple(other for other in runs if run is not None and other.started < run.started)


def check_tables_exist(tables: Tables) -> None:
    """Check that the output has tables, and that this program wrote them.

    Raises:
        OutputError: the output has no tables, or another program wrote the tables.
    """
    if not (tables.is_complete() and tables.exists("runs")):
        raise OutputError(f"output: no entity tables in {tables.output}: run the job first.")
    table_setup.check_tables(tables)


def select_run(runs: Iterable[Run], run_id: str | None) -> Run | None:
    """Return the run with an id or, if the id is None, the newest completed run that had something to do.

    Return None if `runs`, which are sorted with the newest first, contain no such run.
    """
    candidates = (run for run in runs if run.run_id == run_id or (not run_id and run.status == "done" and run.mode != IDLE))
    return next(candidates, None)


def _read_run_rows(tables: Tables) -> list[Row]:
    """Return the latest MAX_RUNS rows of `runs` except maintenance, newest first; `started_at` is in µs since 1970."""
    runs = exclude_maintenance(tables.read("runs"))
    return runs.withColumn("started_at", F.unix_micros("started_at")).orderBy(F.desc("started_at")).limit(MAX_RUNS).collect()


def _build_runs(rows: list[Row], counts: list[Row]) -> tuple[Run, ...]:
    """Build the runs from rows of the `runs` table and the result of _count_mentions."""
    found = []
    for row in rows:
        started = datetime.fromtimestamp(row["started_at"] / 1e6, timezone.utc)
        own = [count for count in counts if count["run_id"] == row["run_id"]]
        mentions = sum(count["mentions"] for count in own)
        mean = sum(count["confidence"] for count in own) / mentions if mentions else None
        found.append(Run.from_row({**row.asDict(), "started_at": started}, mentions, mean))
    return tuple(found)


def _select_date(entities: DataFrame, settings: Settings) -> Column | None:
    """Return the column with the day of a mention, as a date; None if report.date_column is not set.

    A text that is not a date becomes null.

    Raises:
        SettingsError: the table lacks the column, or its type is neither date, timestamp nor string.
    """
    name = settings.report.date_column
    if name is None:
        return None
    types = {field.name.lower(): field.dataType for field in entities.schema}
    kind = types.get(name.lower())
    if not isinstance(kind, _DATES):
        is_what = "not in the table entities yet" if kind is None else kind.simpleString()
        raise SettingsError(
            f"report.date_column: {name} is {is_what}; it must be a date, a timestamp, or text such as 2026-11-30."
        )
    column = F.col(quote_part(name))
    # Spark 3.5 has no try_to_date, and a cast fails in ANSI mode.
    return (
        F.to_date(F.expr(f"try_to_timestamp({quote_part(name)})")) if isinstance(kind, T.StringType) else F.to_date(column)
    )


def _count_mentions(entities: DataFrame, date: Column | None, runs: list[str]) -> list[Row]:
    """Count mentions by label, bin of confidence and run, in one pass over the table; return one row per group.

    Each row also has the sum of the confidences, the first and last day, and the number of mentions that have a day. The
    column run_id is null for the mentions of all other runs than `runs`.
    """
    bin_ = F.least(F.floor(F.col("confidence") * CONFIDENCE_BINS), F.lit(CONFIDENCE_BINS - 1)).cast("int").alias("bin")
    run = F.when(F.col("run_id").isin(runs), F.col("run_id")).alias("run_id")
    day = F.lit(None).cast("date") if date is None else date
    ends = [F.min(day).alias("first"), F.max(day).alias("last"), F.count(day).alias("dated")]
    sums = [F.count("*").alias("mentions"), F.sum("confidence").alias("confidence")]
    return (
        entities.groupBy("label", bin_, run).agg(*sums, *ends).limit(MAX_LABELS * CONFIDENCE_BINS * (MAX_RUNS + 1)).collect()
    )


def _build_labels(counts: list[Row]) -> tuple[page_content.Label, ...]:
    """Build the labels from the result of _count_mentions, those with the most mentions first."""
    found = []
    for name in {row["label"] for row in counts}:
        own = [row for row in counts if row["label"] == name]
        mentions = sum(row["mentions"] for row in own)
        bins = tuple(sum(row["mentions"] for row in own if row["bin"] == at) for at in range(CONFIDENCE_BINS))
        found.append(page_content.Label(name, mentions, sum(row["confidence"] for row in own) / mentions, bins))
    return tuple(sorted(found, key=lambda label: (-label.mentions, label.name)))


def _read_documents(tables: Tables) -> page_content.Documents:
    """Return the sums over the `documents` table, and its documents counted by number of tokens."""
    size = F.when(F.col("tokens") > 0, F.floor(F.log2("tokens"))).otherwise(-1).cast("int").alias("size")
    names = ("sentences", "tokens", "split_sentences")
    sums = [F.sum(F.col(name).cast("long")).alias(name) for name in names]
    blank = F.sum((F.col("status") == "blank").cast("long")).alias("blank")
    rows = tables.read("documents").groupBy(size).agg(F.count("*").alias("documents"), blank, *sums).collect()
    totals = {name: sum(row[name] or 0 for row in rows) for name in ("documents", "blank", *names)}
    return page_content.Documents(**totals, by_tokens={row["size"]: row["documents"] for row in rows})


def _read_days(entities: DataFrame, date: Column, name: str, counts: list[Row]) -> page_content.Days:
    """Count mentions by day, week, month or year, depending on the time that they span; drop the oldest rows if too many.

    Args:
        date: the day of a mention.
        name: name of the column from which the day is computed.
        counts: the result of _count_mentions.
    """
    dated = sum(row["dated"] for row in counts)
    without = sum(row["mentions"] for row in counts) - dated
    if not dated:
        return page_content.Days(name, "day", {}, without)
    first = min(row["first"] for row in counts if row["first"])
    last = max(row["last"] for row in counts if row["last"])
    span = (last - first).days + 1
    step = next((step for step, days in STEPS.items() if span / days <= MAX_STEPS), "year")
    at = F.trunc(date, step).cast("date") if step != "day" else date
    rows = entities.groupBy(at.alias("at"), "label").agg(F.count("*").alias("mentions")).where("at IS NOT NULL")
    found: dict[Any, dict[str, int]] = {}
    for row in rows.orderBy(F.desc("at")).limit(MAX_STEPS * MAX_LABELS).collect():
        found.setdefault(row["at"], {})[row["label"]] = row["mentions"]
    return page_content.Days(name, step, dict(sorted(found.items())), without)


def _read_lengths(entities: DataFrame, mentions: int) -> page_content.Lengths:
    """Count the sentences with a mention by length; if there are many mentions, only those of a sample of the documents."""
    one_in = max(1, mentions // SAMPLED_MENTIONS)
    some = entities.where(F.pmod(F.xxhash64("doc_id"), F.lit(one_in)) == 0) if one_in > 1 else entities
    length = (F.col("sentence_end") - F.col("sentence_begin")).alias("length")
    each = some.select("doc_id", "sentence_id", length).distinct()
    bin_ = F.least(F.floor(F.col("length") / SENTENCE_BIN), F.lit(SENTENCE_BINS - 1)).cast("int").alias("bin")
    rows = {row["bin"]: row["count"] for row in each.groupBy(bin_).count().collect()}
    return page_content.Lengths(tuple(rows.get(at, 0) for at in range(SENTENCE_BINS)), one_in)


def _read_rejects(tables: Tables) -> tuple[page_content.Reject, ...]:
    """Return the MAX_CODES most frequent pairs of stage and reject code, each with its row count and up to four ids."""
    if not tables.exists("rejects") or tables.is_empty("rejects"):
        return ()
    key, random_order = F.col("doc_id"), F.xxhash64("doc_id")
    # Get up to four example ids with aggregates whose memory does not grow with the number of rows.
    ids = F.array_distinct(F.array(F.min(key), F.max(key), F.min_by(key, random_order), F.max_by(key, random_order)))
    rows = (
        tables.read("rejects")
        .groupBy("stage", "code")
        .agg(F.count("*").alias("rows"), ids.alias("ids"), F.min_by("detail", random_order).alias("detail"))
        .orderBy(F.desc("rows"), "code")
        .limit(MAX_CODES)
    )
    return tuple(
        page_content.Reject(
            row["stage"], row["code"], row["rows"], tuple(i for i in row["ids"] if i is not None), row["detail"] or ""
        )
        for row in rows.collect()
    )


def _format_settings(rows: list[Row], run: Run | None) -> str:
    """Return the settings in the row of a run as YAML, with secrets masked; "" if there is no run or no settings."""
    own = next((row["settings"] for row in rows if run is not None and row["run_id"] == run.run_id), None)
    return yaml.safe_dump(json.loads(own), sort_keys=False, allow_unicode=True) if own else ""


def read_unit_speeds(tables: Tables, run: Run | None) -> tuple[UnitSpeed, ...]:
    """Return the speed of each unit of work (documents that are committed together) from the history of `documents`.

    A unit is left out if its start is not in the latest MAX_COMMITS commits. The result is empty if `run` is None, or
    if the run replaced the complete table when it ended, as such a run does not commit units.
    """
    if run is None:
        return ()
    history = tables.history("documents", MAX_COMMITS).where(F.col("userMetadata").contains(run.run_id))
    at = F.unix_micros("timestamp").alias("at")
    found: list[UnitSpeed] = []
    last: datetime | None = None
    for row in history.select("version", at, "userMetadata", "operationMetrics").orderBy("version").collect():
        commit = json.loads(row["userMetadata"])
        time = datetime.fromtimestamp(row["at"] / 1e6, timezone.utc)
        if "unit" not in commit:
            continue
        last = run.started if commit["unit"] == 1 else last
        if last is not None:  # otherwise the start of the unit is unknown
            seconds = max(0.0, (time - last).total_seconds())
            found.append(UnitSpeed(commit["unit"], seconds, _count_written_rows(row["operationMetrics"] or {})))
        last = time
    return tuple(found)


def _count_written_rows(metrics: Mapping[str, str]) -> int:
    """Return the number of rows that a commit added or changed; rows that the commit only copied do not count.

    Args:
        metrics: Delta's operationMetrics of the commit; their names for MERGE differ from those for other operations.
    """
    counted = {name: int(value) for name, value in metrics.items() if name.endswith(("Rows", "Inserted", "Updated"))}
    if "numTargetRowsInserted" in counted:
        return counted["numTargetRowsInserted"] + counted.get("numTargetRowsUpdated", 0)
    return counted.get("numOutputRows", 0) - counted.get("numCopiedRows", 0)
