"""What a bench measures with: wall and CPU seconds of a process and all it started, repeated."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Spent:
    """Seconds one run took."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """CPU seconds of this process and its descendants, those that ended included."""
    own = psutil.Process()
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def spend(work: Callable[[], object]) -> Spent:
    """Run once."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return Spent(time.perf_counter() - wall, cpu_seconds() - cpu)


def line(name: str, runs: list[Spent], units: float, unit: str) -> str:
    """Minimum and median of several runs, and the rate at the median."""
    walls, cpus = sorted(run.wall for run in runs), sorted(run.cpu for run in runs)
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    return (
        f"{name:34} wall {walls[0]:7.2f} min {wall:7.2f} median   cpu {cpus[0]:7.2f} min {cpu:7.2f} median   "
        f"{units / wall:8.0f} {unit}/s wall {units / cpu:8.0f} {unit}/cpu-s"
    )


def median(runs: list[Spent]) -> Spent:
    """Of wall and CPU each."""
    return Spent(statistics.median(run.wall for run in runs), statistics.median(run.cpu for run in runs))


def describe() -> str:
    """The processor, its cores, and the precisions it has instructions for."""
    with open("/proc/cpuinfo", encoding="utf8") as file:  # noqa: PTH123
        text = file.read()
    name = next((row.split(":")[1].strip() for row in text.splitlines() if row.startswith("model name")), "?")
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return f"{name}, {os.cpu_count()} cores, {' '.join(flag for flag in wanted if f' {flag}' in text)}"
