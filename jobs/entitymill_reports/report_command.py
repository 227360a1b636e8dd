"""`entitymill report`: write the report page, an HTML page about the tables of an output and its latest run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from entitymill import settings as settings_module
from entitymill.commands import common
from entitymill.errors import SettingsError
from entitymill.settings import Settings
from entitymill.spark import installation
from entitymill.terminal import progress
from entitymill.terminal.console_text import open_console

if TYPE_CHECKING:
    from entitymill_reports.drift import Drift


def parser() -> argparse.ArgumentParser:
    """Return the parser for the command line of `entitymill report`."""
    built = common.build_parser(
        "report",
        description="Write a page about the entity tables of a job and its latest run: one HTML file that needs no network.",
        epilog="The page shows text of documents only if report.show_text is set.\n"
        "Exit codes: 0 done, 2 bad settings, 6 done, but the run differs too much from earlier runs (report.fail_on_drift), "
        "1 anything else.",
    )
    common.add_settings_options(built)
    built.add_argument("--to", metavar="FILE.html", help="the file to write (default: report.path)")
    built.add_argument(
        "--run",
        metavar="RUN_ID",
        help="the run to show (default: the latest completed run that processed or removed documents)",
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `entitymill report`, and return its exit code."""
    options = parser().parse_args(arguments)

    def load_settings_and_write_page(start_log: Callable[[str | None], str]) -> None:
        """Load the settings, start the log, and write the page to --to or, without this option, to report.path."""
        settings = settings_module.load(options.config, options.overrides)
        to = options.to or settings.report.path
        if to is None:
            raise SettingsError("Neither --to nor report.path names the HTML file to write: pass --to FILE.html.")
        start_log(settings.log)
        _write_page(settings, to, options.run)

    return common.run_and_report(load_settings_and_write_page, "interrupted; no page was written.")


def _write_page(settings: Settings, to: str, run_id: str | None) -> None:
    """Write the report page to the file `to`, and print its path; start Spark only if the tables cannot be read without it.

    If `run_id` is None, the page shows the latest completed run that processed or removed documents. After writing the page,
    raise DriftError if the run differs too much from earlier runs, and report.fail_on_drift is set.
    """
    # Imported only here: importing Spark takes a second, which --help and errors in the settings do not need.
    from entitymill_reports import drift, reports_of_a_run
    from entitymill_reports.table_reader import open_local_reader

    installation.require_extra("entitymill report", "report")
    common.check_output_exists(settings)
    progress.begin_step("reading the tables")
    reader = open_local_reader(settings)
    if reader is not None:
        page_drift = reports_of_a_run.write_page(reader, settings, to, run_id)
    else:
        page_drift = _write_page_with_spark(settings, to, run_id)
    open_console().print("page", to, highlight=False, soft_wrap=True, markup=False)
    drift.check_drift(page_drift, settings.report)


def _write_page_with_spark(settings: Settings, to: str, run_id: str | None) -> Drift:
    """Start Spark, write the report page, and return the comparison of runs that the page shows."""
    from entitymill.spark.session import open_session
    from entitymill.tables import Tables
    from entitymill_reports import reports_of_a_run
    from entitymill_reports.table_reader import open_spark_reader

    progress.begin_step("starting Spark")
    spark = open_session(settings.spark, "entitymill report")
    progress.begin_step("reading the tables")
    with open_spark_reader(spark, settings, Tables(spark, settings.output)) as reader:
        return reports_of_a_run.write_page(reader, settings, to, run_id)
