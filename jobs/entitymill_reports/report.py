"""`entitymill report`: an output's tables -> one HTML file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from entitymill import settings as settings_module
from entitymill.commands import common
from entitymill.errors import SettingsError
from entitymill.settings import Settings
from entitymill.spark import requirements
from entitymill.terminal.console_text import open_console


def parser() -> argparse.ArgumentParser:
    """The options of `entitymill report`."""
    built = argparse.ArgumentParser(
        prog="entitymill report",
        description="Write a page about the entity tables of a job and its latest run: one HTML file that needs no network.",
        epilog="It shows text only where report.show_text is set. Exit codes: 0 done, 2 bad settings, 6 done, but the run "
        "is far from the ones before (report.fail_on_drift), 1 anything else.",
    )
    common.add_settings(built)
    built.add_argument("--to", metavar="FILE.html", help="the file to write; else report.path")
    built.add_argument("--run", metavar="RUN_ID", help="the run that it is about; else the latest that had anything to do")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], str]) -> None:
        settings = settings_module.load(options.config, options.overrides)
        to = options.to or settings.report.path
        if to is None:
            raise SettingsError("--to is not given, and report.path is not set: name the HTML file to write.")
        start_log(settings.log)
        _write(settings, to, options.run)

    return common.reporting(work, "interrupted; no page was written.")


def _write(settings: Settings, to: str, run_id: str | None) -> None:
    # Spark takes a second to import; --help and a bad setting need it not.
    from entitymill.spark.session import open_session
    from entitymill.tables import Tables
    from entitymill_reports import after_run, drift

    requirements.require_extra("entitymill report", "report")
    spark = open_session(settings.spark, "entitymill report")
    found = after_run.write_page(spark, settings, Tables(spark, settings.output), to, run_id)
    open_console().print("page", to, highlight=False, soft_wrap=True, markup=False)
    drift.check(found, settings.report)
