"""Measure the cost of running the tagger in a separate process.

`python tests/bench/isolation.py` recognizes the same windows of documents in this process and in a worker's child, in turn.
It uses the bundled model and sentences of the speeches. It prints wall and CPU seconds of both, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import machine
import pyarrow as pa
import random_models
import texts

from entitymill.recognition import sentences
from entitymill.recognition.tagger import Execution, bundle
from entitymill.workers import child_process, child_recognition
from entitymill.workers.engine_openvino import FACTORY
from entitymill.workers.worker import RecognitionOptions, cut_windows

TO_MEET = 1.02
SENTENCES_IN_WINDOW = 1024
DETECTOR = texts.ROOT / "models" / "sentence_detector"


def batches(count: int) -> list[pa.RecordBatch]:
    """Return documents with this many sentences in total, in a worker's windows."""
    many = texts.documents(count)
    columns = {
        "doc_id": pa.array([f"d{number}" for number in range(len(many))]),
        "text_hash": pa.array(["0" * 64] * len(many)),
        "chars": pa.array([len(text) for text in many], pa.int32()),
        "text": pa.array(many),
    }
    return list(cut_windows([pa.RecordBatch.from_pydict(columns)]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the times of both ways, and the ratios of child to this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), default="int8")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    count = options.windows * SENTENCES_IN_WINDOW
    if options.smoke:
        options.repeats, count = 1, 40
    manifest, files = bundle.read_directory(random_models.DEMO)
    digests: dict[str, str] = {}  # not checked here
    detector = (sentences.find_detector_files(DETECTOR), digests, str(DETECTOR))
    given = (
        (files, manifest, str(random_models.DEMO)),
        detector,
        RecognitionOptions(Execution(options.precision), "dl", trim=True),
    )
    work, here = child_process.Work(FACTORY, given), child_recognition.open_recognition(*given)
    many = batches(count)
    ways = {
        "in this process": lambda: [here(batch) for batch in many],
        "in a child": lambda: [child_process.get_child(work)(batch, 600) for batch in many],
    }
    spent: dict[str, list[machine.Spent]] = {name: [] for name in ways}
    for repeat in range(options.repeats + 1):
        for name, run in ways.items():
            once = machine.spend(run)
            if repeat:
                spent[name].append(once)
    found = sum(sum(here(batch).column("sentences").to_pylist()) for batch in many)
    print(machine.describe())
    for name, runs in spent.items():
        print(machine.line(name, runs, found, "sentences"))
    alone, apart = spent["in this process"], spent["in a child"]
    for what in ("wall", "cpu"):
        pairs = [getattr(b, what) / getattr(a, what) for a, b in zip(alone, apart, strict=True)]
        least = min(getattr(run, what) for run in apart) / min(getattr(run, what) for run in alone)
        print(
            f"{what}: child / this process {least:.3f} of minima, {statistics.median(pairs):.3f} median (to meet {TO_MEET})"
        )
    child_process.get_child(work).close()


if __name__ == "__main__":
    main()
