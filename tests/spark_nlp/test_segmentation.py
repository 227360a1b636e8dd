"""Compare sentences and tokens with those of Spark NLP in the JVM; tests/bench/parity.py does so for any number of texts."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from difficult_texts import confuses_spark_nlp, generate_texts
from entitymill.recognition import sentences
from hostile_texts import HOSTILE_TEXTS
from jvm_segments import by_spark_nlp
from own_segments import segment_texts

from .conftest import ROOT, recognized

FUZZED, SHORTENED, LONG = 800, 400, 50_000
SPEECH = pq.read_table(ROOT / "data" / "state_union.parquet", columns=["text"])["text"][0].as_py()
DISPUTED = "Angela Merkel spoke... Then Paris (see p. 5. Rome) answered!? yes"
DETECTORS: dict[sentences.DetectorKind, int] = {"dl": 3, "rules": 4, "sentencex": 2}
"""Detector -> number of sentences that it finds in DISPUTED."""
PARAGRAPH = "Angela Merkel met Emmanuel Macron in Paris. They discussed Ukraine.\n\n"


@pytest.mark.parametrize("kind", ["dl", "rules"])
def test_sentences_and_tokens_are_spark_nlps(spark: SparkSession, kind: sentences.DetectorKind, tmp_path: Path) -> None:
    every = [
        *generate_texts(FUZZED, seed=5),
        *(text[:SHORTENED] for text in HOSTILE_TEXTS.values()),
        SPEECH,
        (SPEECH * 9)[:LONG],
    ]
    texts = [text for text in every if kind == "dl" or not confuses_spark_nlp(text)]

    theirs = by_spark_nlp(spark, kind, texts, tmp_path)

    ours = segment_texts(
        sentences.open_detector(kind, sentences.find_detector_files(ROOT / "models" / "sentence_detector")), texts
    )
    assert [found for found in zip(texts, theirs, ours, strict=True) if found[1] != found[2]] == []
    assert len(texts) > FUZZED


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_long_document_has_the_sentences_of_its_paragraphs(spark: SparkSession, detector: sentences.DetectorKind) -> None:
    text = PARAGRAPH * 150
    texts = {"long": text, "one": PARAGRAPH, "disputed": DISPUTED}
    rows = recognized(spark, texts, f"segmentation.detector={detector}")

    long = rows["long"].mentions
    assert len(long) == 150 * len(rows["one"].mentions) >= 450
    assert long[-1].sentence_id == 2 * 150 - 1
    assert all(text[mention.begin : mention.end] == mention.entity for mention in long)
    # The workers use the detector of the settings.
    assert rows["disputed"].sentences == DETECTORS[detector]
