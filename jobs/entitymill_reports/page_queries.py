"""Read the content of a report page from the output's tables, with a few queries whose results have a limited size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import yaml

from entitymill.errors import SettingsError
from entitymill.settings import Settings
from entitymill.spark.sql_text import quote_part
from entitymill_reports import page_data, page_excerpts
from entitymill_reports.page_data import CONFIDENCE_BINS, SENTENCE_BIN, SENTENCE_BINS, PageContent, Run, UnitSpeed
from entitymill_reports.table_reader import TableReader

MAX_RUNS = 40
"""Maximum number of runs to read. Idle runs (runs that had nothing to do), `maintain` and `erase` are not read."""
STEPS = {"day": 1, "week": 7, "month": 30, "year": 365}
"""The periods that a bar in the plot of mentions by time may stand for, with their approximate lengths in days."""
MAX_STEPS = 70
"""Number of bars that the plot of mentions by time should not exceed. A plot by year may have more bars."""
SAMPLED_MENTIONS = 1_000_000
"""Approximate number of mentions for which the lengths of sentences are counted. If `entities` has at least twice as many,
lengths are counted only in a sample of the documents."""
MAX_LABELS, MAX_CODES = 200, 50
"""Maximum number of labels and of reject codes to read; usually there are only a few."""
_DAYS = "DATE '1678-01-01' AND DATE '2261-12-31'"
"""The range of dates that DataFusion can group by month. (It converts dates to 64-bit nanoseconds.) Dates outside the range,
such as 9999-12-31, usually mean that the date is unknown, and are treated as null."""
MAX_COMMITS = 300
"""Maximum number of commits of the table `documents` from which the speed of units is computed; older ones are ignored."""
_LATEST_RUNS = f"""
    SELECT * FROM report_runs
    WHERE coalesce(mode, '') NOT IN ('none', 'maintenance')
    ORDER BY started_at DESC
    LIMIT {MAX_RUNS}
"""  # noqa: S608
_LATEST_IDLE_RUN = "SELECT max(started_at) AS started FROM report_runs WHERE mode = 'none'"
_DOCUMENTS = """
    SELECT CAST(CASE WHEN tokens > 0 THEN floor(log2(CAST(tokens AS DOUBLE))) ELSE -1 END AS INT) AS size,
        count(*) AS documents,
        sum(CASE WHEN status = 'blank' THEN 1 ELSE 0 END) AS blank,
        sum(CAST(sentences AS BIGINT)) AS sentences,
        sum(CAST(tokens AS BIGINT)) AS tokens,
        sum(CAST(split_sentences AS BIGINT)) AS split_sentences
    FROM report_documents
    GROUP BY 1
"""
# `first`, `last`, `least` and `greatest` are example ids. Choosing them needs no memory that grows with the number of rows.
_REJECTS = f"""
    SELECT stage, code,
        count(*) AS number,
        min(doc_id) AS first,
        max(doc_id) AS last,
        substr(min(md5(doc_id) || doc_id), 33) AS least,
        substr(max(md5(doc_id) || doc_id), 33) AS greatest,
        substr(min(md5(coalesce(doc_id, '')) || coalesce(detail, '')), 33) AS detail
    FROM report_rejects
    GROUP BY stage, code
    ORDER BY number DESC, code
    LIMIT {MAX_CODES}
