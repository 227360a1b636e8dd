"""`entitymill runs`: list the runs of an output, newest first, with their progress and errors."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from entitymill.commands import common
from entitymill.errors import OutputError
from entitymill.run import exit_codes
from entitymill.run_row import PROGRESS, RunRow
from entitymill.terminal import progress
from entitymill.terminal.console_text import open_console, visible
from entitymill.terminal.progress import format_duration

if TYPE_CHECKING:  # imports Spark, which --help does not need
    from entitymill.settings import Settings
    from entitymill.settings.sections import OutputSettings
    from entitymill.tables import Tables

SHOWN = 20
"""Number of runs that are listed by default."""
_LOG_BYTES = 4_000_000
"""How many bytes at the end of a log are searched for a run's error."""
_STYLES = {"done": "green", "running": "cyan", "failed": "red", "died": "red", "stopped": "yellow"}
_COLUMNS = (
    "run_id", "started_at", "ended_at", "status", "mode", "stage", "documents", "planned", "removed", "units", "units_done",
    "sentences", "rejects", "sentences_per_second", "error", "exit_code", "application_id", "log", "until", "process",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill runs`."""
    built = common.build_parser(
        "runs",
        description="List the runs of an output, newest first.",
        epilog="Example:\n  entitymill runs --config conf/articles.yaml --last 5",
    )
    common.add_settings_options(built)
    built.add_argument("--last", type=common.positive_number(int), default=SHOWN, help=f"number of runs (default {SHOWN})")
    built.add_argument("--json", action="store_true", help="print one JSON object per line")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the latest runs of an output, as a table or as JSON, and return the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        """Read the runs, if possible without Spark, and print them."""
        common.check_output_exists(settings)
        runs = _read_local_runs(settings.output, settings.spark.conf, options.last)
        if runs is None:
            progress.begin_step("starting Spark")
            from entitymill.spark.session import open_session  # imports Spark
            from entitymill.tables import Tables

            spark = open_session(settings.spark, "entitymill runs", brief=lambda: True)
            runs = read_runs(Tables(spark, settings.output), options.last)
        runs = [_add_error_from_log(run) for run in runs]
        console = open_console(soft_wrap=True, highlight=False)
        if options.json:
            for row in runs:
                print(_format_json(row))
        else:
            console.print(build_table(runs))
            for detail in filter(None, map(_describe_run, runs)):
                console.print(detail, markup=False)

    return common.run_with_settings(options, work, "interrupted.")


def _read_local_runs(output: OutputSettings, conf: Mapping[str, str], last: int) -> list[RunRow] | None:
    """Return the latest `last` runs, newest first, without starting Spark; None if only Spark can read the tables.

    `conf` is the setting spark.conf. The progress of active runs comes from their heartbeat files, as in `read_runs`.
    Raise OutputError if no run has written the tables yet.
    """
    from entitymill.tables import runs_without_spark

    rows = runs_without_spark.read_rows(output, conf, last)
    return rows and _add_progress(rows, lambda: runs_without_spark.read_heartbeats(output, conf))


def read_runs(tables: Tables, last: int) -> list[RunRow]:
    """Return the latest `last` runs, newest first.

    The progress of an active run comes from its heartbeat, a small file that a run rewrites while it is alive. Raise
    OutputError if no run has written the tables yet.
    """
    from pyspark.sql import functions as F

    from entitymill.tables import heartbeats
    from entitymill.tables.runs import collect_rows

    if not tables.exists("runs"):
        raise OutputError(f"output: no run has written {tables.output} yet; run the job first.")
    found = collect_rows(tables.read("runs").orderBy(F.desc("started_at")).limit(last))
    return _add_progress(found, lambda: heartbeats.read_all(tables))


def _add_progress(rows: list[RunRow], read_heartbeats: Callable[[], list[RunRow]]) -> list[RunRow]:
    """Return `rows`, which are rows of the table `runs`, with newer progress of active runs from their heartbeat files.

    `read_heartbeats` returns the rows in the heartbeat files; this function calls it only if a run is active.
    """
    if all(row.status != "running" for row in rows):
        return rows
    newest = {row.run_id: row for row in read_heartbeats()}
    return [_update_progress(row, newest.get(row.run_id, row)) for row in rows]


def _update_progress(row: RunRow, heartbeat: RunRow) -> RunRow:
    """Return `row` with newer values of `until` (the lease's end) and of the columns in PROGRESS, copied from `heartbeat`.

    `heartbeat` is the row in the run's heartbeat file. Return `row` unchanged unless both rows have the status "running".
    """
    if not row.status == heartbeat.status == "running":
        return row
    return replace(row, until=heartbeat.until, **{name: getattr(heartbeat, name) for name in PROGRESS})


def _add_error_from_log(run: RunRow) -> RunRow:
    """Return the run with the error that its log contains, if its row in `runs` has none; otherwise return it unchanged.

    A run that fails because the disk is full, for example, cannot record its error in `runs`. The log is read only if the
    status is "running" or "died", and the run's driver was on this machine.
    """
    if run.error or run.log is None or run.status not in ("running", "died") or run.host != socket.gethostname():
        return run
    mark = exit_codes.RUN_FAILED % (run.run_id, "")
    try:
        if not Path(run.log).is_file():  # anyone who can write to `runs` may name a pipe, which would block this program
            return run
        with Path(run.log).open("rb") as file:
            file.seek(-min(_LOG_BYTES, os.fstat(file.fileno()).st_size), os.SEEK_END)
            lines = file.read(_LOG_BYTES).decode("utf8", "replace").split("\n")
    except OSError:  # the log was deleted, or is stderr
        return run
    return next((replace(run, error=line.partition(mark)[2]) for line in lines if mark in line), run)


def _format_json(row: RunRow) -> str:
    """Return a run as a JSON object with the keys in _COLUMNS; times are in UTC, in ISO format."""
    return json.dumps({name: getattr(row, name) for name in _COLUMNS}, default=datetime.isoformat)


def build_table(runs: Sequence[RunRow]) -> Table:
    """Return the table that is printed: per run its id, start (local time), status, mode, documents, rejects and duration.

    If a run's end is not recorded, the duration is the time from its start until now.
    """
    shown = Table(title="Runs, newest first", title_justify="left", show_edge=False, pad_edge=False)
    # In a narrow terminal, the other columns are cut, but not the id: people copy it.
    shown.add_column("run", no_wrap=True, min_width=max((len(visible(run.run_id, lines=False)) for run in runs), default=0))
    for heading in ("started", "status", "mode", "documents", "rejects", "took"):
        shown.add_column(heading, justify="right" if heading in ("documents", "rejects", "took") else "left", no_wrap=True)
    for run in runs:
        end = run.ended_at or datetime.now(timezone.utc)
        shown.add_row(
            _cell(run.run_id),
            f"{run.started_at.astimezone():%Y-%m-%d %H:%M}",
            _cell(run.status),
            _cell(run.mode),
            f"{run.documents:,}",
            f"{run.rejects:,}",
            format_duration((end - run.started_at).total_seconds()),
            style=_STYLES.get(run.status or "", ""),
        )
    return shown


def _cell(value: str | None) -> Text:
    """Return a value as plain text with control characters escaped, since anyone who can write to `runs` may have set it."""
    return Text(visible(value or "", lines=False))


def _describe_run(run: RunRow) -> str:
    """Return a line of details about a run, or an empty string for a run that ended and neither has an error nor died.

    An active run's line has its progress and, if the run seems dead, the error in its log or the end of its lease. Another
    run's line has its error or, if a run died without recording one, its last stage and its progress.
    """
    text, log = "", f" Log: {run.log or 'not recorded'}, on {run.host}."
    if run.status == "running":
        text = f"{run.stage or 'active'}, {_format_progress(run)}"
        if run.error:
            noted = "This error is only in the log of the run, not in the table `runs`; the next run takes over."
            text = f"{run.error} {noted} Last seen: {text}.{log}"
        elif run.until is not None and run.until < datetime.now(timezone.utc):
            ended = f"{run.until.astimezone():%Y-%m-%d %H:%M}"
            text = f"no heartbeat since its lease ended at {ended}; the next run takes over. Last seen: {text}.{log}"
    elif run.error:
        text = run.error + (f" Log: {run.log}" if run.log else "")
    elif run.status == "died":
        text = f"it ended without recording an error, in the stage {run.stage or 'preparation'}, after "
        text += f"{_format_progress(run)}; the next run continues.{log}"
    return visible(f"{run.run_id}: {text}") if text else ""


def _format_progress(run: RunRow) -> str:
    """Return how much of a run is published, such as "3 of 8 units, 1,200 of 4,000 documents".

    If the number of planned documents is 0, the documents are left out.
    """
    text = f"{run.units_done} of {run.units} units"
    return f"{text}, {run.documents:,} of {run.planned:,} documents" if run.planned else text
