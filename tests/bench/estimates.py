"""Compare the duration that a dry run estimates with that of the run, on three workloads.

`python tests/bench/estimates.py [--sentences N] [--smoke]`

Each workload has a first run, which is measured, and a larger second run, which is estimated by `dry_run` and then measured.
The workloads are documents of about 1,500 characters in int8, short documents in f32, and long documents in int8 in several
units. All runs use one warm JVM.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import machine
import pyarrow as pa
import pyarrow.parquet as pq
import sessions
import texts
from pyspark.sql import SparkSession

from entitymill.run.extraction import extract

WARM_UP_SENTENCES = 1_000
GROWTH = 3
"""Sentences of the estimated run, divided by those of the first run."""


@dataclass(frozen=True)
class Workload:
    """Texts and settings of a job.

    longest: maximum number of sentences in a document.
    precision: recognition.precision.
    share: this workload's sentences, divided by those of the option --sentences.
    units: number of units of the estimated run.
    """

    name: str
    longest: int
    precision: str
    share: float = 1.0
    units: int = 1


WORKLOADS = (
    Workload("articles, int8", texts.LONGEST_DOCUMENT, "int8"),
    Workload("short texts, f32", 3, "f32", share=0.5),
    Workload("long documents, int8, 4 units", 400, "int8", units=4),
)


def write_source(path: Path, documents: Sequence[str], first: int) -> None:
    """Append documents to a directory of Parquet files, with ids from `first` on."""
    path.mkdir(exist_ok=True)
    ids = [f"d{number:08}" for number in range(first, first + len(documents))]
    pq.write_table(pa.table({"id": ids, "text": documents}), path / f"part-{first}.parquet")


def measure(spark: SparkSession, workload: Workload, sentences: int, scratch: Path) -> None:
    """Run one workload, and print the estimate and the measurement."""
    measured = int(sentences * workload.share)
    documents = texts.documents(measured * (1 + GROWTH), workload.longest)
    first = len(documents) // (1 + GROWTH)
    source = scratch / "source"
    rows = -(-(len(documents) - first) // workload.units)
    loaded = sessions.loaded(
        "source.format=parquet",
        f"source.path={source}",
        f"output.path={scratch}/out",
        f"recognition.precision={workload.precision}",
        f"limits.unit_rows={rows}",
    )
    write_source(source, documents[:first], 0)
    extract(spark, loaded)
    write_source(source, documents[first:], first)
    plan = extract(spark, loaded, dry_run=True).plan
    assert plan is not None
    assert plan.hours is not None
    done = extract(spark, loaded)
    seconds = done.seconds["total"]
    print(
        f"{workload.name}: {done.documents:,} documents, {done.sentences:,} sentences in {done.units} units: "
        f"estimated {plan.hours * 3600:.1f} s, took {seconds:.1f} s, ratio {plan.hours * 3600 / seconds:.2f}",
        flush=True,
    )


def warm_up(spark: SparkSession) -> None:
    """Run the job once without measuring it, so that the JVM is warm for all measured runs."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "source"
        write_source(source, texts.documents(WARM_UP_SENTENCES), 0)
        extract(spark, sessions.loaded("source.format=parquet", f"source.path={source}", f"output.path={directory}/out"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=12_000, help="number of sentences of the first run")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    sentences = 60 if options.smoke else options.sentences
    print(machine.describe())
    spark = sessions.open_bench()
    if not options.smoke:
        warm_up(spark)
    for workload in WORKLOADS[: 1 if options.smoke else None]:
        with tempfile.TemporaryDirectory() as directory:
            measure(spark, workload, sentences, Path(directory))


if __name__ == "__main__":
    main()
