"""Train the sentence detector: `python train.py DATA OUT [--epochs N]`.

DATA contains gum_open_genres.jsonl and golden_rules_en.jsonl. Spark NLP's SentenceDetectorDLApproach expects one sentence
per row, in the order of the text. It learns at which of the characters . : ? ! ; and line break a sentence ends, from five
characters on either side.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pyspark.ml import Pipeline
from sparknlp.annotator import SentenceDetectorDLApproach
from sparknlp.base import DocumentAssembler

from entitymill.settings.sections import SparkSettings
from entitymill.spark.session import open_session

ABBREVIATIONS = [
    "Mr",
    "Mrs",
    "Ms",
    "Dr",
    "Prof",
    "St",
    "Gen",
    "Gov",
    "Sen",
    "Rep",
    "Lt",
    "Col",
    "Capt",
    "vs",
    "cf",
    "Fig",
    "Jr",
]
INITIALS = "ABCDEFGHJKLMNOPQRSTUVWXYZ"
NEVER_LAST = [f" {word}" for word in (*ABBREVIATIONS, *INITIALS)]
"""Words that never end a sentence. Spark NLP's default list also matches the end of longer words ("first", "festival",
"Mexico"), and so joins sentences. With the space in front, these entries match only whole words."""


def sentences(data: Path) -> list[str]:
    """Return all training sentences, in the order of their documents, each on one line."""
    found: list[str] = []
    for line in (data / "gum_open_genres.jsonl").read_text(encoding="utf8").splitlines():
        document = json.loads(line)
        found += [document["text"][begin:end] for begin, end in document["sents"]]
    for line in (data / "golden_rules_en.jsonl").read_text(encoding="utf8").splitlines():
        found += json.loads(line)["sentences"]
    return [" ".join(sentence.split()) for sentence in found if sentence.strip()]


def main() -> None:
    """Train the sentence detector, and save it to OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    spark = open_session(
        SparkSettings(master="local[1]", jars="build/jars,build/jars-sparknlp"), "sentence detector recipe", sparknlp=True
    )
    rows = spark.createDataFrame([(s,) for s in sentences(options.data)], "text string").coalesce(1)
    approach = (
        SentenceDetectorDLApproach()
        .setInputCols(["document"])
        .setOutputCol("sentence")
        .setEpochsNumber(options.epochs)
        .setImpossiblePenultimates(NEVER_LAST)
    )
    assembler = DocumentAssembler().setInputCol("text").setOutputCol("document")
    fitted = Pipeline(stages=[assembler, approach]).fit(rows)
    fitted.stages[-1].write().overwrite().save(str(options.out))


if __name__ == "__main__":
    main()
