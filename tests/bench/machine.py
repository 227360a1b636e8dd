"""Measure wall and CPU seconds and memory of a process and its descendants."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from entitymill.recognition.hardware import read_processor

BETWEEN_LOOKS, BETWEEN_SHARES = 0.1, 1.0
"""Seconds between two measurements of a process tree, and between two that include shared memory, which take longer."""
STRAGGLERS_SECONDS = 20.0
"""Maximum seconds to wait for descendants after the watched program has ended."""
MEGABYTE = 1e6
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Resolution of CPU times in Linux, in seconds."""


@dataclass(frozen=True)
class Spent:
    """Wall and CPU seconds of one run."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Watched(Spent):
    """Measurements of a program and its descendants.

    resident: peak memory of all processes together, in MB; a page that several processes share counts for each of them.
    proportional: the same, but each shared page counts only once.
    """

    resident: float
    proportional: float


def cpu_seconds() -> float:
    """Return CPU seconds of this process and its descendants, including those that have ended."""
    own = psutil.Process()
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def spend(work: Callable[[], object]) -> Spent:
    """Call a function once and return the time it took."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return Spent(time.perf_counter() - wall, max(TICK, cpu_seconds() - cpu))


class _Tree:
    """A program and its descendants, as far as they were observed."""

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._cpu: dict[psutil.Process, float] = {}
        self.alive: set[psutil.Process] = set()
        self.resident = self.proportional = 0.0

    @property
    def cpu(self) -> float:
        """Return the CPU seconds of all processes, as last observed."""
        return sum(self._cpu.values())

    def look(self, *, shares: bool) -> None:
        """Record the CPU time of each process so far, and the current memory of all processes."""
        with suppress(psutil.NoSuchProcess):
            self.alive |= {self._root, *self._root.children(recursive=True)}
        resident = proportional = 0.0
        for process in list(self.alive):
            try:
                times = process.cpu_times()
                resident += process.memory_info().rss
                proportional += process.memory_full_info().pss if shares else 0
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                self.alive.discard(process)
                continue
            self._cpu[process] = times.user + times.system
        self.resident = max(self.resident, resident)
        self.proportional = max(self.proportional, proportional)


def watch(command: Sequence[object], directory: Path, log: Path) -> Watched:
    """Run a program to its end, and return measurements of it.

    Raises:
        RuntimeError: the program failed; the message contains the end of its output.
    """
    began = shared = time.perf_counter()
    with log.open("wb") as printed:
        root = psutil.Popen([str(part) for part in command], cwd=directory, stdout=printed, stderr=subprocess.STDOUT)
        tree = _Tree(psutil.Process(root.pid))
        while root.poll() is None:
            shares = time.perf_counter() - shared > BETWEEN_SHARES
            shared = time.perf_counter() if shares else shared
            tree.look(shares=shares)
            time.sleep(BETWEEN_LOOKS)
        wall = time.perf_counter() - began
        while tree.alive and time.perf_counter() - began - wall < STRAGGLERS_SECONDS:
            tree.look(shares=False)
            time.sleep(BETWEEN_LOOKS)
    if root.returncode:
        raise RuntimeError(f"exit code {root.returncode}: {log.read_text(encoding='utf8', errors='replace')[-2000:]}")
    return Watched(wall, tree.cpu, tree.resident / MEGABYTE, tree.proportional / MEGABYTE)


def line(name: str, runs: Sequence[Spent], units: float, unit: str) -> str:
    """Return a line with minimum and median of several runs, and the rate at the median."""
    walls, cpus = sorted(run.wall for run in runs), sorted(run.cpu for run in runs)
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    return (
        f"{name:36} wall {walls[0]:7.2f} min {wall:7.2f} median   cpu {cpus[0]:7.2f} min {cpu:7.2f} median   "
        f"{units / wall:8.0f} {unit}/s wall {units / max(cpu, 1e-9):8.0f} {unit}/cpu-s"
    )


def median(runs: Sequence[Spent]) -> Spent:
    """Return the medians of wall and CPU seconds."""
    return Spent(statistics.median(run.wall for run in runs), statistics.median(run.cpu for run in runs))


def has_bf16() -> bool:
    """Return whether the processor computes in bfloat16; otherwise OpenVINO runs bf16 models in f32."""
    return read_processor().computes_in("bf16")


def describe() -> str:
    """Describe the processor, its cores, and the precisions that it has instructions for."""
    found = f"{read_processor().describe()}; {os.cpu_count()} cores"
    return found if has_bf16() else f"{found}; no bf16: what is set to bf16 runs in f32"
