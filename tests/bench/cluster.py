"""Measure how busy many cores would be, with the complete job and a tagger that sleeps as long as a core would compute.

`python tests/bench/cluster.py [--cores 16 64] [--units 10] [--unit-seconds 30] [--rates base-f32] [--smoke]`

Sleeping needs no core, so this machine can simulate many cores. The driver's work is real: planning, commits and scheduling.
So is the work of Spark's tasks besides recognition. All of it runs on the few cores of this machine, so the result is a
lower bound. The printed CPU time shows whether this machine was the limit.

Idle core-seconds are attributed to phases: `before` the first text, `after` the last text, `tails` (some tasks sleep, but
fewer than there are cores), and `between` units (no task sleeps).

Before the first text, tasks read and hash the source with real CPU time, for which a cluster has more cores than this
machine. So the bench also prints how long these tasks would take with a core each, and which share would then be busy.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import machine
import pyarrow as pa
import sessions
from growth import texts
from pyspark.sql import DataFrame, SparkSession
from spark_counters import list_stages
from stub_engine import stub_tagger

from entitymill.run import extraction
from entitymill.run.extraction import extract
from entitymill.settings import sections
from entitymill.spark.session import open_session
from entitymill.workers.engine_choice import Engine

RATES = {"bundled-int8": 67_000, "bundled-f32": 21_800, "base-int8": 41_800, "base-f32": 12_000}
"""Assumed code points per second and core. Those of DistilBERT-base fit a processor with AVX-512 and VNNI."""
CHARS = 1500
"""Code points of a document."""
WORKER_MEMORY = "6g"


@dataclass(frozen=True)
class Busy:
    """Core-seconds of a run, and what they were spent on.

    wall: seconds of the run; busy: core-seconds in which texts were recognized; before, tails, between, after: idle
    core-seconds of the phases that the module describes.
    """

    cores: int
    wall: float
    busy: float
    before: float
    tails: float
    between: float
    after: float

    @property
    def share(self) -> float:
        """Return the share of the core-seconds that were busy."""
        return self.busy / (self.cores * self.wall)


def sleep_for(documents: DataFrame, rate: float, log: Path) -> DataFrame:
    """Return the stub's results, after sleeping in the tasks for as long as recognition takes at this rate.

    Args:
        documents: documents with the columns text and chars, among others.
        rate: code points per second.
        log: directory to which each worker writes the times at which it slept.
    """

    def sleep(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            began = time.time()
            time.sleep(sum(batch.column("chars").to_pylist()) / rate)
            with (log / str(os.getpid())).open("a", encoding="ascii") as file:
                file.write(f"{began} {time.time()}\n")
            yield batch

    return stub_tagger(documents.mapInArrow(sleep, documents.schema))


def measure_phases(log: Path, cores: int, began: float, ended: float) -> Busy:
    """Attribute a run's core-seconds to phases."""
    slept = [tuple(map(float, line.split())) for file in log.iterdir() for line in file.read_text("ascii").splitlines()]
    changes = sorted([(begin, 1) for begin, _ in slept] + [(end, -1) for _, end in slept])
    first, last = changes[0][0], changes[-1][0]
    tails = between = 0.0
    running, at = 0, first
    for moment, change in changes:
        idle = (cores - running) * (moment - at)
        if running:
            tails += idle
        else:
            between += idle
        running, at = running + change, moment
    busy = sum(end - begin for begin, end in slept)
    return Busy(cores, ended - began, busy, cores * (first - began), tails, between, cores * (ended - last))


