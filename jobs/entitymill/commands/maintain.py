"""`entitymill maintain`: compact and clean up the tables of a job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pyspark.sql import SparkSession
from rich.table import Table

from entitymill.commands import common
from entitymill.errors import OutputError
from entitymill.settings import Settings
from entitymill.spark.private_session import open_private_session
from entitymill.spark.session import open_session
from entitymill.tables import Tables, table_setup
from entitymill.tables.maintenance import WEEK_HOURS, TableChange, optimize, purge, shared_access, vacuum
from entitymill.tables.output_tables import build_write_confs
from entitymill.terminal import progress
from entitymill.terminal.console_text import open_console


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill maintain` and jobs/maintain_tables.py."""
    built = common.build_parser(
        "maintain",
        script="maintain_tables.py",
        description="Compact and clean up the entity tables of a job.",
        epilog="optimize and vacuum may run at the same time as the job (on S3 they wait until no run is active); purge "
        "waits until no run is active.\n"
        "Exit codes: 0 done, 2 bad settings, 1 anything else.",
    )
    common.add_settings_options(built)
    tasks = built.add_subparsers(dest="task", required=True)
    tasks.add_parser("optimize", help="compact small files").add_argument(
        "--sort", action="store_true", help="rewrite all files, sorted by doc_id"
    )
    for name, default, what in (
        ("vacuum", WEEK_HOURS, "delete files that only old versions need"),
        ("purge", 0, "physically delete removed documents"),
    ):
        retention = f"versions younger than this many hours stay readable (default {default})"
        hours = common.positive_number(float, or_zero=True)
        tasks.add_parser(name, help=what).add_argument("--retain-hours", type=hours, default=default, help=retention)
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Run optimize, vacuum or purge, as the options say, on the tables of one output, and return the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        """Start Spark, run the task that the options name, and print what it changed."""
        common.check_output_exists(settings)
        progress.begin_step("starting Spark")
        spark = open_session(settings.spark, "entitymill maintenance")
        progress.begin_step(f"running {options.task}, after waiting for active runs if necessary")
        _run_task(spark, settings, options)

    return common.run_with_settings(options, work, "interrupted; finished steps are kept, and it is safe to run this again.")


def entry() -> None:
    """Run `main` for the console script `entitymill-maintain`, and end the program with its exit code."""
    common.exit_with(main())


def _run_task(spark: SparkSession, settings: Settings, options: argparse.Namespace) -> None:
    """Check that the output has tables of this job, run the task, and print how it changed the tables' files.

    Raise OutputError if there are no entity tables, or if this command must not change them: for example, they belong to
    another program, or their schema version is not this program's version.
    """
    with open_private_session(spark, settings.source.time_zone, build_write_confs(settings.output)) as own:
        tables = Tables(own, settings.output)
        if not tables.exists("documents"):
            output = tables.address("documents").rpartition("/")[0] or settings.output.schema_
            raise OutputError(f"output: no entity tables at {output}; check output.path or output.schema.")
        table_setup.check_tables_to_write(tables)
        changes, note = _change_tables(tables, settings, options)
    _print_changes(changes, note)


def _change_tables(tables: Tables, settings: Settings, options: argparse.Namespace) -> tuple[list[TableChange], str]:
    """Run the task in `options`; return how each table's files changed, and a note for the user about what was done.

    Raise SettingsError if --retain-hours is less than 24 for vacuum. Raise OutputError if the task must wait for another run
    that is still active after `limits.wait_seconds`.
    """
    if options.task == "optimize":
        with shared_access(tables, settings):
            return optimize(tables, sort=options.sort), "small files compacted"
    hours = options.retain_hours
    note = f"versions older than {hours:g} hours can no longer be read"
    if options.task == "purge":
        gone = (
            f"rows that were removed more than {hours:g} hours ago are gone from the disk, except from files younger than a "
            "day that no version uses"
        )
        return purge(tables, settings, hours), f"{note}, and {gone}; {_LOG_NOTE}"
    with shared_access(tables, settings):
        return vacuum(tables, settings, hours), note


_LOG_NOTE = (
    "the Delta log still contains the smallest and greatest doc_id of each deleted file, until the log's retention ends "
    "(30 days)"
)


def _format_number(value: float | None, decimals: int) -> str:
    """Return a number with `decimals` decimal places; `?` for None, an unknown number."""
    return "?" if value is None else f"{value:,.{decimals}f}"


def _print_changes(changes: list[TableChange], note: str) -> None:
    """Print how maintenance changed the files of each table, then the note.

    Per table, print the number of data files, their total size in MB, and the number of all files on disk, each before and
    after maintenance.
    """
    table = Table("table", "files", "MB", "files on disk")
    for change in changes:
        counts = zip(change.before, change.after, (0, 1, 0), strict=True)
        cells = [f"{_format_number(old, decimals)} -> {_format_number(new, decimals)}" for old, new, decimals in counts]
        table.add_row(change.name, *cells)
    console = open_console()
    console.print(table)
    console.print(note, highlight=False)
