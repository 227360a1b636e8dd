"""Follow a run: write its page, metrics and lineage, and check it for drift."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession
from rich.console import Console

from entitymill.run.summary import Summary
from entitymill.settings import Settings
from entitymill.spark import requirements
from entitymill.tables import Tables
from entitymill_reports import after_run, drift, lineage, metrics


class Observer:
    """The observer of one run; `observe` creates it."""

    def __init__(self, settings: Settings, outcome: metrics.RunOutcome, events: lineage.Lineage | None) -> None:
        """Store where the run's outcome is collected, and what sends its lineage events; None sends nothing."""
        self._settings = settings
        self._outcome = outcome
        self._events = events

    def open_tables(self, tables: Tables) -> None:
        """Store the tables that the run writes."""
        self._outcome.tables = tables

    def begin(self, summary: Summary) -> None:
        """Send the lineage event for the start of the run."""
        if self._events is not None:
            self._events.begin(summary)

    def finish(self, spark: SparkSession, tables: Tables, summary: Summary, console: Console) -> None:
        """Write the page of a run that has published, and compare the run with earlier ones.

        Raises:
            DriftError: the run differs too much from them.
        """
        self._outcome.summary = summary
        self._outcome.drift = after_run.finish(spark, self._settings, tables, summary, console)
        drift.check_drift(self._outcome.drift, self._settings.report)


@contextmanager
def observe(settings: Settings, *, dry_run: bool) -> Iterator[Observer]:
    """Follow the run inside the `with` block; write metrics and lineage when it ends, even if it fails.

    Raises:
        SettingsError: a library is missing; the run has not begun.
    """
    if settings.report.path is not None:
        requirements.require_extra("report.path", "report")
    enabled = not dry_run
    with (
        metrics.record_metrics(settings, enabled=enabled) as outcome,
        lineage.emit_lineage(settings, enabled=enabled) as events,
    ):
        yield Observer(settings, outcome, events)