"""  # noqa: S608


def read_page_content(reader: TableReader, settings: Settings, run_id: str | None = None) -> PageContent:
    """Return the content of a report page.

    `run_id` is the id of the run to show, or None for the latest completed run that processed or removed documents.

    Raises:
        SettingsError: report.date_column is not a column of dates, or none of the latest MAX_RUNS runs has this id.
    """
    day = _build_day_expression(reader, settings.report.date_column)
    rows = reader.read_rows(_LATEST_RUNS)
    counts = _count_mentions(reader, day)
    runs = _build_runs(rows, counts)
    run = select_run(runs, run_id)
    if run is None and run_id is not None:
        raise SettingsError(
            f"--run: {run_id} is not among the latest {MAX_RUNS} runs of {reader.output} that had anything to do; "
            "`entitymill runs` lists runs."
        )
    labels = _build_labels(counts)
    return PageContent(
        output=reader.output,
        run=run,
        runs=runs,
        last_idle=reader.read_rows(_LATEST_IDLE_RUN)[0]["started"],
        documents=_read_documents(reader),
        labels=labels,
        days=_read_days(reader, day, settings.report.date_column or "", counts) if day is not None else None,
        lengths=_read_lengths(reader, sum(label.mentions for label in labels)),
        rejects=_read_rejects(reader),
        units=read_unit_speeds(reader, run),
        settings=_format_settings(rows, run),
        shown=page_excerpts.read_samples(reader) if settings.report.show_text else None,
    )


def read_runs(reader: TableReader, run_id: str | None = None) -> tuple[Run | None, tuple[Run, ...]]:
    """Return a run, and the runs before it, newest first, for `drift.compare_runs`.

    If `run_id` is None, the run is the latest completed run that processed or removed documents. Only the latest MAX_RUNS
    runs are read. If the run is not among them, the result is (None, ()).
    """
    runs = _build_runs(reader.read_rows(_LATEST_RUNS), _count_mentions(reader, None))
    run = select_run(runs, run_id)
    return run, tuple(other for other in runs if run is not None and other.started_at < run.started_at)


def select_run(runs: Iterable[Run], run_id: str | None) -> Run | None:
    """Return the run whose id is `run_id` or, without an id, the newest completed run; None if there is no such run.

    `runs` must be sorted, newest first, and must not contain idle runs (runs that had nothing to do).
    """
    return next((run for run in runs if (run.run_id == run_id if run_id else run.status == "done")), None)


def _build_runs(rows: list[dict[str, Any]], counts: list[dict[str, Any]]) -> tuple[Run, ...]:
    """Build a Run from each of `rows`, rows of the table `runs`, in the same order; `_count_mentions` returns `counts`."""
    found = []
    for row in rows:
        own = [count for count in counts if count["run_id"] == row["run_id"]]
        mentions = sum(count["mentions"] for count in own)
        mean = sum(count["confidence"] for count in own) / mentions if mentions else None
        found.append(Run.from_values(row, current_mentions=mentions, confidence=mean))
    return tuple(found)


def _build_day_expression(reader: TableReader, name: str | None) -> str | None:
    """Return an SQL expression that converts the column `name` of `entities` to a date; None if `name` is None.

    The result is null for a string that does not begin with a date such as 2026-11-30, and for a date outside _DAYS. Raise
    SettingsError if the table lacks the column, or the column's type is neither date, timestamp nor string.
    """
    if name is None:
        return None
    found = reader.find_column(name)
    if found is None or found[1] not in ("date", "timestamp", "string"):
        is_what = "not in the table entities yet" if found is None else found[1]
        raise SettingsError(
            f"report.date_column: {name} is {is_what}; it must be a date, a timestamp, or text such as 2026-11-30."
        )
    column = quote_part(found[0])
    day = f"CAST({column} AS DATE)"
    if found[1] == "string":
        day = f"CASE WHEN {column} LIKE '____-__-__%' THEN TRY_CAST(substr({column}, 1, 10) AS DATE) END"
    return f"CASE WHEN {day} BETWEEN {_DAYS} THEN {day} END"


def _count_mentions(reader: TableReader, day: str | None) -> list[dict[str, Any]]:
    """Count mentions by label, bin of confidence and run, in one pass over the table; return one row per group.

    In each row, `mentions` is the number of mentions, `confidence` the sum (not the mean) of their confidences, `first` and
    `last` their first and last day, and `dated` the number of mentions that have a day. For mentions of runs before the
    latest MAX_RUNS, run_id is null. If there are more than MAX_LABELS labels, the smallest groups may be missing. The
    argument `day` is an SQL expression for the day of a mention, or None if days are not needed.
    """
    day = day or "CAST(NULL AS DATE)"
    most, last_bin = MAX_LABELS * CONFIDENCE_BINS * (MAX_RUNS + 1), CONFIDENCE_BINS - 1
    return reader.read_rows(
        f"""
        SELECT label, bin, shown AS run_id,
            count(*) AS mentions, sum(confidence) AS confidence,
            min(at) AS first, max(at) AS last, count(at) AS dated
        FROM (
            SELECT label, run_id, CAST(confidence AS DOUBLE) AS confidence, {day} AS at,
                CAST(least(floor(CAST(confidence AS DOUBLE) * {CONFIDENCE_BINS}), {last_bin}) AS INT) AS bin
            FROM report_entities
        ) AS mentions
        LEFT JOIN (SELECT run_id AS shown FROM ({_LATEST_RUNS}) AS latest) AS runs ON mentions.run_id = runs.shown
        GROUP BY label, bin, shown
        ORDER BY mentions DESC
        LIMIT {most}
        """  # noqa: S608
    )


def _build_labels(counts: list[dict[str, Any]]) -> tuple[page_data.Label, ...]:
    """Build a Label for each label in `counts`, the rows of `_count_mentions`; the label with the most mentions is first."""
    found = []
    for name in {row["label"] for row in counts}:
        own = [row for row in counts if row["label"] == name]
        mentions = sum(row["mentions"] for row in own)
        bins = tuple(sum(row["mentions"] for row in own if row["bin"] == at) for at in range(CONFIDENCE_BINS))
        found.append(page_data.Label(name, mentions, sum(row["confidence"] for row in own) / mentions, bins))
    return tuple(sorted(found, key=lambda label: (-label.mentions, label.name)))


def _read_documents(reader: TableReader) -> page_data.Documents:
    """Return the totals of the `documents` table, and the number of documents in each range of numbers of tokens."""
    rows = reader.read_rows(_DOCUMENTS)
    names = ("documents", "blank", "sentences", "tokens", "split_sentences")
    totals = {name: sum(row[name] or 0 for row in rows) for name in names}
    return page_data.Documents(**totals, by_tokens={row["size"]: row["documents"] for row in rows})


def _read_days(reader: TableReader, day: str, name: str, counts: list[dict[str, Any]]) -> page_data.MentionsByPeriod:
    """Count mentions by day, week, month or year: the shortest period that gives about MAX_STEPS bars or fewer.

    The oldest counts are dropped if there are more than MAX_STEPS * MAX_LABELS. `day` is the SQL expression for the day of a
    mention, computed from the column `name`. `counts` is the result of `_count_mentions`.
    """
    dated = sum(row["dated"] for row in counts)
    without = sum(row["mentions"] for row in counts) - dated
    if not dated:
        return page_data.MentionsByPeriod(name, "day", {}, without)
    first = min(row["first"] for row in counts if row["first"])
    last = max(row["last"] for row in counts if row["last"])
    span = (last - first).days + 1
    step = next((step for step, days in STEPS.items() if span / days <= MAX_STEPS), "year")
    most = MAX_STEPS * MAX_LABELS
    rows = reader.read_rows(
        f"""
        SELECT CAST(date_trunc('{step}', {day}) AS DATE) AS at, label, count(*) AS mentions
        FROM report_entities
        WHERE {day} IS NOT NULL
        GROUP BY 1, 2
        ORDER BY at DESC
        LIMIT {most}
        """  # noqa: S608
    )
    found: dict[Any, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["at"], {})[row["label"]] = row["mentions"]
    return page_data.MentionsByPeriod(name, step, dict(sorted(found.items())), without)


def _read_lengths(reader: TableReader, mentions: int) -> page_data.Lengths:
    """Count the sentences that contain a mention, in ranges of SENTENCE_BIN characters of length.

    `mentions` is the number of mentions in the table `entities`. If this number is at least twice SAMPLED_MENTIONS, only the
    sentences of a sample of the documents are counted.
    """
    one_in = max(1, mentions // SAMPLED_MENTIONS)
    # The hashes of about one in `one_in` documents begin with four hexadecimal digits below this bound.
    bound, last_bin = ("g" if one_in == 1 else f"{max(1, 0x10000 // one_in):04x}"), SENTENCE_BINS - 1
    rows = reader.read_rows(
        f"""
        SELECT CAST(least(floor(CAST(sentence_end - sentence_begin AS DOUBLE) / {SENTENCE_BIN}), {last_bin}) AS INT) AS bin,
            count(*) AS sentences
        FROM (
            SELECT DISTINCT doc_id, sentence_id, sentence_begin, sentence_end
            FROM report_entities
            WHERE substr(md5(doc_id), 1, 4) < '{bound}'
        ) AS sentences
        GROUP BY 1
        """  # noqa: S608
    )
    found = {row["bin"]: row["sentences"] for row in rows}
    return page_data.Lengths(tuple(found.get(at, 0) for at in range(SENTENCE_BINS)), one_in)


def _read_rejects(reader: TableReader) -> tuple[page_data.Reject, ...]:
    """Return a Reject for each of the MAX_CODES most frequent pairs of stage and reject code; () if `rejects` is missing."""
    if not reader.has("rejects"):
        return ()
    found = []
    for row in reader.read_rows(_REJECTS):
        ids = dict.fromkeys(row[name] for name in ("first", "last", "least", "greatest") if row[name] is not None)
        found.append(page_data.Reject(row["stage"], row["code"], row["number"], tuple(ids), row["detail"] or ""))
    return tuple(found)


def _format_settings(rows: list[dict[str, Any]], run: Run | None) -> str:
    """Return the settings in a run's row of `runs` as YAML, with masked secrets; "" if there is no run or no settings."""
    own = next((row["settings"] for row in rows if run is not None and row["run_id"] == run.run_id), None)
    return yaml.safe_dump(json.loads(own), sort_keys=False, allow_unicode=True) if own else ""


