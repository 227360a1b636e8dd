"""Measure the cost of cold and warm runs as the source grows: `python tests/bench/growth.py [--rows 10000 100000 1000000]`.

A cold run is a new process with the bundled model. All other runs use a stub instead of a model: Spark functions that return
the first two words of each document. So these runs measure only how the job finds changes and updates the tables. With
`--nights`, the script measures how much each nightly run writes if one document in a hundred has changed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import machine
import pyarrow.parquet as pq
import sessions
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from spark_counters import count_jobs
from stub_engine import open_stub
from texts import ROOT

from entitymill import settings
from entitymill.run import extraction
from entitymill.run.extraction import extract
from entitymill.run.summary import Summary
from entitymill.source.reader import open_source

SHARE = 0.01
FEW = 100
KEPT = ("entities", "documents")


def texts(spark: SparkSession, rows: int, chars: int, salt: str = "") -> DataFrame:
    """Return ids, and different texts of this many characters."""
    speech = " ".join(pq.read_table(ROOT / "data" / "state_union.parquet")["text"].to_pylist())
    body = F.lit(speech[: 2 * chars]).substr((F.col("id") % chars + 1).cast("int"), F.lit(chars - 30))
    name = F.format_string("Person%d City%d ", "id", F.pmod(F.xxhash64("id"), F.lit(1000)))
    return spark.range(rows).select(
        F.format_string("doc-%09d", "id").alias("id"), F.concat(name, F.lit(salt), body).alias("text")
    )


@dataclass(frozen=True)
class Cost:
    """The cost of one run: time, Spark jobs and storage."""

    spent: machine.Spent
    jobs: int
    executions: int
    commits: int
    megabytes: float


def stored(output: Path) -> tuple[int, int]:
    """Return the number of commits to all tables so far, and the bytes of all files except logs. No file is ever deleted."""
    commits = len(list(output.glob("*/_delta_log/*[0-9].json")))
    files = (path for path in output.glob("*/**/*") if path.is_file() and "_delta_log" not in path.parts)
    return commits, sum(path.stat().st_size for path in files)


def cost(spark: SparkSession, output: Path, work: Callable[[], object]) -> Cost:
    """Measure the cost of one run."""
    (jobs, executions), (commits, size) = count_jobs(spark), stored(output)
    spent = machine.spend(work)
    after, now = count_jobs(spark), stored(output)
    return Cost(spent, after[0] - jobs, after[1] - executions, now[0] - commits, (now[1] - size) / 1e6)


def show(name: str, costs: Sequence[Cost], rows: int) -> None:
    """Print one line with the times of all runs and the counts of the last run."""
    last = costs[-1]
    counts = f"{last.jobs} jobs, {last.executions} executions, {last.commits} commits, {last.megabytes:,.2f} MB written"
    print(machine.line(name, [one.spent for one in costs], rows, "rows"), f"  {counts}", flush=True)


def hash_all(spark: SparkSession, loaded: settings.Settings) -> None:
    """Only read and hash the texts, which is the minimum work of a comparison."""
    rows = open_source(spark, loaded.source).rows
    rows.select(F.sha2("text", 256).alias("hash")).agg(F.min("hash")).collect()


def live_heap(spark: SparkSession) -> float:
    """Return the megabytes that the JVM, driver and executor, uses after a garbage collection."""
    jvm: Any = spark.sparkContext._jvm
    for _ in range(3):  # Spark releases some memory only after a collection
        jvm.System.gc()
        time.sleep(1)
    runtime = jvm.Runtime.getRuntime()
    return float(runtime.totalMemory() - runtime.freeMemory()) / 1e6


class Growing:
    """A source with a change feed and a fixed number of rows, and runs that read this source."""

    def __init__(self, spark: SparkSession, directory: Path, rows: int, chars: int) -> None:
        self.spark, self.rows, self.chars = spark, rows, chars
        self.source, self.output = directory / f"source-{rows}", directory / f"out-{rows}"
        self.salts = itertools.count()
        writer = texts(spark, rows, chars).write.format("delta").option("delta.enableChangeDataFeed", "true")
        writer.save(str(self.source))

    def run(self, mode: str, *overrides: str) -> Summary:
        options = [f"source.path={self.source}", f"output.path={self.output}", "limits.unit_rows=250000", *overrides]
        summary = extract(self.spark, settings.load(None, options, {}))
        assert summary.mode == mode, (summary.mode, mode)
        return summary

    def cost(self, mode: str, *overrides: str) -> Cost:
        return cost(self.spark, self.output, lambda: self.run(mode, *overrides))

    def change(self, share: float) -> None:
        """Write new texts for some rows, chosen at random."""
        salt = next(self.salts)
        chosen = F.pmod(F.xxhash64("id", F.lit(salt)), F.lit(1_000_000)) < round(share * 1_000_000)
        texts(self.spark, self.rows, self.chars, f"salt{salt} ").where(chosen).createOrReplaceTempView("changed")
        self.spark.sql(
            f"MERGE INTO delta.`{self.source}` AS t USING changed AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET *"
        )

    def split_changes(self, units: int) -> str:
        """Return the setting with which a run has this many units after `change(SHARE)`, whose number of rows varies."""
        return f"limits.unit_rows={max(1, round(1.1 * self.rows * SHARE / units))}"

    def rewrite(self) -> None:
        """Rewrite all rows unchanged, in a version without a change feed."""
        rows = self.spark.read.format("delta").load(str(self.source))
        rows.write.format("delta").mode("overwrite").save(str(self.source))
        self.spark.sql(f"ALTER TABLE delta.`{self.source}` SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'false')")


def measure(growing: Growing, repeats: int) -> None:
    """Print one block of measurements."""
    rows = growing.rows
    print(f"{rows:,} rows of {growing.chars:,} characters", flush=True)

    def several(name: str, work: Callable[[], Cost], before: Callable[[], object] = lambda: None) -> None:
        costs = []
        for _ in range(repeats):
            before()
            costs.append(work())
        show(name, costs, rows)

    show("first run", [growing.cost("first")], rows)
    several("nothing to do", lambda: growing.cost("none"))
    for name, share in ((f"{FEW} changed", min(1.0, FEW / rows)), (f"{SHARE:.0%} changed", SHARE)):
        several(f"{name}, by the change feed", lambda: growing.cost("feed"), lambda share=share: growing.change(share))  # type: ignore[misc]
    units = growing.split_changes(5)
    several(f"{SHARE:.0%} changed, in 5 units", lambda: growing.cost("feed", units), lambda: growing.change(SHARE))
    several("nothing differs, all compared", lambda: growing.cost("compare"), growing.rewrite)
    loaded = settings.load(None, [f"source.path={growing.source}", f"output.path={growing.output}"], {})
    hashed = [machine.spend(lambda: hash_all(growing.spark, loaded)) for _ in range(repeats)]
    print(machine.line("reading and hashing only", hashed, rows, "rows"), flush=True)
    print(f"  {live_heap(growing.spark):,.0f} MB of the heap in use after a collection", flush=True)


def nights(growing: Growing, number: int, units: int) -> None:
    """Print how much each nightly run wrote, in this many units, if one document in a hundred has changed.

    The tables have deletion vectors, whatever their size: without them, a night rewrites all files of a small table.
    """
    marking = "output.deletion_vectors=true"
    growing.run("first", marking)
    rows = growing.rows
    size = {name: sum(path.stat().st_size for path in (growing.output / name).rglob("*.parquet")) for name in KEPT}
    due = SHARE * sum(size.values()) / 1e6
    print(
        f"{rows:,} documents, {sum(size.values()) / 1e6:,.1f} MB of tables; a night's changed rows are {due:,.2f} MB of them"
    )
    ratios = []
    for night in range(1, number + 1):
        growing.change(SHARE)
        one = growing.cost("feed", marking, growing.split_changes(units))
        ratios.append(one.megabytes / due)
        print(
            f"  night {night}: {one.megabytes:,.2f} MB in {one.commits} commits, {one.spent.wall:.1f} s: {ratios[-1]:.2f} x"
        )
    print(f"  written over changed, all nights: {sum(ratios) / number:.2f} x (to meet 3)")
    print(f"  {live_heap(growing.spark):,.0f} MB of the heap in use after a collection", flush=True)


def cold(directory: Path, documents: int) -> None:
    """Print the cost of a first run with the bundled model in a new process, and of a run with nothing to do."""
    table = pq.read_table(ROOT / "data" / "state_union.parquet").slice(0, documents)
    short = [text[:500] for text in table["text"].to_pylist()]
    pq.write_table(table.set_column(table.schema.get_field_index("text"), "text", [short]), directory / "few.parquet")
    for what in (f"{documents} documents, cold", "nothing to do, cold"):
        log = directory / "cold.log"
        watched = machine.watch([sys.executable, __file__, "--one", directory], ROOT, log)
        told = json.loads(log.read_text(encoding="utf8").splitlines()[-1])
        print(
            f"{what:36} wall {watched.wall:7.2f}   cpu {watched.cpu:7.2f}   {told['jobs']} jobs, {told['seconds']}",
            flush=True,
        )


def one(directory: Path) -> None:
    """Run the job once with the bundled model, and print counts as JSON; `cold` starts this in a new process."""
    chosen = ["source.format=parquet", f"source.path={directory}/few.parquet", f"output.path={directory}/few-out"]
    spark = sessions.open_bench(brief=True)
    summary = extract(spark, sessions.loaded(*chosen, f"model.path={ROOT}/models/demo", "recognition.precision=int8"))
    seconds = {stage: round(spent, 1) for stage, spent in summary.seconds.items() if stage not in ("encoding", "inference")}
    print(json.dumps({"jobs": count_jobs(spark)[0], "seconds": seconds}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one block per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--chars", type=int, default=1_500, help="characters of each text; the default is a short news article"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--nights", type=int, default=0, help="measure this many nightly runs instead")
    parser.add_argument("--units", type=int, default=1, help="number of units of a nightly run")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        one(options.one)
        return
    if options.smoke:
        options.rows, options.repeats = [200], 1
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch, mock.patch.object(extraction, "open_engine", open_stub):
        if not (options.smoke or options.nights):
            cold(Path(scratch), 10)
        spark = sessions.open_bench("3g")
        if options.nights or options.smoke:
            for rows in options.rows:
                growing = Growing(spark, Path(scratch) / "nights", rows, options.chars)
                nights(growing, options.nights or 1, options.units)
        if not options.nights:
            if not options.smoke:
                measure(Growing(spark, Path(scratch) / "warm", 1000, options.chars), 2)
            for rows in options.rows:
                measure(Growing(spark, Path(scratch), rows, options.chars), options.repeats)


if __name__ == "__main__":
    main()
