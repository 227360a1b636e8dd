"""Write the report page of a run that ends, and look for drift. Errors here never roll back what the run has published."""

from __future__ import annotations

import logging
from pathlib import Path

from pyspark.sql import SparkSession
from rich.console import Console

from entitymill.errors import SettingsError
from entitymill.run import outcome
from entitymill.run.summary import Summary
from entitymill.settings import Settings
from entitymill.spark import local_paths
from entitymill.tables import Tables
from entitymill.tables.runs import IDLE
from entitymill_reports import drift as drift_module
from entitymill_reports.drift import Drift

log = logging.getLogger(__name__)


def write_page(spark: SparkSession, settings: Settings, tables: Tables, to: str, run_id: str | None = None) -> Drift:
    """Write the report page of an output, atomically replacing an older page, and return the drift that the page shows.

    Args:
        to: path of the page's file.
        run_id: the id of the run to show, or None for the latest run that processed or removed documents.

    Raises:
        OutputError: the output has no tables, or another program wrote them.
        SettingsError: a setting in `report` does not match the tables, or the file cannot be written.
    """
    from entitymill_reports import page, page_queries  # noqa: PLC0415  # import libraries of the extra `report`

    content = page_queries.read_page_content(spark, settings, tables, run_id)
    drift = drift_module.compare_runs(content.run, content.before, settings.report)
    try:
        # A character that UTF-8 cannot encode is replaced, because it must not prevent the page from being written.
        local_paths.write_atomically(Path(to), page.render(content, drift).encode("utf8", "replace"))
    except OSError as error:
        raise SettingsError(f"report.path: {to} cannot be written: {error.strerror or error}.") from error
    return drift


def finish(spark: SparkSession, settings: Settings, tables: Tables, summary: Summary, console: Console) -> Drift | None:
    """Write the report page and print its path if report.path is set; compare the run with earlier runs; return the drift.

    The result is None if the run had nothing to do, or if no page was written and report.fail_on_drift is not set. A page
    that cannot be written is reported in the log and on the console, but it is not an error, because the run has already
    published its results.
    """
    report = settings.report
    drift: Drift | None = None
    # After a run with nothing to do, the page shows an earlier run, whose drift was checked when that run ended.
    run_id = summary.run_id if summary.mode != IDLE else None
    if report.path is not None:
        try:
            drift = write_page(spark, settings, tables, report.path, run_id)
            console.print(f"{'page':11}", report.path, highlight=False, soft_wrap=True, markup=False)
        except Exception as error:
            log.exception("the page of the run could not be written")
            message = f"The run was published, but not its page: {outcome.convert_error(error)}"
            console.print(message, highlight=False, soft_wrap=True, markup=False)
    if run_id is None:
        return None
    if drift is None and report.fail_on_drift:
        from entitymill_reports import page_queries  # noqa: PLC0415  # needed only for this setting

        run, before = page_queries.read_runs(spark, tables, run_id)
        drift = drift_module.compare_runs(run, before, report)
    return drift
