"""What a run does last: it looks for drift, and writes its page. Nothing here undoes a run that has published."""

from __future__ import annotations

import logging
from pathlib import Path

from pyspark.sql import SparkSession
from rich.console import Console

from entitymill.errors import SettingsError
from entitymill.run import outcome
from entitymill.run.summary import Summary
from entitymill.settings import Settings
from entitymill.spark import whole_files
from entitymill.tables import Tables
from entitymill.tables.runs import IDLE
from entitymill_reports import drift as drift_module
from entitymill_reports.drift import Drift

log = logging.getLogger(__name__)


def write_page(spark: SparkSession, settings: Settings, tables: Tables, to: str, run_id: str | None = None) -> Drift:
    """Write the page of an output, in the place of what is there at once; returns the drift that it shows.

    Args:
        to: the file.
        run_id: of the run that it is about; none: the latest that did anything.

    Raises:
        OutputError: there are no tables.
        SettingsError: a setting of the page does not fit the tables, or the file cannot be written.
    """
    from entitymill_reports import page, page_queries  # noqa: PLC0415  # libraries of the extra

    figures = page_queries.read(spark, settings, tables, run_id)
    drift = drift_module.compare(figures.run, figures.before, settings.report)
    try:
        # Characters that UTF-8 cannot say must not cost the page.
        whole_files.write(Path(to), page.render(figures, drift).encode("utf8", "replace"))
    except OSError as error:
        raise SettingsError(f"report.path: {to} cannot be written: {error.strerror or error}.") from error
    return drift


def finish(spark: SparkSession, settings: Settings, tables: Tables, summary: Summary, console: Console) -> Drift | None:
    """Do what the settings want done after a run; returns its drift where that was looked at.

    A page that cannot be written is said, in the log and to the person, and is no error: the run has published.

    Args:
        tables: it wrote.
        console: where the person is told.
    """
    chosen, drift = settings.report, None
    # After a run with nothing to do the page is about the one before, which was judged when it ended.
    run_id = summary.run_id if summary.mode != IDLE else None
    if chosen.path is not None:
        try:
            drift = write_page(spark, settings, tables, chosen.path, run_id)
            console.print(f"{'page':11}", chosen.path, highlight=False, soft_wrap=True, markup=False)
        except Exception as error:
            log.exception("the page was not written")
            said = f"The run was published, but not its page: {outcome.classify_error(error)}"
            console.print(said, highlight=False, soft_wrap=True, markup=False)
    if run_id is None:
        return None
    if drift is None and chosen.fail_on_drift:
        from entitymill_reports import page_queries  # noqa: PLC0415  # only here

        run, before = page_queries.read_runs(spark, tables, run_id)
        drift = drift_module.compare(run, before, chosen)
    return drift
