"""Measure a run with documents of 1 MB, one of 100 MB, and many small ones: `python tests/bench/long_documents.py [--stub]`.

The script prints wall and CPU seconds of a first run, and the duration of its longest task. It also prints the peak memory
of the driver, its workers and their children together. With `--stub`, a stub replaces the model, so that documents can have
the largest sizes that the settings allow.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import machine
import pyarrow.parquet as pq
import sessions
import texts
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from spark_counters import list_stages
from stub_engine import open_stub

from entitymill.run import extraction
from entitymill.workers.engine_choice import open_engine

MEGABYTE = 1_000_000
"""Characters of a megabyte, because the speeches are nearly ASCII."""


def source(spark: SparkSession, small: int, middle: int, longest: int) -> DataFrame:
    """Return a source with documents of one sentence and of 1 MB, and one document of `longest` MB."""
    speech = " ".join(pq.read_table(texts.SPEECHES)["text"].to_pylist())
    megabyte = F.lit((speech * (MEGABYTE // len(speech) + 1))[:MEGABYTE])
    short = F.format_string("Person%d met Anna Smith in City%d.", "id", F.pmod("id", F.lit(1000)))
    sized = [
        spark.range(small).select(F.format_string("doc-%09d", "id").alias("id"), short.alias("text")),
        spark.range(0, middle, 1, max(1, middle // 10)).select(
            F.format_string("doc-%09d-middle", F.col("id") * 997).alias("id"), megabyte.alias("text")
        ),
        spark.range(1).select(F.lit("doc-long").alias("id"), F.repeat(megabyte, longest).alias("text")),
    ]
    return sized[0].unionByName(sized[1]).unionByName(sized[2])


def tasks(spark: SparkSession) -> tuple[int, float]:
    """Return the number of failed tasks so far, and the seconds of the longest task."""
    context: Any = spark.sparkContext
    store = context._jsc.sc().statusStore()
    failed, longest = 0, 0.0
    for stage in list_stages(spark):
        failed += stage.numFailedTasks()
        each = store.taskList(stage.stageId(), stage.attemptId(), 1_000_000)
        longest = max([longest, *(each.apply(at).duration().get() / 1000 for at in range(each.size()))])
    return failed, round(longest, 1)


def one(directory: Path, *, stub: bool) -> None:
    """Run the job once, and print its results as JSON; main starts this in a new process."""
    spark = sessions.open_bench("4g")
    chosen = [f"source.path={directory}/source", f"output.path={directory}/out", "source.max_chars=100000000"]
    with mock.patch.object(extraction, "open_engine", open_stub if stub else open_engine):
        summary = extraction.extract(spark, sessions.loaded(*chosen, f"model.path={texts.ROOT}/models/demo"))
    failed, longest = tasks(spark)
    counts = {"documents": summary.documents, "rejects": summary.rejects, "units": summary.units_done}
    told = {**counts, "failed tasks": failed, "seconds of the longest task": longest}
    print(json.dumps(told))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line, and the output of the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--middle", type=int, default=20, help="number of documents of 1 MB")
    parser.add_argument("--longest", type=int, default=20, help="megabytes of the longest document")
    parser.add_argument("--stub", action="store_true", help="use Spark functions instead of a model")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        one(options.one, stub=options.stub)
        return
    if options.smoke:
        options.small, options.middle, options.longest, options.stub = 20, 1, 1, True
    print(machine.describe())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rows = source(sessions.open_bench("4g"), options.small, options.middle, options.longest)
        rows.write.format("delta").save(str(directory / "source"))
        command = [sys.executable, __file__, "--one", directory, *(["--stub"] if options.stub else [])]
        watched = machine.watch(command, texts.ROOT, directory / "log")
        told = json.loads((directory / "log").read_text(encoding="utf8").splitlines()[-1])
        print(
            f"{options.small:,} small documents, {options.middle:,} of 1 MB, one of {options.longest} MB: wall "
            f"{watched.wall:.0f} s, CPU {watched.cpu:.0f} s, {watched.resident / 1000:.1f} GB resident at most\n  {told}",
            flush=True,
        )


if __name__ == "__main__":
    main()
