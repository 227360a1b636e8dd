"""Find sentences and tokens with Spark NLP itself, in the JVM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill.recognition.sentences import DetectorKind
from entitymill_sparknlp import pipeline_stages
from own_segments import Segments

ROOT = Path(__file__).parents[1]


def by_spark_nlp(spark: SparkSession, kind: DetectorKind, texts: Sequence[str], scratch: Path) -> list[Segments]:
    """Return the segments that Spark NLP's DocumentAssembler, detector and Tokenizer find in each text.

    Args:
        spark: a session with Spark NLP's jars.
        kind: the detector, dl or rules.
        scratch: an empty directory.
    """
    source, found = scratch / f"{kind}-texts.parquet", scratch / f"{kind}-found.parquet"
    pq.write_table(pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())}), source)
    saved = str(ROOT / "models" / "sentence_detector")
    rows = spark.read.parquet(str(source))
    cut = PipelineModel(pipeline_stages.build_stages(spark, kind, saved)).transform(rows)
    columns = [F.col(f"_token.{edge}").alias(edge) for edge in ("begin", "end")]
    number = F.transform("_token", lambda token: token["metadata"]["sentence"].cast("int")).alias("sentence")
    cut.select("id", *columns, number).write.parquet(str(found))
    table = pq.read_table(found).sort_by("id")
    assert table.num_rows == len(texts)
    return [
        _build_segments(*row)
        for row in zip(*(table[name].to_pylist() for name in ("begin", "end", "sentence")), strict=True)
    ]


def _build_segments(begins: list[int], lasts: list[int], numbers: list[int]) -> Segments:
    found = [(begin, last + 1) for begin, last in zip(begins, lasts, strict=True)]
    sentences: list[tuple[int, int]] = []
    before = None
    for (begin, end), number in zip(found, numbers, strict=True):
        if number == before:
            begin = sentences.pop()[0]  # noqa: PLW2901
        sentences.append((begin, end))
        before = number
    return Segments(sentences, found)
