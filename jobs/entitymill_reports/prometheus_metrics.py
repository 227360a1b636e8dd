"""Write the metrics of a run for Prometheus: to a file for node_exporter's textfile collector, or to a Pushgateway."""

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

from entitymill import __version__, schemas
from entitymill.run import exit_codes
from entitymill.settings import Settings, secret_masking
from entitymill.spark import files_on_this_machine, installation
from entitymill.terminal.console_text import open_console

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from entitymill.run.summary import Summary
    from entitymill.tables import Tables
    from entitymill_reports.drift import Drift

log = logging.getLogger(f"entitymill.{__name__}")  # a child of the logger `entitymill`, so that its handler is used
JOB = "entitymill"
"""Name of the job for the Pushgateway, and prefix of the names of all metrics."""
PUSH_SECONDS = 5
"""Time limit, in seconds, for sending metrics to the Pushgateway, which is the last step of a run."""
MAX_LABELS = 100
"""Maximum number of labels, such as PER, for which the mentions of all runs are counted."""
_CORE_SECONDS_STAGES = (*schemas.PARTS, "spark", "idle")
"""The stages of a run whose seconds are summed over all cores; all other stages have wall-clock seconds."""
_OVER_ALL = "over all runs of the output"


@dataclass(frozen=True)
class Totals:
    """Sums over all runs of an output that have ended, except maintenance (`entitymill maintain` and `entitymill erase`).

    runs: number of runs by the status with which they ended, without idle runs (runs that had nothing to do).
    documents, sentences, rejects: numbers of processed documents, tagged sentences and rejected rows.
    mentions: number of mentions that the runs found, by label; at most MAX_LABELS labels.
    last_success: end of the latest run with the status done, in seconds since 1970; None if there is no such run.
    """

    runs: Mapping[str, int]
    documents: int
    sentences: int
    rejects: int
    mentions: Mapping[str, int]
    last_success: float | None


