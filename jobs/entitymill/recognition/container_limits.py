"""Read how much memory and how many cores the container of this process may use, for example a pod on Kubernetes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_EXECUTOR_CORES = "SPARK_EXECUTOR_CORES"
"""Environment variable with the number of an executor's cores; Spark sets it in its pods on Kubernetes."""
CGROUPS = Path("/sys/fs/cgroup")
"""Where the cgroups, in version 1 or 2, are mounted."""


def read_memory_limit() -> int | None:
    """Return the memory limit of this container in bytes; None if there is no limit.

    If version 1 of cgroups sets no limit, the result is a number that is larger than any memory.
    """
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # the file is missing, or contains "max"
            return int((CGROUPS / name).read_text())
    return None


def count_cores() -> int:
    """Return the number of cores of this container: the executor's cores or, if unknown, the CPUs that it may use."""
    with contextlib.suppress(KeyError, ValueError):
        return max(1, int(os.environ[_EXECUTOR_CORES]))
    cpus = len(os.sched_getaffinity(0))
    quota = _read_cpu_quota()
    return cpus if quota is None else max(1, min(cpus, round(quota)))


def _read_cpu_quota() -> float | None:
    """Return the CPU limit of this container as a number of CPUs, such as 1.5; None if there is no limit."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError):  # a file is missing, or contains "max"
            quota, period = (int(word) for name in names for word in (CGROUPS / name).read_text().split())
            if quota > 0 and period > 0:
                return quota / period
    return None
