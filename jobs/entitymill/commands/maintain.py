"""`entitymill maintain`: compact and clean up the tables of a job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pyspark.sql import SparkSession
from rich.table import Table

from entitymill.commands import common
from entitymill.errors import OutputError, SettingsError
from entitymill.settings import Settings
from entitymill.spark.run_session import open_private_session
from entitymill.spark.session import open_session
from entitymill.tables import Tables, table_setup
from entitymill.tables.maintenance import WEEK_HOURS, TableChange, optimize, purge, shared_access, vacuum
from entitymill.tables.output_tables import build_write_confs
from entitymill.terminal import activity
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
    tasks.add_parser("optimize", help="join small files").add_argument(
        "--sort", action="store_true", help="rewrite all files, in order of doc_id"
    )
    for name, default, what in (
        ("vacuum", WEEK_HOURS, "delete files that only old versions need"),
        ("purge", 0, "delete removed documents physically"),
    ):
        retention = f"versions younger than this many hours stay readable (default {default})"
        tasks.add_parser(name, help=what).add_argument("--retain-hours", type=float, default=default, help=retention)
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Maintain the tables of one output and return the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        common.check_output_exists(settings)
        activity.begin("starting Spark")
        spark = open_session(settings.spark, "entitymill maintenance")
        activity.begin(f"{options.task} of the tables, after runs that are at work have ended")
        _run(spark, settings, options)

    return common.run_with_settings(options, work, "interrupted; finished steps are kept, and it is safe to run this again.")


def entry() -> None:
    """Run the console script `entitymill-maintain`."""
    common.exit_with(main())


def _run(spark: SparkSession, settings: Settings, options: argparse.Namespace) -> None:
    with open_private_session(spark, settings.source.time_zone, build_write_confs(settings.output)) as own:
        tables = Tables(own, settings.output)
        if not tables.exists("documents"):
            place = tables.address("documents").rpartition("/")[0] or "that schema"
            raise OutputError(f"output: no entity tables at {place}; check output.path or output.schema.")
        table_setup.check_tables(tables)
        done, said = _maintain(tables, settings, options)
    _print(done, said)


def _maintain(tables: Tables, settings: Settings, options: argparse.Namespace) -> tuple[list[TableChange], str]:
    if options.task == "optimize":
        with shared_access(tables, settings):
            return optimize(tables, sort=options.sort), "small files joined"
    hours = options.retain_hours
    if hours < 0:
        raise SettingsError("--retain-hours cannot be negative.")
    said = f"versions older than {hours:g} hours can no longer be read"
    if options.task == "purge":
        return purge(tables, settings, hours), f"{said}, and rows removed before that are gone from the disk; {_LOG_NOTE}"
    with shared_access(tables, settings):
        return vacuum(tables, hours), said


_LOG_NOTE = "the Delta log contains the smallest and greatest ids of deleted files until its own retention ends (30 days)"


def _number(value: float | None, places: int) -> str:
    return "?" if value is None else f"{value:,.{places}f}"


def _print(done: list[TableChange], said: str) -> None:
    table = Table("table", "files", "MB", "files on disk")
    for one in done:
        sides = zip(one.before, one.after, (0, 1, 0), strict=True)
        table.add_row(one.name, *(f"{_number(old, places)} -> {_number(new, places)}" for old, new, places in sides))
    console = open_console()
    console.print(table)
    console.print(said, highlight=False)
