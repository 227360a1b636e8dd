"""What the tagger's own process costs: the same windows tagged in this process and in a worker's child, in turn.

`python tests/bench/isolation.py`: wall and CPU seconds of both, and their ratio; the carried model, the speeches' sentences.
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path

import machine
import pyarrow as pa
import pyarrow.parquet as pq

from entitymill import schemas
from entitymill.engines import isolation, tagging
from entitymill.engines.openvino import FACTORY
from entitymill.engines.worker import Run
from entitymill.recognition.tagger import bundle

ROOT = Path(__file__).parents[2]
TO_MEET = 1.02


def windows(count: int) -> list[pa.RecordBatch]:
    """Windows of some 1,024 sentences: the speeches in ASCII, so that offsets are the same in every unit."""
    speeches = pq.read_table(ROOT / "data" / "state_union.parquet")["text"].to_pylist()
    texts = [text.encode("ascii", "ignore").decode() for text in speeches]
    held: list[tuple[str, list[tuple[int, int]], list[tuple[int, int]]]] = []
    made, sentences = [], 0
    for text in texts:
        split = [match.span() for match in re.finditer(r"\S[^.!?]*[.!?]?", text)]
        tokens = [(b + m.start(), b + m.end()) for b, e in split for m in re.finditer(r"\w+|[^\w\s]", text[b:e])]
        held.append((text, split, tokens))
        sentences += len(split)
        if sentences >= 1024:
            made.append(window(held))
            held, sentences = [], 0
        if len(made) == count:
            break
    return made


def window(documents: list[tuple[str, list[tuple[int, int]], list[tuple[int, int]]]]) -> pa.RecordBatch:
    """As segmentation gives it."""
    size = len(documents)
    columns = {
        "doc_id": pa.array([f"d{number}" for number in range(size)]),
        "text_hash": pa.array(["0" * 64] * size),
        "chars": pa.array([len(text) for text, _, _ in documents], pa.int32()),
        "block": pa.array([0] * size, pa.int32()),
        "blocks": pa.array([1] * size, pa.int32()),
        "text": pa.array([text for text, _, _ in documents]),
    }
    for at, name in ((1, "sentence"), (2, "token")):
        columns[f"{name}_begin"] = pa.array([[b for b, _ in document[at]] for document in documents], pa.list_(pa.int32()))
        columns[f"{name}_end"] = pa.array([[e - 1 for _, e in document[at]] for document in documents], pa.list_(pa.int32()))
    assert set(schemas.OFFSETS) <= set(columns)
    return pa.RecordBatch.from_pydict(columns)


def main() -> None:
    """Print both ways, and how much more the child takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), default="int8")
    options = parser.parse_args()
    manifest, files = bundle.in_directory(ROOT / "models" / "demo")
    arguments = (files, manifest, "models/demo", Run(options.precision, "complete", 1))
    work, here = isolation.Work(FACTORY, arguments), tagging.open_tagging(*arguments)
    batches = windows(options.windows)
    ways = {
        "in this process": lambda: [here(batch) for batch in batches],
        "in a child": lambda: [isolation.child(work)(batch, 600) for batch in batches],
    }
    spent: dict[str, list[machine.Spent]] = {name: [] for name in ways}
    for repeat in range(options.repeats + 1):
        for name, run in ways.items():
            once = machine.spend(run)
            if repeat:
                spent[name].append(once)
    sentences = sum(len(batch.column("sentence_begin").flatten()) for batch in batches)
    print(machine.describe())
    for name, runs in spent.items():
        print(machine.line(name, runs, sentences, "sentences"))
    alone, child = spent["in this process"], spent["in a child"]
    for what in ("wall", "cpu"):
        pairs = [getattr(b, what) / getattr(a, what) for a, b in zip(alone, child, strict=True)]
        least = min(getattr(run, what) for run in child) / min(getattr(run, what) for run in alone)
        print(
            f"{what}: child / this process {least:.3f} of minima, {statistics.median(pairs):.3f} median (to meet {TO_MEET})"
        )
    isolation.child(work).close()


if __name__ == "__main__":
    main()
