"""Measure `entitymill sample` on many mentions: `python tests/bench/review_sample.py [--mentions N] [--repeats N]`.

The job runs once over a few hundred documents. Then the rows of its tables and of the source are copied under other ids,
until there are enough mentions. The measured command draws 200 of them, in a new process each time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import machine
import pyarrow as pa
import pyarrow.parquet as pq
import sessions
import texts
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill.run.extraction import extract

SENTENCES = 600
"""Number of sentences that the job reads before its rows are copied."""
MAIN = "from entitymill.cli import main; raise SystemExit(main())"
IDS = {"entities": ("doc_id", "mention_id"), "documents": ("doc_id",)}


def copy_rows(frame: DataFrame, first: int, copies: int, ids: Sequence[str]) -> DataFrame:
    """Return each row under the numbers `first` to `copies` - 1, which are appended to the columns `ids`."""
    numbers = frame.sparkSession.range(first, copies).withColumnRenamed("id", "_number")
    copied = frame.crossJoin(numbers)
    for name in ids:
        copied = copied.withColumn(name, F.concat_ws("-", name, "_number"))
    return copied.drop("_number")


def fill(spark: SparkSession, directory: Path, mentions: int) -> tuple[list[str], int]:
    """Write a source and an output with about this many mentions; return their settings, and the number of mentions."""
    many = texts.documents(SENTENCES, longest=10)
    pq.write_table(pa.table({"id": [f"d{i}" for i in range(len(many))], "text": many}), directory / "few")
    model = f"model.path={texts.ROOT}/models/demo"
    paths = [f"source.path={directory}/few", "source.format=parquet", f"output.path={directory}/out", model]
    found = sum(extract(spark, sessions.loaded(*paths)).by_label.values())
    copies = max(1, mentions // found)
    for name, ids in IDS.items():
        path = f"{directory}/out/{name}"
        rows = copy_rows(spark.read.format("delta").load(path), 1, copies, ids)
        rows.write.format("delta").mode("append").save(path)
    few = spark.read.parquet(f"{directory}/few")
    few.unionByName(copy_rows(few, 1, copies, ["id"])).write.parquet(f"{directory}/many")
    return [f"source.path={directory}/many", *paths[1:]], found * copies


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line without, and one with text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mentions", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.mentions, options.repeats = 1000, 1
    print(machine.describe())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        settings, count = fill(sessions.open_bench(), directory, options.mentions)
        command = [sys.executable, "-c", MAIN, "sample", "--config", sessions.DEFAULTS]
        command += [word for setting in settings for word in ("--set", setting)]
        for flags in [["--show-text"]] if options.smoke else [[], ["--show-text"]]:
            runs = []
            for repeat in range(options.repeats):
                file = directory / f"sample{len(flags)}-{repeat}.csv"
                runs.append(machine.watch([*command, "--to", file, *flags], texts.ROOT, directory / "log"))
                assert len(file.read_text(encoding="utf8").splitlines()) > 1
            print(machine.line(f"200 of {count:,} {' '.join(flags)}", runs, count, "mentions"), flush=True)


if __name__ == "__main__":
    main()
