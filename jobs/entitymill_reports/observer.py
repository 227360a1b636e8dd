"""Follow a run: write the report page, metrics and lineage of the run, and check it for drift."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession
from rich.console import Console

from entitymill.run.summary import Summary
from entitymill.settings import Settings
from entitymill.spark import requirements
from entitymill.tables import Tables
from entitymill_reports import drift, lineage, page_and_drift, prometheus_metrics


class Observer:
    """Follows one run, which calls the methods at its stages; created by `observe`."""

    def __init__(self, settings: Settings, outcome: prometheus_metrics.RunOutcome, events: lineage.Lineage | None) -> None:
        """Keep references to the objects that the observer uses. If `events` is None, no lineage events are sent."""
        self._settings = settings
        self._outcome = outcome
        self._events = events

    def open_tables(self, tables: Tables) -> None:
        """Keep a reference to the output's tables, from which metrics are read when the run ends; nothing is read yet."""
        self._outcome.tables = tables

    def begin(self, summary: Summary) -> None:
        """Send the lineage event for the start of the run, if lineage events are sent at all."""
        if self._events is not None:
            self._events.begin(summary)

    def finish(self, spark: SparkSession, tables: Tables, summary: Summary, console: Console) -> None:
        """Write the report page of a run that has published its results, and compare the run with earlier runs.

        Each is done only if the settings ask for it (see `page_and_drift.finish`).
        No error is raised if the page cannot be written.

        Raises:
            DriftError: the run differs too much from earlier runs, and report.fail_on_drift is set.
        """
        self._outcome.summary = summary
        self._outcome.drift = page_and_drift.finish(spark, self._settings, tables, summary, console)
        drift.check_drift(self._outcome.drift, self._settings.report)


@contextmanager
def observe(settings: Settings, *, dry_run: bool) -> Iterator[Observer]:
    """Follow the run inside the `with` block; write metrics and send lineage when the run ends, even if it fails.

    The value of the `with` statement is the run's observer.

    Args:
        settings: the settings of the run.
        dry_run: whether this is a dry run, for which neither metrics nor lineage are written.

    Raises:
        SettingsError: a library that the settings require is not installed; raised before the run begins.
    """
    if settings.report.path is not None:
        requirements.require_extra("report.path", "report")
    enabled = not dry_run
    with (
        prometheus_metrics.record_metrics(settings, enabled=enabled) as outcome,
        lineage.emit_lineage(settings, enabled=enabled) as events,
    ):
        yield Observer(settings, outcome, events)
