"""Measure the CPU time that this program and Spark's tasks use."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from entitymill.spark import session, spark_connect

_TICKS = os.sysconf("SC_CLK_TCK")
_NANOSECONDS = 1e9


class CpuMeter:
    """Measures the CPU seconds of this process, the driver's JVM and, on a cluster, Spark's tasks in the executors' JVMs.

    The CPU time of Python workers is not included.
    """

    def __init__(self, spark: SparkSession) -> None:
        """Start the measurement; `read_seconds` returns the CPU seconds used since."""
        self._spark = spark
        self._tasks: dict[int, float] = {}
        self._before = 0.0
        self._before = self.read_seconds() or 0.0

    def read_seconds(self) -> float | None:
        """Return the CPU seconds used since the meter was created; None with Spark Connect, or if they cannot be read.

        On a cluster, call this often: Spark forgets all but its latest stages (spark.ui.retainedStages).
        """
        if spark_connect.is_remote(self._spark):
            return None
        context: Any = self._spark.sparkContext
        with suppress(Exception):  # each Spark version may keep its counters elsewhere
            java = _read_process_seconds(int(session.get_class(self._spark, "java.lang.ProcessHandle").current().pid()))
            if not context._jsc.isLocal():
                self._tasks |= _read_task_seconds(context)
            return time.process_time() + java + sum(self._tasks.values()) - self._before
        return None


def _read_process_seconds(pid: int) -> float:
    """Return the CPU seconds of a process without its children, from fields 14 and 15 of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _read_task_seconds(context: Any) -> dict[int, float]:
    """Return a dict stage id -> CPU seconds of the stage's tasks, for the stages that Spark still remembers."""
    store, java = context._jsc.sc().statusStore(), context._jvm
    no_quantiles = context._gateway.new_array(java.double, 0)
    stages = store.stageList(None, False, False, no_quantiles, java.java.util.ArrayList())
    found = (stages.apply(at) for at in range(stages.size()))
    return {int(stage.stageId()): float(stage.executorCpuTime()) / _NANOSECONDS for stage in found}
