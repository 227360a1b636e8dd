"""Read the features of this machine's processor, and the memory and cores that this container, such as a pod, may use.

The features decide in which precisions (number formats) the processor computes slowly.
"""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from entitymill.recognition.tagger import Precision

_CPU_INFO = Path("/proc/cpuinfo")
_INSTRUCTION_SETS: dict[Precision, frozenset[str]] = {
    "f32": frozenset(),
    "bf16": frozenset({"avx512_bf16", "amx_bf16"}),
    "int8": frozenset({"avx512_vnni", "avx_vnni", "amx_int8"}),
}
"""The instruction sets for each precision. A processor with at least one of them computes in the precision natively, without
converting numbers. f32 needs none of them."""
_DRAWBACKS = {
    "bf16": "bf16 is no faster than f32 on a processor without AVX512_BF16 or AMX",
    "int8": "int8 is slower than f32 on a processor without VNNI",
}
RELEVANT_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""The instruction sets that decide how fast a precision is, as Linux names them."""
_EXECUTOR_CORES = "SPARK_EXECUTOR_CORES"
"""Environment variable with the number of an executor's cores; Spark sets it in its pods on Kubernetes."""
CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux mounts the control groups (cgroups, version 1 or 2), whose files contain a container's limits."""


@dataclass(frozen=True)
class Processor:
    """A processor: its name, and the names of its instruction sets (an empty set if Linux does not list them)."""

    name: str
    instructions: frozenset[str]

    def describe(self) -> str:
        """Return the name, followed by the instruction sets that decide how fast a precision is."""
        return ", ".join([self.name, *(name for name in RELEVANT_INSTRUCTION_SETS if name in self.instructions)])

    def find_drawback(self, precision: Precision) -> str | None:
        """Return why a precision is slow on this processor; None if it is fast, or if the instruction sets are not known."""
        if not self.instructions or self.computes_in(precision):
            return None
        return _DRAWBACKS.get(precision)

    def computes_in(self, precision: Precision) -> bool:
        """Return whether the processor has instructions for a precision and so computes in it natively; always True for f32.

        For bf16 and int8, the result is False if the instruction sets are not known.
        """
        return not _INSTRUCTION_SETS[precision] or bool(self.instructions & _INSTRUCTION_SETS[precision])


def read_processor(file: Path = _CPU_INFO) -> Processor:
    """Return the processor of this machine, as Linux describes it in `file`.

    If the file lacks the name, it comes from Python's module platform. If the file lacks the instruction sets, as on ARM,
    the set is empty. A file that cannot be read counts as empty.
    """
    try:
        lines = file.read_text(encoding="utf8").splitlines()
    except OSError:
        lines = []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    return Processor(
        fields.get("model name") or platform.processor() or platform.machine(), frozenset(fields.get("flags", "").split())
    )


def read_memory_limit() -> int | None:
    """Return the memory limit of this container in bytes; None if there is no limit, or if it cannot be read.

    But with cgroups version 1, "no limit" is stored as a number larger than any memory, and this number is returned.
    """
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # the file is missing, or contains "max"
            return int((CGROUPS / name).read_text())
    return None


def count_cores() -> int:
    """Return the number of cores of this Spark executor; if it is unknown, the number of CPUs that this container may use.

    The executor's cores are in the variable SPARK_EXECUTOR_CORES. The result is at least 1. A fractional limit is rounded.
    """
    with contextlib.suppress(KeyError, ValueError):
        return max(1, int(os.environ[_EXECUTOR_CORES]))
    cpus = len(os.sched_getaffinity(0))
    quota = _read_cpu_quota()
    return cpus if quota is None else max(1, min(cpus, round(quota)))


def _read_cpu_quota() -> float | None:
    """Return the CPU limit of this container in CPUs, such as 1.5; None if there is no limit, or if it cannot be read."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError):  # a file is missing, or contains "max"
            quota, period = (int(word) for name in names for word in (CGROUPS / name).read_text().split())
            if quota > 0 and period > 0:
                return quota / period
    return None
