"""Exact-span F1 of sentence detectors: `python score.py GOLD.jsonl [MODEL ...]`, the rule-based one beside them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from entitymill.engines.documents import read_segments
from entitymill.segmentation import load_detector, segment
from pyarrow import Table
from pyspark.sql import DataFrame, SparkSession

from entitymill.session import open_session
from entitymill.settings import SegmentationSettings, SparkSettings


def spans(spark: SparkSession, documents: DataFrame, settings: SegmentationSettings) -> set[tuple[str, int, int]]:
    """(document, begin, end) of every sentence found; the gold documents are each one block."""
    frame = segment(documents, load_detector(spark, settings)).toPandas()
    batch = Table.from_pandas(frame, preserve_index=False).combine_chunks().to_batches()[0]
    found = read_segments(batch, batch.column("text").to_pylist())
    names = batch.column("doc_id").to_pylist()
    return {
        (names[row], int(found.sentence_begin[i]), int(found.sentence_end[i]))
        for row in range(len(names))
        for i in range(found.sentence_starts[row], found.sentence_starts[row + 1])
    }


def main() -> None:
    """Print a line per detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gold", type=Path)
    parser.add_argument("models", nargs="*")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.gold.read_text(encoding="utf8").splitlines()]
    gold = {(line["id"], begin, end) for line in lines for begin, end in line["sents"]}
    spark = open_session(
        SparkSettings(master="local[1]", jars="build/jars,build/jars-sparknlp"), "sentence detector scores", sparknlp=True
    )
    documents = spark.createDataFrame([(line["id"], line["text"]) for line in lines], "doc_id string, text string")
    detectors = [SegmentationSettings(detector="rules")]
    detectors += [SegmentationSettings(detector="dl", model=model) for model in options.models]
    for settings in detectors:
        found = spans(spark, documents, settings)
        hit = len(gold & found)
        precision, recall = hit / len(found), hit / len(gold)
        f1 = 2 * hit / (len(found) + len(gold))
        name = settings.model if settings.detector == "dl" else "rules"
        print(f"{name}: precision {precision:.4f} recall {recall:.4f} F1 {f1:.4f}")


if __name__ == "__main__":
    main()
