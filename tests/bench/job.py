"""Compare the complete job with the bare tagger on the same sentences, and measure the job in a new process.

`python tests/bench/job.py [--shape demo|base] [--sentences N] [--repeats N] [--cold N] [--texts FILE.jsonl]`

A warm run calls `extract` in a session that has run it a few times before, with a new output. It includes all steps:
reading, comparing, recognizing, and creating and writing the tables. The bare tagger gets the job's tokens from memory, in
one process per core. Both run in turn, so that changes in the speed of the machine affect both. A cold run is a new process,
`python jobs/extract_entities.py`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import random_models
import sessions
import texts
from bare_tagger import BareTaggers, Tokens, tokenize
from pyspark.sql import SparkSession

from entitymill.recognition import sentences
from entitymill.recognition.tagger import Precision
from entitymill.run.extraction import SMALL_BYTES, extract
from entitymill.run.summary import Summary
from entitymill.run.work_units import MIN_TASKS_PER_CORE
from entitymill.workers.engine_choice import open_engine

TO_MEET = {"demo": 0.85, "base": 0.90}
MAX_RESIDENT = 3_000
"""Target for the peak resident memory of `make run`, in MB."""
SMOKE_SENTENCES = 60
OUTSIDE = 1.5
"""Bias of the tag O with which random weights of DistilBERT-base's shape find about as many mentions as a trained model."""


@dataclass(frozen=True)
class Case:
    """The input of a measurement.

    table, few: Parquet files with all documents, and with a tenth of them.
    given: tokens of all documents.
    model: directory of a bundle.
    """

    shape: str
    table: Path
    few: Path
    given: Tokens
    model: Path
    scratch: Path

    def overrides(self, precision: Precision, table: Path | None = None) -> list[str]:
        """Return all settings except the output."""
        found = {"source.format": "parquet", "source.path": table or self.table, "model.path": self.model}
        return [*(f"{key}={value}" for key, value in found.items()), f"recognition.precision={precision}"]


def wake(spark: SparkSession, case: Case, precision: Precision) -> None:
    """Load a model on every core: Spark ends workers that were idle for a minute, together with their models."""
    loaded = sessions.loaded(*case.overrides(precision))
    rows = [(str(number), "They met in Paris.", "", 18) for number in range(64)]
    frame = spark.createDataFrame(rows, "doc_id string, text string, text_hash string, chars int")
    spread = frame.repartition(MIN_TASKS_PER_CORE * (os.cpu_count() or 1))
    open_engine(spark, loaded).load()(spread).write.format("noop").mode("overwrite").save()


def once(spark: SparkSession, case: Case, precision: Precision, table: Path) -> tuple[machine.Spent, Summary]:
    """Run the job on a table, into a new output."""
    wake(spark, case, precision)
    found: list[Summary] = []
    with tempfile.TemporaryDirectory(dir=case.scratch) as output:
        loaded = sessions.loaded(*case.overrides(precision, table), f"output.path={output}/tables")
        spent = machine.spend(lambda: found.append(extract(spark, loaded)))
    return spent, found[0]


def warm(spark: SparkSession, case: Case, precision: Precision, repeats: int, warm_ups: int) -> None:
    """Measure the job and the bare tagger in turn."""
    for _ in range(warm_ups):
        once(spark, case, precision, case.few)
    jobs: list[machine.Spent] = []
    bares: list[machine.Spent] = []
    summaries: list[Summary] = []
    with BareTaggers(case.model, precision, case.given, case.scratch) as bare:
        bare.warm_up()
        for _ in range(repeats):
            bares.append(bare.run())
            job, summary = once(spark, case, precision, case.table)
            jobs.append(job)
            summaries.append(summary)
            print(f"  job {job.wall:.2f} s, bare tagger {bares[-1].wall:.2f} s", flush=True)
    report(case, jobs, bares, summaries)


def report(case: Case, jobs: list[machine.Spent], bares: list[machine.Spent], summaries: list[Summary]) -> None:
    """Print ratios, and how the job's time is distributed."""
    last = summaries[-1]
    mentions = sum(last.by_label.values())
    assert last.mode == "first", last.mode
    print(f"{last.documents:,} documents, {last.sentences:,} sentences, {last.tokens:,} tokens, {mentions:,} mentions")
    print(machine.line("whole job, warm", jobs, last.sentences, "sentences"))
    print(machine.line("bare tagger", bares, last.sentences, "sentences"))
    job, alone = machine.median(jobs), machine.median(bares)
    seconds = {stage: statistics.median(s.seconds.get(stage, 0.0) for s in summaries) for stage in last.seconds}
    print(
        f"job's speed over the bare tagger's: wall {alone.wall / job.wall:.3f}, cpu {alone.cpu / job.cpu:.3f} "
        f"(to meet {TO_MEET.get(case.shape, 0)}); its recognition only: wall {alone.wall / seconds['recognition']:.3f}"
    )
    stages = ("preparation", "source", "recognition", "writing", "total")
    print("wall seconds of the job: " + ", ".join(f"{stage} {seconds.get(stage, 0):.2f}" for stage in stages))
    print("  of all workers: " + ", ".join(f"{stage} {seconds.get(stage, 0):.2f}" for stage in ("encoding", "inference")))


