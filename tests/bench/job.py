"""The whole job against the bare tagger on the same sentences: `python tests/bench/job.py [--texts FILE.jsonl]`.

The job is `extraction.extract` in a warm session: source, segmentation, tagging, writing, all of it. The bare tagger
gets the job's own tokens, ready in memory, in one process per core. They run in turn: a machine that drifts drifts for both.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from entitymill.engines.documents import read_segments
from entitymill.segmentation import load_detector, segment
from pyspark.sql import DataFrame, SparkSession

from entitymill import settings
from entitymill.changes import everything
from entitymill.extraction import extract
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.execution import Precision
from entitymill.recognition.tagger.inference import Tagger
from entitymill.session import open_session
from entitymill.source import open_source
from entitymill.units import spread

ROOT = Path(__file__).parents[2]
TO_MEET = 0.80
Sentences = tuple[list[str], "np.ndarray"]


def write_texts(path: Path, texts: Path | None, rows: int, copies: int) -> None:
    """The source table: texts of a JSON Lines file, or the repository's speeches, some copies of them."""
    if texts is None:
        speeches = pq.read_table(ROOT / "data" / "state_union.parquet")
        texts_of_all = speeches["text"].to_pylist() * copies
        table = pa.table({"id": [str(i) for i in range(len(texts_of_all))], "text": texts_of_all})
    else:
        found = [json.loads(line)["text"] for line in texts.open(encoding="utf8")][:rows]
        table = pa.table({"id": [str(i) for i in range(len(found))], "text": found})
    pq.write_table(table, path)


def tokens_in(table: pa.Table) -> Sentences:
    """Tokens of segmented blocks."""
    batch = table.combine_chunks().to_batches()[0]
    segments = read_segments(batch, batch.column("text").to_pylist())
    return segments.tokens, segments.sentence_tokens


def segmented(spark: SparkSession, loaded: settings.Settings) -> DataFrame:
    """The job's segmentation, on its own."""
    found = everything(open_source(spark, loaded.source), "first")
    return segment(
        spread(spark, found.documents.drop("known"), found.chars, None), load_detector(spark, loaded.segmentation)
    )


_tagger: Tagger | None = None


def _load(directory: Path, precision: Precision) -> None:
    global _tagger  # noqa: PLW0603
    manifest, files = bundle.in_directory(directory)
    _tagger = Tagger.load(files, manifest, precision)


def _tag(part: Sentences) -> float:
    assert _tagger is not None
    began = time.process_time()
    _tagger.tag(*part)
    return time.process_time() - began


def bare(parts: list[Sentences], pool: ProcessPoolExecutor) -> machine.Spent:
    """Tag every part, one per process; the CPU is that of the tagging alone."""
    wall = time.perf_counter()
    cpu = sum(pool.map(_tag, parts))
    return machine.Spent(time.perf_counter() - wall, cpu)


def parts_of(sentences: Sentences, count: int) -> list[Sentences]:
    """As many parts of like size, each a run of sentences."""
    tokens, lengths = sentences
    starts = np.concatenate([[0], np.cumsum(lengths)])
    edges = np.linspace(0, len(lengths), 8 * count + 1).astype(int)
    return [(tokens[starts[a] : starts[b]], lengths[a:b]) for a, b in pairwise(edges)]


def main() -> None:
    """Print one block per precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, help="JSON Lines with a text each; the repository's speeches otherwise")
    parser.add_argument("--rows", type=int, default=12_000, help="at most so many of them")
    parser.add_argument("--copies", type=int, default=3, help="of the speeches, so that set-up weighs little")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["f32", "int8"], choices=["f32", "bf16", "int8"])
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        write_texts(Path(scratch) / "texts.parquet", options.texts, options.rows, options.copies)
        common = ["source.format=parquet", f"source.path={scratch}/texts.parquet", f"output.path={scratch}/out"]
        common += [f"model.path={ROOT}/models/demo", f"segmentation.model={ROOT}/models/sentence_detector"]
        loaded = settings.load(None, common, {})
        spark = open_session(settings.SparkSettings(master=f"local[{cores}]", jars=str(ROOT / "build/jars")), "bench")
        collected = segmented(spark, loaded).toPandas()
        sentences = tokens_in(pa.Table.from_pandas(collected, preserve_index=False))
        print(f"{len(sentences[1]):,} sentences, {len(sentences[0]):,} tokens, {options.repeats} repeats after one warm-up")
        for precision in options.precisions:
            compare(spark, precision, [*common, f"recognition.precision={precision}"], sentences, options.repeats)


def compare(spark: SparkSession, precision: Precision, overrides: list[str], sentences: Sentences, repeats: int) -> None:
    """One precision: the job, the bare tagger, segmentation alone; ratio and shares."""
    loaded = settings.load(None, overrides, {})
    cores = os.cpu_count() or 1
    parts = parts_of(sentences, cores)
    model = Path(loaded.model.path)
    pool = ProcessPoolExecutor(cores, get_context("spawn"), _load, (model, precision))
    jobs, bares, segmentations, seconds = [], [], [], []
    with pool:
        for repeat in range(repeats + 1):
            summaries = []
            job = machine.spend(lambda: summaries.append(extract(spark, loaded)))  # noqa: B023
            alone = bare(parts, pool)
            cut = machine.spend(lambda: segmented(spark, loaded).write.format("noop").mode("overwrite").save())
            if repeat:
                jobs.append(job)
                bares.append(alone)
                segmentations.append(cut)
                seconds.append(summaries[0].seconds)
    count = len(sentences[1])
    print(f"\n{precision}")
    print(machine.line("whole job", jobs, count, "sentences"))
    print(machine.line("bare tagger", bares, count, "sentences"))
    print(machine.line("segmentation alone", segmentations, count, "sentences"))
    job, alone, cut = machine.median(jobs), machine.median(bares), machine.median(segmentations)
    wall, cpu = alone.wall / job.wall, alone.cpu / job.cpu
    print(f"job's speed over the bare tagger's: wall {wall:.3f}, cpu {cpu:.3f} (to meet {TO_MEET})")
    stages = {stage: np.median([s[stage] for s in seconds]) for stage in ("preparation", "source", "recognition", "writing")}
    print("wall seconds of the job: " + ", ".join(f"{stage} {value:.2f}" for stage, value in stages.items()))
    print(
        f"shares of its cpu: tagging {alone.cpu / job.cpu:.2f}, segmentation {cut.cpu / job.cpu:.2f}, "
        f"the rest, writing and transfer {1 - (alone.cpu + cut.cpu) / job.cpu:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
