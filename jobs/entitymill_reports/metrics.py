"""A run's figures for Prometheus: a file for node_exporter's textfile collector, or a push to a Pushgateway."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from entitymill import __version__
from entitymill.run import outcome
from entitymill.settings import Settings, secret_masking
from entitymill.spark import requirements, whole_files
from entitymill.terminal.console_text import open_console

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from entitymill.run.summary import Summary
    from entitymill.tables import Tables
    from entitymill_reports.drift import Drift

log = logging.getLogger(__name__)
JOB = "entitymill"
PUSH_SECONDS = 5
"""What a push may take: it is the last thing that a run does."""
MOST_LABELS = 100
_WORKERS = ("encoding", "inference", "segmentation")
"""Stages whose seconds are summed over all cores."""
_OVER_ALL = "over all runs of the output"


@dataclass(frozen=True)
class Totals:
    """Over all runs of an output. mentions: by label; last_success: seconds since 1970."""

    runs: Mapping[str, int]
    documents: int
    sentences: int
    rejects: int
    mentions: Mapping[str, int]
    last_success: float | None


@dataclass
class Known:
    """What is known of a run when it ends, however it ends: all but the first two may be missing.

    output: where its tables are, without secrets.
    started: when.
    exit_code: 0, or that of its error.
    summary: of a run that published.
    drift: where that was looked at.
    tables: from which the totals come.
    totals: over all runs.
    """

    output: str
    started: datetime
    exit_code: int = 0
    summary: Summary | None = None
    drift: Drift | None = None
    tables: Tables | None = None
    totals: Totals | None = None
    ended: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


@contextmanager
def kept(settings: Settings, *, wanted: bool = True) -> Iterator[Known]:
    """Write the figures of what goes on inside, however it ends; where no setting asks for them, do nothing.

    Figures that cannot be written are said, in the log and on stderr, and are no error.

    Args:
        wanted: whether it is a run at all.

    Raises:
        SettingsError: they are asked for, and the library is missing; nothing was done yet.
    """
    place = secret_masking.mask_address(settings.output.path or settings.output.schema_ or "")
    known = Known(place, datetime.now(timezone.utc))
    wanted = wanted and bool(settings.metrics.textfile or settings.metrics.pushgateway)
    if wanted:
        requirements.require_extra("metrics", "metrics")
    try:
        yield known
    except BaseException as error:
        known.exit_code = outcome.describe_error(error)[1]
        if wanted:
            # An interrupted run has no time to ask Spark.
            _write(settings, known, totals=isinstance(error, Exception))
        raise
    if wanted:
        _write(settings, known, totals=True)


def _write(settings: Settings, known: Known, *, totals: bool) -> None:
    known.ended = datetime.now(timezone.utc)
    try:
        if totals and known.tables is not None:
            known.totals = read_totals(known.tables)
    except Exception:
        log.exception("the totals of the runs could not be read for the metrics")
    registry = collect(known)
    for setting, write in (("textfile", write_textfile), ("pushgateway", push)):
        place = getattr(settings.metrics, setting)
        try:
            if place:
                write(registry, place, known)
        except Exception as error:
            log.exception("metrics were not written")
            where, why = secret_masking.mask_address(place), type(error).__name__
            said = f"metrics.{setting}: the figures could not be written to {where}: {why}."
            open_console(stderr=True, highlight=False, soft_wrap=True).print(said, markup=False)


def read_totals(tables: Tables) -> Totals | None:
    """Sums over the table `runs`, in two queries; none where there is no such table."""
    from pyspark.sql import functions as F  # noqa: PLC0415  # Spark, which --help needs not

    from entitymill.tables.runs import exclude_maintenance  # noqa: PLC0415

    if not tables.exists("runs"):
        return None
    runs = exclude_maintenance(tables.read("runs")).where("status <> 'running'")
    sums = [F.sum(name).alias(name) for name in ("documents", "sentences", "rejects")]
    each = (
        runs.groupBy("status")
        .agg(F.count("*").alias("runs"), F.max(F.unix_micros("ended_at")).alias("ended"), *sums)
        .collect()
    )
    labels = runs.select(F.explode("entities_by_label").alias("label", "mentions"))
    by_label = labels.groupBy("label").agg(F.sum("mentions").alias("mentions")).limit(MOST_LABELS).collect()
    ended = next((row["ended"] for row in each if row["status"] == "done"), None)
    documents, sentences, rejects = (sum(row[name] or 0 for row in each) for name in ("documents", "sentences", "rejects"))
    return Totals(
        {row["status"]: row["runs"] for row in each},
        documents,
        sentences,
        rejects,
        {row["label"]: row["mentions"] for row in by_label},
        None if ended is None else ended / 1e6,
    )


def collect(known: Known) -> _Figures:
    """The figures of a run, as far as they are known; counters are sums over all runs of the output."""
    figures = _Figures(known.output)
    published = known.summary is not None
    figures.gauge("run_success", "Whether the last run published all it had to do: 1, or 0", float(published))
    figures.gauge("run_exit_code", "Exit code of the last run", known.exit_code)
    figures.gauge("run_start_timestamp_seconds", "Start of the last run", known.started.timestamp())
    figures.gauge("run_end_timestamp_seconds", "End of the last run", known.ended.timestamp())
    seconds = (known.ended - known.started).total_seconds()
    figures.gauge("run_duration_seconds", "Seconds by the clock of the last run, its page included", seconds)
    figures.add("Gauge", "build_info", "Version of the program, always 1", {__version__: 1}, "version")
    if known.summary is not None:
        _of_summary(figures, known.summary)
    if known.drift is not None:
        marked = len(known.drift.marked)
        figures.gauge("run_drift_marked", "Figures of the last run that differ by more than report.drift_* allow", marked)
    if known.totals is not None:
        _of_totals(figures, known.totals)
    return figures


def _of_summary(figures: _Figures, summary: Summary) -> None:
    for name in ("documents", "removed", "units", "sentences", "tokens"):
        figures.gauge(f"run_{name}", f"{name.capitalize()} of the last run", getattr(summary, name))
    figures.gauge("run_sentences_per_second", "Over the whole last run", summary.sentences_per_second)
    figures.add("Gauge", "run_mentions", "Mentions that the last run found", summary.by_label, "label")
    figures.add("Gauge", "run_rejects", "Rows that the last run refused", summary.rejects, "code")
    clock = {stage: spent for stage, spent in summary.seconds.items() if stage not in (*_WORKERS, "total")}
    figures.add("Gauge", "run_stage_seconds", "Seconds by the clock of the last run", clock, "stage")
    workers = {stage: spent for stage, spent in summary.seconds.items() if stage in _WORKERS}
    figures.add(
        "Gauge", "run_worker_seconds", "Parts of recognition in the last run, summed over all cores", workers, "stage"
    )


def _of_totals(figures: _Figures, totals: Totals) -> None:
    counted = {"documents": ("Documents processed", totals.documents), "sentences": ("Sentences tagged", totals.sentences)}
    for name, (help_, value) in {**counted, "rejects": ("Rows refused", totals.rejects)}.items():
        figures.add("Counter", name, f"{help_}, {_OVER_ALL}", {"": value})
    figures.add("Counter", "runs", f"Runs that ended, {_OVER_ALL}", totals.runs, "status")
    figures.add("Counter", "mentions", f"Mentions found, {_OVER_ALL}", totals.mentions, "label")
    if totals.last_success is not None:
        figures.gauge("last_success_timestamp_seconds", "End of the latest run that published", totals.last_success)


class _Figures:
    """Metrics of one output, each with the label `output` and at most one more; a collector of prometheus_client's."""

    def __init__(self, output: str) -> None:
        """None yet."""
        self._output = output
        self._families: list[Metric] = []

    def collect(self) -> list[Metric]:
        """All of them."""
        return self._families

    def gauge(self, name: str, help_: str, value: float) -> None:
        self.add("Gauge", name, help_, {"": value})

    def add(self, kind: str, name: str, help_: str, values: Mapping[str, float], label: str = "") -> None:
        """A family with a value for each of a label's, or one without; a Counter's name is without the `_total` it gets."""
        from prometheus_client import core  # noqa: PLC0415  # of the extra

        labels = ["output", label] if label else ["output"]
        family = getattr(core, f"{kind}MetricFamily")(f"{JOB}_{name}", f"{help_}.", labels=labels)
        for key, value in sorted(values.items()):
            family.add_metric([self._output, key] if label else [self._output], value)
        self._families.append(family)


def write_textfile(registry: Any, path: str, _: Known) -> None:
    """Write the file under another name, and rename it: a collector never sees half of it."""
    from prometheus_client import generate_latest  # noqa: PLC0415  # of the extra

    whole_files.write(Path(path), generate_latest(registry))


def push(registry: Any, address: str, known: Known) -> None:
    """Send the figures, grouped by output. After a failed run what it cannot know stays as the one before left it."""
    from prometheus_client import exposition, push_to_gateway, pushadd_to_gateway  # noqa: PLC0415  # of the extra

    parts = urlsplit(address)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    user, password = unquote(parts.username or ""), unquote(parts.password or "")

    handler = partial(exposition.basic_auth_handler, username=user or None, password=password)
    send = push_to_gateway if known.summary is not None else pushadd_to_gateway
    send(bare, JOB, registry, {"output": known.output}, timeout=PUSH_SECONDS, handler=handler)