def cold(name: str, arguments: Sequence[object], scratch: Path, repeats: int, units: float) -> None:
    """Measure the job in new processes, into new outputs."""
    runs = []
    for repeat in range(repeats):
        output = scratch / f"cold-{name.replace(' ', '-').replace(',', '')}-{repeat}"
        command = [sys.executable, "jobs/extract_entities.py", *arguments, "--set", f"output.path={output}"]
        runs.append(machine.watch(command, texts.ROOT, scratch / "log"))
    print(machine.line(f"{name}, cold", runs, units, "sentences"))
    resident, proportional = (max(getattr(run, what) for run in runs) for what in ("resident", "proportional"))
    aim = f" (to meet {MAX_RESIDENT:,})" if name == "make run" else ""
    print(f"  at most {resident:,.0f} MB resident{aim}, {proportional:,.0f} MB with shared pages counted once", flush=True)


def prepare(options: argparse.Namespace, scratch: Path) -> Case:
    """Make the table, its tokens and the model."""
    many = texts.documents(options.sentences) if options.texts is None else texts.lines(options.texts, options.rows)
    table, few = scratch / "texts.parquet", scratch / "few.parquet"
    for path, step in ((table, 1), (few, 10)):
        pq.write_table(pa.table({"id": [f"d{i}" for i in range(0, len(many), step)], "text": many[::step]}), path)
    chosen = sessions.loaded()
    files = sentences.find_detector_files(Path(chosen.detector_model)) if chosen.detector == "dl" else {}
    detector = sentences.open_detector(chosen.detector, files)
    began = time.process_time()
    given = tokenize(many, detector)
    spent = time.process_time() - began
    count = len(given.lengths)
    print(f"{chosen.detector}: {count:,} sentences of {np.mean(given.lengths):.1f} tokens, cut in {spent:.2f} cpu-s")
    model = random_models.DEMO
    if options.shape == "base":
        random_models.write_random_model(
            scratch / "saved", random_models.TINY if options.smoke else random_models.BASE, OUTSIDE
        )
        model = random_models.make_bundle(scratch / "saved", scratch / "model", options.stored)
    return Case(options.shape, table, few, given, model, scratch)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one block per precision, and one of cold runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shape",
        choices=("demo", "base"),
        default="demo",
        help="the bundled model, or random weights of DistilBERT-base's shape",
    )
    parser.add_argument(
        "--stored",
        choices=("f32", "weights", "calibrated"),
        default="calibrated",
        help="how the model of shape base is stored",
    )
    parser.add_argument("--precisions", nargs="+", default=["int8"], choices=("f32", "bf16", "int8"))
    parser.add_argument("--sentences", type=int, default=52_000, help="number of sentences from the repository's speeches")
    parser.add_argument("--texts", type=Path, help="JSON Lines file with texts, to use instead of the speeches")
    parser.add_argument("--rows", type=int, default=100_000, help="maximum number of texts from --texts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--warm-ups", type=int, default=3, help="number of unmeasured runs first, on a tenth of the documents"
    )
    parser.add_argument("--cold", type=int, default=2, help="number of cold runs of each kind")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.sentences, options.repeats, options.warm_ups, options.cold = SMOKE_SENTENCES, 1, 0, 1
    print(machine.describe())
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        case = prepare(options, scratch)
        # Start Java as `entitymill extract` does for a source of this size.
        spark = sessions.open_bench(brief=case.table.stat().st_size <= SMALL_BYTES)
        for precision in options.precisions:
            print(f"\nshape {options.shape}, {precision}: {options.repeats} repeats after {options.warm_ups} warm-ups")
            warm(spark, case, precision, options.repeats, options.warm_ups)
        spark.stop()  # frees its memory before the cold runs
        dry_run = ["--dry-run"] if options.smoke else []
        for precision in options.precisions if options.cold else ():
            given = [*(part for override in case.overrides(precision) for part in ("--set", override)), *dry_run]
            name = f"{options.shape} {precision}{', dry run' if options.smoke else ''}"
            cold(name, ["--config", sessions.DEFAULTS, *given], scratch, options.cold, len(case.given.lengths))
        if options.cold and options.shape == "demo":
            units = sum(map(len, texts.speeches()))
            cold("make run", ["--config", "conf/demo.yaml", "--show-entities", *dry_run], scratch, options.cold, units)


if __name__ == "__main__":
    main()
