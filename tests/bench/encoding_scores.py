"""F1 of both encodings on the same weights, whole job and evaluation: `python tests/bench/encoding_scores.py FILE.tsv …`.

FILE has a `token<TAB>tag` a line, IOB2, and a blank line between sentences. Five sentences are a document, their tokens
joined by blanks. The second pair of columns is of the same sentences with `;` for their last full stop, so that the five
run on as one, as in transcripts and lists: past 126 pieces the encoding sparknlp tags nothing, the complete one goes on in
windows.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from entitymill import evaluation, settings
from entitymill.extraction import extract
from entitymill.recognition.mentions import TagScheme
from entitymill.session import open_session

ROOT = Path(__file__).parents[2]
SENTENCES_IN_DOCUMENT = 5
Tagged = list[tuple[str, str]]
Gold = tuple[str, int, int, str]


def sentences(file: Path) -> list[Tagged]:
    """(token, tag) of every sentence."""
    blocks = re.split(r"\n\s*\n", file.read_text(encoding="utf8").strip())
    lines = ([line.split("\t") for line in block.splitlines() if "\t" in line] for block in blocks)
    return [[(token, tag) for token, tag in block] for block in lines]


def spans(tokens: Tagged) -> Iterator[tuple[int, int, str]]:
    """First token, one past the last, label."""
    labels = sorted({tag for _, tag in tokens} | {"O"})
    tags = np.array([labels.index(tag) for _, tag in tokens], np.int16)
    scheme = TagScheme(labels)
    found = scheme.spans(tags, np.ones(len(tags), np.float32), np.zeros(len(tags), np.int64))
    for first, last, kind in zip(found.first.tolist(), found.last.tolist(), found.kinds.tolist(), strict=True):
        yield first, last, scheme.kinds[kind]


def document(doc_id: str, parts: list[Tagged], *, run_on: bool) -> tuple[str, list[Gold]]:
    """The text of some sentences, and their mentions in code points."""
    if run_on:
        parts = [[*part[:-1], (";", "O")] if part[-1][0] in ".!?" else part for part in parts]
    tokens = [pair for part in parts for pair in part]
    starts, at = [], 0
    for token, _ in tokens:
        starts.append(at)
        at += len(token) + 1
    gold = [(doc_id, starts[a], starts[b - 1] + len(tokens[b - 1][0]), label) for a, b, label in spans(tokens)]
    return " ".join(token for token, _ in tokens), gold


def score(spark: SparkSession, file: Path, encoding: str, scratch: Path, *, run_on: bool) -> float:
    """Micro F1 of one run; labels that the gold file does not have are left out."""
    tagged = sentences(file)
    groups = [tagged[i : i + SENTENCES_IN_DOCUMENT] for i in range(0, len(tagged), SENTENCES_IN_DOCUMENT)]
    made = [document(str(i), group, run_on=run_on) for i, group in enumerate(groups)]
    texts = pa.table({"id": [str(i) for i in range(len(made))], "text": [text for text, _ in made]})
    pq.write_table(texts, scratch / "texts.parquet")
    gold = spark.createDataFrame([g for _, mentions in made for g in mentions], ", ".join(GOLD_COLUMNS))
    overrides = ["source.format=parquet", f"source.path={scratch}/texts.parquet", f"output.path={scratch}/out"]
    overrides += [f"model.path={ROOT}/models/demo", f"segmentation.model={ROOT}/models/sentence_detector"]
    extract(spark, settings.load(None, [*overrides, f"recognition.encoding={encoding}"], {}))
    labels = [row.label for row in gold.select("label").distinct().collect()]
    entities = spark.read.format("delta").load(f"{scratch}/out/entities")
    return evaluation.evaluate(entities, gold, labels)[evaluation.ALL].f1


GOLD_COLUMNS = ("doc_id string", "begin int", "end int", "label string")


def main() -> None:
    """Print one line per file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    chosen = settings.SparkSettings(master=f"local[{os.cpu_count()}]", jars=str(ROOT / "build/jars"))
    spark = open_session(chosen, "bench")
    print(f"{'F1':40} sparknlp complete   run on: sparknlp complete")
    for file in options.files:
        found = []
        for run_on in (False, True):
            for encoding in ("sparknlp", "complete"):
                with tempfile.TemporaryDirectory() as scratch:
                    found.append(score(spark, file, encoding, Path(scratch), run_on=run_on))
        print(f"{'/'.join(file.parts[-2:]):40} {found[0]:8.4f} {found[1]:8.4f} {found[2]:17.4f} {found[3]:8.4f}", flush=True)


if __name__ == "__main__":
    main()
