"""Read the CPU time that a program and Spark's tasks have used so far."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from entitymill.spark import spark_connect

_TICKS = os.sysconf("SC_CLK_TCK")
_NANOSECONDS = 1e9


def read_cpu_seconds(spark: SparkSession) -> float | None:
    """Return the CPU seconds of this process, the driver's JVM and Spark's tasks in other JVMs; None if they are unknown.

    They are unknown with Spark Connect. Python workers are not included. On a cluster, Spark keeps the numbers of its
    latest stages only (spark.ui.retainedStages).
    """
    if spark_connect.is_remote(spark):
        return None
    context: Any = spark.sparkContext
    with suppress(Exception):  # each Spark version may keep its counters elsewhere
        java = _read_process_seconds(int(context._jvm.java.lang.ProcessHandle.current().pid()))
        tasks = 0.0 if context._jsc.isLocal() else _read_task_seconds(context)
        return time.process_time() + java + tasks
    return None


def _read_process_seconds(pid: int) -> float:
    """Return user and system time of a process, without its children; the fields 14 and 15 of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _read_task_seconds(context: Any) -> float:
    store, java = context._jsc.sc().statusStore(), context._jvm
    no_quantiles = context._gateway.new_array(java.double, 0)
    stages = store.stageList(None, False, False, no_quantiles, java.java.util.ArrayList())
    return sum(float(stages.apply(at).executorCpuTime()) for at in range(stages.size())) / _NANOSECONDS
