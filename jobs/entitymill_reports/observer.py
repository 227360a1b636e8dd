"""All that a run reports: what it is told when a run begins and ends, it turns into page, drift, metrics and lineage."""

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
    """Follows one run."""

    def __init__(self, settings: Settings, figures: metrics.Known, events: lineage.Lineage | None) -> None:
        """Take what the run's metrics are collected in, and where lineage events go; None for nowhere."""
        self._settings = settings
        self._figures = figures
        self._events = events

    def open_tables(self, tables: Tables) -> None:
        """Take note of the tables that the run writes."""
        self._figures.tables = tables

    def begin(self, summary: Summary) -> None:
        """Take note that the run has begun."""
        if self._events is not None:
            self._events.begin(summary)

    def finish(self, spark: SparkSession, tables: Tables, summary: Summary, console: Console) -> None:
        """Write the page of a run that has published, and compare the run with earlier ones.

        Raises:
            DriftError: it differs too much from them.
        """
        self._figures.summary = summary
        self._figures.drift = after_run.finish(spark, self._settings, tables, summary, console)
        drift.check_drift(self._figures.drift, self._settings.report)


@contextmanager
def observe(settings: Settings, *, dry_run: bool) -> Iterator[Observer]:
    """Follow the run that happens inside; write metrics and lineage when it ends, however it ends.

    Raises:
        SettingsError: a library is missing; nothing has been done yet.
    """
    if settings.report.path is not None:
        requirements.require_extra("report.path", "report")
    with metrics.kept(settings, wanted=not dry_run) as figures, lineage.told(settings, wanted=not dry_run) as events:
        yield Observer(settings, figures, events)
