"""`entitymill runs`: the runs of an output, newest first, how far the one at work is, and why those that failed did."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from entitymill.commands import common
from entitymill.errors import OutputError
from entitymill.terminal.console_text import open_console, visible
from entitymill.terminal.progress import duration

if TYPE_CHECKING:  # --help needs no Spark
    from entitymill.settings import Settings
    from entitymill.tables import Tables

SHOWN = 20
_STYLES = {"done": "green", "running": "cyan", "failed": "red", "died": "red", "stopped": "yellow"}
_COLUMNS = (
    "run_id", "started_at", "ended_at", "status", "mode", "stage", "documents", "planned", "removed", "units", "units_done",
    "sentences", "rejects", "sentences_per_second", "error", "exit_code", "application_id", "log", "until",
)  # fmt: skip
_PROGRESS = (
    "stage",
    "documents",
    "planned",
    "removed",
    "units",
    "units_done",
    "sentences",
    "rejects",
    "sentences_per_second",
)


def parser() -> argparse.ArgumentParser:
    """The options of `entitymill runs`."""
    built = argparse.ArgumentParser(
        prog="entitymill runs",
        description="List the runs of an output, newest first.",
        epilog="Example: entitymill runs --config conf/articles.yaml --last 5",
    )
    common.add_settings(built)
    built.add_argument("--last", type=common.positive(int), default=SHOWN, help=f"how many (default {SHOWN})")
    built.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """List; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        from entitymill.spark.session import open_session  # Spark
        from entitymill.tables import Tables

        found = read(
            Tables(open_session(settings.spark, "entitymill runs", brief=lambda: True), settings.output), options.last
        )
        console = open_console(soft_wrap=True, highlight=False)
        if options.json:
            for row in found:
                print(json.dumps(row, default=str))
        else:
            console.print(table(found))
            for said in filter(None, map(_more, found)):
                console.print(said, markup=False)

    return common.with_settings(options, work, "interrupted.")


def read(tables: Tables, last: int) -> list[dict[str, Any]]:
    """The latest runs, newest first; what their tables do not say is none.

    Raises:
        OutputError: there are none.
    """
    from pyspark.sql import functions as F

    from entitymill.tables import heartbeats

    if not tables.exists("runs"):
        raise OutputError(f"output: no run has written {tables.place} yet.")
    runs = tables.read("runs")
    held = [name for name in _COLUMNS if name in runs.columns]
    rows = runs.orderBy(F.desc("started_at")).limit(last).select(*held).collect()
    found = [{name: row[name] if name in held else None for name in _COLUMNS} for row in rows]
    if any(row["status"] == "running" for row in found):
        signs = heartbeats.read_all(tables)
        for row in found:
            _show_progress(row, signs.get(str(row["run_id"]), {}))
    return found


def _show_progress(row: dict[str, Any], sign: dict[str, Any]) -> None:
    """Put what a run's last sign of life says of its progress in the place of what its row said at the start."""
    if row["status"] == "running":
        row |= {name: sign[name] for name in _PROGRESS if sign.get(name) is not None}
        if sign.get("until"):
            row["until"] = datetime.fromisoformat(sign["until"]).astimezone().replace(tzinfo=None)


def table(runs: Sequence[dict[str, Any]]) -> Table:
    """As a person reads them."""
    shown = Table(title="Runs, newest first", title_justify="left")
    for heading in ("run", "started", "status", "mode", "documents", "rejects", "took"):
        shown.add_column(heading, justify="right" if heading in ("documents", "rejects", "took") else "left", no_wrap=True)
    for run in runs:
        end = run["ended_at"] or _now()
        shown.add_row(
            _cell(run["run_id"]),
            f"{run['started_at']:%Y-%m-%d %H:%M}",
            _cell(run["status"]),
            _cell(run["mode"] or ""),
            f"{run['documents'] or 0:,}",
            f"{run['rejects'] or 0:,}",
            duration((end - run["started_at"]).total_seconds()),
            style=_STYLES.get(run["status"], ""),
        )
    return shown


def _cell(value: str) -> Text:
    """A value of the table `runs`, which whoever may write there chose: neither markup nor a command to the terminal."""
    return Text(visible(value, lines=False))


def _now() -> datetime:
    """As Spark gives times: of this machine's time zone, which they do not name."""
    return datetime.now(timezone.utc).astimezone().replace(tzinfo=None)


def _more(run: dict[str, Any]) -> str:
    """How far a run is, or why it ended early; empty where there is nothing to say."""
    run = {name: visible(value) if isinstance(value, str) else value for name, value in run.items()}
    said = f"{run['run_id']}: "
    if run["status"] == "running":
        if run["until"] is not None and run["until"] < _now():
            said += f"no sign of life since its lease ended at {run['until']:%Y-%m-%d %H:%M}; the next run takes over. "
        far = f"{said}{run['stage'] or 'at work'}, {run['units_done'] or 0} of {run['units'] or 0} units"
        return f"{far}, {run['documents'] or 0:,} of {run['planned']:,} documents" if run["planned"] else far
    if run["error"]:
        return said + run["error"] + (f" Log: {run['log']}" if run["log"] else "")
    return f"{said}it ended without recording an error; see the log of its machine." if run["status"] == "died" else ""