def compare_stages(spark: SparkSession, cores: int, began: float, ended: float) -> tuple[float, float]:
    """Return the seconds in which stages ran between two times, and the seconds that they would take on `cores` real cores.

    The second number assumes that the tasks of a stage share its CPU time equally, that each task has a core to itself, as
    far as there are cores, and that one stage runs after the other. `began` and `ended` are in seconds since 1970.
    """
    here = there = 0.0
    counted = began
    for stage in sorted(list_stages(spark), key=lambda stage: stage.stageId()):
        if stage.completionTime().isEmpty() or stage.submissionTime().isEmpty():
            continue
        submitted, completed = (time_.get().getTime() / 1000 for time_ in (stage.submissionTime(), stage.completionTime()))
        if began <= submitted and completed <= ended:
            here += max(0, completed - max(submitted, counted))
            counted = max(counted, completed)
            there += stage.executorCpuTime() / 1e9 / min(cores, stage.numTasks())
    return here, min(here, there)


def run_once(spark: SparkSession, scratch: Path, rate: float, cores: int, units: int, unit_rows: int) -> None:
    """Run the job once into a new output, and print the shares."""
    source = scratch / f"source-{unit_rows}"
    if not source.exists():
        texts(spark, units * unit_rows, CHARS).write.parquet(str(source))
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        log = Path(directory) / "log"
        log.mkdir()
        engine = Engine("sleeping", "sleeping", lambda: partial(sleep_for, rate=rate, log=log))
        overrides = ("source.format=parquet", f"source.path={source}", f"output.path={directory}/out")
        loaded = sessions.loaded(*overrides, f"limits.unit_rows={unit_rows}")
        found = []
        began = time.time()
        with mock.patch.object(extraction, "open_engine", return_value=engine):
            spent = machine.spend(lambda: found.append(extract(spark, loaded)))
        busy = measure_phases(log, cores, began, time.time())
        here, there = compare_stages(spark, cores, began, began + busy.before / cores)
    tasks = f"{found[0].units} units, {units * unit_rows:,} documents"
    print(f"{cores} cores, {rate:,.0f} code points/s a core, {tasks}: {busy.wall:.1f} s, busy {busy.share:.3f}")
    idle = {name: getattr(busy, name) / (cores * busy.wall) for name in ("before", "tails", "between", "after")}
    print("  idle shares: " + ", ".join(f"{name} {share:.3f}" for name, share in idle.items()))
    shorter = busy.busy / (cores * (busy.wall - here + there))
    print(f"  stages before the first text: {here:.1f} s; on {cores} real cores {there:.1f} s, and busy {shorter:.3f}")
    print(f"  CPU of this machine: {spent.cpu:.1f} s of {(os.cpu_count() or 1) * spent.wall:.1f} s", flush=True)


def open_many(cores: int, hosts: int) -> SparkSession:
    """Open a session with this many task slots, in the driver or, if `hosts` is not 0, in that many separate executors."""
    master = f"local-cluster[{hosts},{cores // hosts},{1024 * 4}]" if hosts else f"local[{cores}]"
    conf = {"spark.driver.memory": WORKER_MEMORY, "spark.executor.memory": "4g"}
    chosen = sections.SparkSettings(master=master, jars=str(sessions.JARS[0]), conf=conf)
    return open_session(chosen, "bench of many cores")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one block per number of cores and rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", nargs="+", type=int, default=[16, 64])
    parser.add_argument(
        "--hosts", type=int, default=0, help="number of separate executors; 0: none, the driver runs the tasks"
    )
    parser.add_argument("--units", type=int, default=10)
    parser.add_argument("--unit-seconds", type=float, default=30, help="seconds in which all cores recognize a unit")
    parser.add_argument("--rates", nargs="+", default=["base-f32"], choices=RATES)
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    sizes = [(cores, options.hosts) for cores in options.cores]
    if options.smoke:
        sizes, options.units, options.unit_seconds = [(4, 0), (2, 2)], 3, 1.0
    print(machine.describe())
    with tempfile.TemporaryDirectory() as directory:
        for cores, hosts in sizes:
            spark = open_many(cores, hosts)
            for name in options.rates:
                rows = int(options.unit_seconds * cores * RATES[name] / CHARS)
                run_once(spark, Path(directory), RATES[name], cores, options.units, rows)
            spark.stop()


if __name__ == "__main__":
    main()
