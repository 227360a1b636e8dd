"""Measure how many core-hours (hours multiplied by cores) and CPU seconds a run uses; stop it at limits.max_core_hours."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from entitymill.errors import LimitError
from entitymill.run.summary import JOB_CPU, RECOGNITION_CPU, Clock, Summary
from entitymill.run.work_units import PlannedUnit
from entitymill.spark import session, spark_connect

_TICKS = os.sysconf("SC_CLK_TCK")
_NANOSECONDS = 1e9


class CostMeter:
    """Measures core-hours and CPU seconds of one run, and writes them to the run's summary."""

    def __init__(self, spark: SparkSession, summary: Summary, clock: Clock, max_core_hours: float | None) -> None:
        """Start to measure CPU seconds now. Core-hours are counted from the creation of `clock`, which is earlier.

        Args:
            summary: the run's summary, which `update` changes.
            clock: the run's stopwatch.
            max_core_hours: core-hours after which `limit_units` ends and sets the attribute `stopped` to True; None for no
                limit.
        """
        self._spark = spark
        self._summary = summary
        self._clock = clock
        self._max_core_hours = max_core_hours
        self._cpu = CpuMeter(spark)
        self._counted_at = 0.0
        self.stopped = False

    def update(self) -> None:
        """Write the number of cores, the total time, the core-hours and, if known, the job's CPU seconds to the summary.

        The time since the previous update counts with the number of cores that Spark has now. The job's CPU seconds are
        those of `read_spark_seconds` plus `cpu_seconds[RECOGNITION_CPU]` of the summary.
        """
        summary = self._summary
        summary.cores = spark_connect.count_cores(self._spark)
        self._clock.record_total()
        total = summary.seconds["total"]
        # The number of executors may change during a run.
        summary.core_seconds += summary.cores * (total - self._counted_at)
        self._counted_at = total
        job = self._cpu.read_seconds()
        if job is not None:
            summary.cpu_seconds[JOB_CPU] = job + summary.cpu_seconds.get(RECOGNITION_CPU, 0.0)

    def read_spark_seconds(self) -> float | None:
        """Return the CPU seconds that the driver and Spark's tasks have used since this meter was created; None if unknown.

        The CPU time of Python workers is not included.
        """
        return self._cpu.read_seconds()

    def limit_units(self, units: Iterator[PlannedUnit]) -> Iterator[PlannedUnit]:
        """Yield the given units of work, but stop as soon as the run has used `max_core_hours`.

        The first unit is always yielded, so that each run makes progress. The summary is updated before each unit. At
        the limit, no error is raised here: the caller must call `raise_if_stopped` afterwards, which raises LimitError.
        """
        for number, unit in enumerate(units):
            self.update()
            if number and self._max_core_hours is not None and self._summary.core_hours >= self._max_core_hours:
                self.stopped = True
                return
            yield unit

    def raise_if_stopped(self) -> None:
        """Raise LimitError if the run reached its limit before `limit_units` had yielded all units."""
        if self.stopped:
            summary = self._summary
            raise LimitError(
                f"limits.max_core_hours: the run stopped at {summary.core_hours:.2f} core-hours, after it "
                f"published {summary.documents:,} of {summary.planned:,} documents; the next run continues."
            )


class CpuMeter:
    """Measures the CPU seconds of this process, the driver's JVM and, on a cluster, Spark's tasks in the executors' JVMs.

    The measurement starts when the object is created. The CPU time of Python workers is not included.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._tasks: dict[tuple[int, int], float] = {}
        self._before = 0.0
        self._before = self.read_seconds() or 0.0

    def read_seconds(self) -> float | None:
        """Return the CPU seconds used since this object was created; None with Spark Connect, or if they cannot be read.

        On a cluster, the caller must call this often. Spark remembers only its latest stages (spark.ui.retainedStages), so
        the seconds of stages that it has forgotten between two calls are missing.
        """
        if spark_connect.is_remote(self._spark):
            return None
        context: Any = self._spark.sparkContext
        with suppress(Exception):  # these private counters may move in another version of Spark
            java = _read_process_seconds(int(session.get_class(self._spark, "java.lang.ProcessHandle").current().pid()))
            if not context._jsc.isLocal():
                self._tasks |= _read_task_seconds(context)
            return time.process_time() + java + sum(self._tasks.values()) - self._before
        return None


def _read_process_seconds(pid: int) -> float:
    """Return the CPU seconds that process `pid`, but not its children, has used (fields 14 and 15 of proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _read_task_seconds(context: Any) -> dict[tuple[int, int], float]:
    """Return a dict from a Spark stage's id and attempt number to the CPU seconds of its tasks.

    `context` is the SparkContext. Stages that Spark has already forgotten are missing (spark.ui.retainedStages).
    """
    store, java = context._jsc.sc().statusStore(), context._jvm
    no_quantiles = context._gateway.new_array(java.double, 0)
    stages = store.stageList(None, False, False, no_quantiles, java.java.util.ArrayList())
    found = (stages.apply(at) for at in range(stages.size()))
    return {(int(each.stageId()), int(each.attemptId())): each.executorCpuTime() / _NANOSECONDS for each in found}