@dataclass
class RunOutcome:
    """What is known about a run when it ends; after a failure, some fields may be None.

    output: path or schema of the run's tables, without secrets.
    started, ended: when the run began and ended, in UTC.
    exit_code: 0, or the exit code of the run's error.
    summary: the run's summary if the run published all its results; otherwise None.
    drift: the result of comparing the run with earlier runs; None if they were not compared.
    tables: the tables from which the totals are read; None if the run ended before it opened the tables.
    totals: the sums over all runs of the output; None until they are read, or if they cannot be read.
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
def record_metrics(settings: Settings, *, enabled: bool = True) -> Iterator[RunOutcome]:
    """Write the metrics of the run inside the `with` block when the run ends, whether it succeeds or fails.

    The value of the `with` statement is a RunOutcome, in which the caller must set `summary`, `drift` and `tables` when they
    are known. Metrics are written to metrics.textfile and metrics.pushgateway, if these settings are set. If writing fails,
    this is reported in the log and on stderr, and the run does not fail.

    Args:
        enabled: whether to write metrics; the caller passes false for dry runs.

    Raises:
        SettingsError: a setting asks for metrics, but Prometheus' library is not installed; raised before the run begins.
    """
    output = secret_masking.mask_address(settings.output.path or settings.output.schema_ or "")
    run_outcome = RunOutcome(output, datetime.now(timezone.utc))
    enabled = enabled and bool(settings.metrics.textfile or settings.metrics.pushgateway)
    if enabled:
        installation.require_extra("metrics", "metrics")
    try:
        yield run_outcome
    except BaseException as error:
        run_outcome.exit_code = exit_codes.describe_error(error)[1]
        if enabled:
            # An interrupted run must end quickly, so it does not read the totals with Spark.
            _write_metrics(settings, run_outcome, totals=isinstance(error, Exception))
        raise
    if enabled:
        _write_metrics(settings, run_outcome, totals=True)


def _write_metrics(settings: Settings, run_outcome: RunOutcome, *, totals: bool) -> None:
    """Write the metrics to the file and the Pushgateway that the settings name; report failures in the log and on stderr.

    First, set `run_outcome.ended` to now. If the argument `totals` is true, also read the sums over all runs with Spark, and
    set `run_outcome.totals`. Otherwise the metrics of these sums are left out.
    """
    run_outcome.ended = datetime.now(timezone.utc)
    try:
        if totals and run_outcome.tables is not None:
            run_outcome.totals = read_totals(run_outcome.tables)
    except Exception:
        log.exception("the totals of the runs could not be read for the metrics")
    registry = build_metrics(run_outcome)
    for setting, write in (("textfile", write_textfile), ("pushgateway", push)):
        target = getattr(settings.metrics, setting)
        try:
            if target:
                write(registry, target, run_outcome)
        except Exception as error:
            log.exception("metrics could not be written")
            where, why = secret_masking.mask_address(target), type(error).__name__
            message = f"metrics.{setting}: the metrics could not be written to {where}: {why}. This does not affect the run."
            open_console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)


def read_totals(tables: Tables) -> Totals | None:
    """Return the sums over all runs in the `runs` table that have ended; None if the table does not exist.

    Maintenance is left out. Idle runs (runs that had nothing to do) count only for `last_success`: later, `entitymill
    maintain optimize` deletes their rows, and a counter must never decrease. If there are more than MAX_LABELS labels, only
    the mentions of MAX_LABELS arbitrary labels are counted. This function runs two Spark queries.
    """
    from pyspark.sql import functions as F  # noqa: PLC0415  # imports Spark, which --help does not need

    from entitymill.tables.runs import IDLE, exclude_maintenance  # noqa: PLC0415

    if not tables.exists("runs"):
        return None
    runs = exclude_maintenance(tables.read("runs")).where("status <> 'running'")
    sums = [F.sum(name).alias(name) for name in ("documents", "sentences", "rejects")]
    count = F.count_if(~F.col("mode").eqNullSafe(IDLE)).alias("runs")
    each = runs.groupBy("status").agg(count, F.max(F.unix_micros("ended_at")).alias("ended"), *sums).collect()
    labels = runs.select(F.explode("entities_by_label").alias("label", "mentions"))
    by_label = labels.groupBy("label").agg(F.sum("mentions").alias("mentions")).limit(MAX_LABELS).collect()
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


def build_metrics(run_outcome: RunOutcome) -> _Metrics:
    """Return the metrics of a run, as a collector for prometheus_client.

    Metrics without a value in `run_outcome` are left out. Counters are sums over all runs of the output.
    """
    metrics = _Metrics(run_outcome.output)
    published = run_outcome.summary is not None
    metrics.gauge("run_success", "1 if the last run published everything, else 0", float(published))
    metrics.gauge("run_exit_code", "Exit code of the last run", run_outcome.exit_code)
    metrics.gauge("run_start_timestamp_seconds", "Start of the last run", run_outcome.started.timestamp())
    metrics.gauge("run_end_timestamp_seconds", "End of the last run", run_outcome.ended.timestamp())
    seconds = (run_outcome.ended - run_outcome.started).total_seconds()
    metrics.gauge("run_duration_seconds", "Wall-clock seconds of the last run, including its page", seconds)
    metrics.add("Gauge", "build_info", "Version of the program; the value is always 1", {__version__: 1}, "version")
    if run_outcome.summary is not None:
        _add_summary(metrics, run_outcome.summary)
    if run_outcome.drift is not None:
        flagged = len(run_outcome.drift.flagged)
        metrics.gauge("run_drift_marked", "Measures of the last run that differ by more than report.drift_* allow", flagged)
    if run_outcome.totals is not None:
        _add_totals(metrics, run_outcome.totals)
    return metrics


def _add_summary(metrics: _Metrics, summary: Summary) -> None:
    """Add to `metrics` the counts, the speed, and the seconds by stage of the run that has just ended.

    The stages `total` and `recognizing`, which overlap other stages, are left out.
    """
    for name in ("documents", "removed", "units", "sentences", "tokens"):
        metrics.gauge(f"run_{name}", f"{name.capitalize()} of the last run", getattr(summary, name))
    metrics.gauge(
        "run_sentences_per_second", "Sentences per second of the last run, including set-up", summary.sentences_per_second
    )
    metrics.add("Gauge", "run_mentions", "Mentions that the last run found", summary.by_label, "label")
    metrics.add("Gauge", "run_rejects", "Rows that the last run rejected", summary.rejects, "code")
    clock = {
        stage: spent
        for stage, spent in summary.seconds.items()
        if stage not in (*_CORE_SECONDS_STAGES, "recognizing", "total")
    }
    metrics.add("Gauge", "run_stage_seconds", "Wall-clock seconds of the last run by stage", clock, "stage")
    workers = {stage: spent for stage, spent in summary.seconds.items() if stage in _CORE_SECONDS_STAGES}
    metrics.add(
        "Gauge", "run_worker_seconds", "Seconds of each part of recognition, summed over all cores", workers, "stage"
    )


def _add_totals(metrics: _Metrics, totals: Totals) -> None:
    """Add to `metrics` the sums over all runs as counters, and the time of the last success if there was one."""
    counted = {"documents": ("Documents processed", totals.documents), "sentences": ("Sentences tagged", totals.sentences)}
    for name, (help_, value) in {**counted, "rejects": ("Rows rejected", totals.rejects)}.items():
        metrics.add("Counter", name, f"{help_}, {_OVER_ALL}", {"": value})
    metrics.add("Counter", "runs", f"Runs that ended and had something to do, {_OVER_ALL}", totals.runs, "status")
    metrics.add("Counter", "mentions", f"Mentions found, {_OVER_ALL}", totals.mentions, "label")
    if totals.last_success is not None:
        metrics.gauge("last_success_timestamp_seconds", "End of the latest run that succeeded", totals.last_success)


class _Metrics:
    """Collects one output's metrics for prometheus_client. Each has the Prometheus label `output`, and at most one other."""

    def __init__(self, output: str) -> None:
        """Create an empty collector; every metric will have the label `output` with this value."""
        self._output = output
        self._families: list[Metric] = []

    def collect(self) -> list[Metric]:
        """Return all metrics; prometheus_client calls this."""
        return self._families

    def gauge(self, name: str, help_: str, value: float) -> None:
        """Add a gauge with one value, and with `output` as its only label (see `add` for the arguments)."""
        self.add("Gauge", name, help_, {"": value})

    def add(self, kind: str, name: str, help_: str, values: Mapping[str, float], label: str = "") -> None:
        """Add a metric; prometheus_client adds the suffix `_total` to the name of a counter.

        Args:
            kind: Gauge or Counter.
            name: the metric's name without the prefix `entitymill_`.
            help_: description of the metric, without a period.
            values: dict from each value of `label` to the metric's value. If `label` is empty, the dict has one value,
                and its key is ignored.
            label: name of a second label, in addition to `output`; empty for none.
        """
        from prometheus_client import core  # noqa: PLC0415  # installed only with the extra

        labels = ["output", label] if label else ["output"]
        family = getattr(core, f"{kind}MetricFamily")(f"{JOB}_{name}", f"{help_}.", labels=labels)
        for key, value in sorted(values.items()):
            family.add_metric([self._output, key] if label else [self._output], value)
        self._families.append(family)


def write_textfile(registry: Any, path: str, _: RunOutcome) -> None:
    """Write the metrics to a file, atomically, so that node_exporter never reads an incomplete file.

    The argument `_` is not used: this function has the same arguments as `push`.
    """
    from prometheus_client import generate_latest  # noqa: PLC0415  # installed only with the extra

    files_on_this_machine.write_atomically(Path(path), generate_latest(registry))


def push(registry: Any, address: str, run_outcome: RunOutcome) -> None:
    """Send the metrics to a Pushgateway, which keeps a group of metrics for each output.

    After a run that published all its results, the metrics replace all metrics of the group. After any other run, they
    replace only metrics with the same names. A user and password in the URL `address` are sent as basic authentication.
    """
    from prometheus_client import exposition, push_to_gateway, pushadd_to_gateway  # noqa: PLC0415  # installed only with the extra

    parts = urlsplit(address)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    user, password = unquote(parts.username or ""), unquote(parts.password or "")

    handler = partial(exposition.basic_auth_handler, username=user or None, password=password)
    send = push_to_gateway if run_outcome.summary is not None else pushadd_to_gateway
    send(bare, JOB, registry, {"output": run_outcome.output}, timeout=PUSH_SECONDS, handler=handler)