def read_unit_speeds(reader: TableReader, run: Run | None) -> tuple[UnitSpeed, ...]:
    """Return the speed of each unit of work of a run, from the history of the `documents` table; empty if `run` is None.

    A unit (documents published together) is left out if the previous unit's commit is not in the latest MAX_COMMITS.
    """
    found: list[UnitSpeed] = []
    last: datetime | None = None
    commits = reader.read_history(MAX_COMMITS) if run is not None else []
    for row in sorted(commits, key=lambda row: row["version"]):
        if run is None or run.run_id not in (row["userMetadata"] or ""):
            continue
        commit = json.loads(row["userMetadata"])
        if "unit" not in commit:
            continue
        last = run.started_at if commit["unit"] == 1 else last
        if last is not None:  # otherwise the start of the unit is unknown
            seconds = max(0.0, (row["at"] - last).total_seconds())
            found.append(UnitSpeed(commit["unit"], seconds, _count_written_rows(row["operationMetrics"] or {})))
        last = row["at"]
    return tuple(found)


def _count_written_rows(metrics: Mapping[str, str]) -> int:
    """Return the number of rows that a Delta commit added or changed; rows that the commit only copied do not count.

    `metrics` are Delta's operationMetrics of the commit. Their names depend on the operation: MERGE, UPDATE, or others.
    """
    counted = {name: int(value) for name, value in metrics.items() if name.endswith(("Rows", "Inserted", "Updated"))}
    if "numTargetRowsInserted" in counted:
        return counted["numTargetRowsInserted"] + counted.get("numTargetRowsUpdated", 0)
    if "numOutputRows" in counted:
        return counted["numOutputRows"] - counted.get("numCopiedRows", 0)
    return counted.get("numUpdatedRows", 0)
