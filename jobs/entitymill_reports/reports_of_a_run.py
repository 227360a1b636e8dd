"""Report on a run while it proceeds: write its page and metrics, send its lineage, and compare it with earlier runs.

Errors in this module never roll back what the run has published.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import SparkSession
from rich.console import Console

from entitymill.errors import SettingsError
from entitymill.run.exit_codes import convert_error
from entitymill.run.summary import Summary
from entitymill.settings import Settings
from entitymill.spark import files_on_this_machine, installation
from entitymill.tables import Tables
from entitymill.tables.runs import IDLE
from entitymill_reports import drift as drift_module
from entitymill_reports import lineage, prometheus_metrics
from entitymill_reports.drift import Drift
from entitymill_reports.table_reader import TableReader, open_spark_reader

log = logging.getLogger(f"entitymill.{__name__}")  # a child of the logger `entitymill`, so that its handler is used


class Observer:
    """Writes and sends the reports on one run. `observe` creates this object, and the job calls its methods as it runs."""

    def __init__(self, settings: Settings, outcome: prometheus_metrics.RunOutcome, events: lineage.Lineage | None) -> None:
        """Keep references to the arguments; if `events` is None, the observer sends no lineage events."""
        self._settings = settings
        self._outcome = outcome
        self._events = events

    def set_tables(self, tables: Tables) -> None:
        """Keep a reference to the output's tables, from which metrics are read when the run ends; nothing is read yet."""
        self._outcome.tables = tables

    def begin(self, summary: Summary) -> None:
        """Send the lineage event for the start of the run, if the settings ask for lineage."""
        if self._events is not None:
            self._events.begin(summary)

    def finish(self, spark: SparkSession, tables: Tables, summary: Summary, console: Console) -> None:
        """Write the report page of a run that has published its results, and compare the run with earlier runs.

        The page is written only if report.path is set; if it cannot be written, the run does not fail. Raise DriftError if
        report.fail_on_drift is set, and the run differs too much from earlier runs. The summary and the result of the
        comparison are stored for the metrics, even if DriftError is raised.
        """
        self._outcome.summary = summary
        self._outcome.drift = write_page_and_compare_runs(spark, self._settings, tables, summary, console)
        drift_module.check_drift(self._outcome.drift, self._settings.report)


@contextmanager
def observe(settings: Settings, *, dry_run: bool) -> Iterator[Observer]:
    """Report on the run inside the `with` block: write metrics and send lineage when the run ends, even if it fails.

    The value of the `with` statement is the run's observer, whose methods the caller must call as the run proceeds.

    Args:
        dry_run: whether this is a dry run, which writes no metrics and sends no lineage.

    Raises:
        SettingsError: a library that the settings require is not installed; raised before the run begins.
    """
    if settings.report.path is not None:
        installation.require_extra("report.path", "report")
    enabled = not dry_run
    with (
        prometheus_metrics.record_metrics(settings, enabled=enabled) as outcome,
        lineage.emit_lineage(settings, enabled=enabled) as events,
    ):
        yield Observer(settings, outcome, events)


def write_page(reader: TableReader, settings: Settings, to: str, run_id: str | None = None) -> Drift:
    """Write the report page of an output, atomically replacing an older page; return the comparison of runs on the page.

    Args:
        to: path of the page's file.
        run_id: the id of the run to show, or None for the latest completed run that processed or removed documents.

    Raises:
        SettingsError: no recent run has this id, report.date_column has a wrong type, or the page cannot be written.
    """
    from entitymill_reports import page, page_queries  # noqa: PLC0415  # imports libraries of the extra `report`

    content = page_queries.read_page_content(reader, settings, run_id)
    drift = drift_module.compare_runs(content.run, content.before, settings.report)
    # A character that UTF-8 cannot encode is replaced, because it must not prevent the page from being written.
    rendered = page.render(content, drift).encode("utf8", "replace")
    try:
        files_on_this_machine.write_atomically(Path(to), rendered)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        option = "report.path" if to == settings.report.path else "--to"
        raise SettingsError(f"{option}: {to} cannot be written: {reason}; name another file.") from error
    return drift


def write_page_and_compare_runs(
    spark: SparkSession, settings: Settings, tables: Tables, summary: Summary, console: Console
) -> Drift | None:
    """If report.path is set, write the report page and print its path; return how the run compares with earlier runs.

    A failure to write the page raises no error, because the run has already published its results. Instead, it is reported
    in the log and on the console. The first of these cases that applies decides the result:
    - The run had nothing to do: None.
    - The page was written: the comparison that the page shows.
    - No page was written, and report.fail_on_drift is not set: None.
    - No page was written, and report.fail_on_drift is set: a comparison that is computed from the tables. Only in this case,
      errors in reading the tables are raised.
    """
    report = settings.report
    drift: Drift | None = None
    # After a run with nothing to do, the page shows an earlier run, which was compared when it ended.
    run_id = summary.run_id if summary.mode != IDLE else None
    if report.path is not None:
        try:
            with open_spark_reader(spark, settings, tables) as reader:
                drift = write_page(reader, settings, report.path, run_id)
            console.print(f"{'page':11}", report.path, highlight=False, soft_wrap=True, markup=False)
        except Exception as error:
            log.exception("the page of the run could not be written")
            message = f"The run was published, but its page could not be written: {convert_error(error)}"
            console.print(message, highlight=False, soft_wrap=True, markup=False)
    if run_id is None:
        return None
    if drift is None and report.fail_on_drift:
        from entitymill_reports import page_queries  # noqa: PLC0415  # needed only for this setting

        with open_spark_reader(spark, settings, tables) as reader:
            run, before = page_queries.read_runs(reader, run_id)
        drift = drift_module.compare_runs(run, before, report)
    return drift
