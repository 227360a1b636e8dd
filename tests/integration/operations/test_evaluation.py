from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from entitymill.commands.evaluate import ALL, Score, evaluate, main

SCHEMA = "doc_id string, begin int, end int, label string"
GOLD = [("a", 0, 5, "PER"), ("a", 9, 12, "LOC"), ("b", 0, 3, "ORG"), ("c", 1, 2, "PER")]
FOUND = [
    ("a", 0, 5, "PER"),
    ("a", 0, 5, "PER"),  # twice: counts once
    ("a", 9, 13, "LOC"),  # one too long
    ("b", 0, 3, "PER"),  # other label
    ("d", 0, 3, "MISC"),  # not in gold
]


def test_exact_spans_and_labels_count(spark: SparkSession) -> None:
    scores = evaluate(spark.createDataFrame(FOUND, SCHEMA), spark.createDataFrame(GOLD, SCHEMA))

    assert scores == {
        "LOC": Score(1, 1, 0),
        "MISC": Score(1, 0, 0),
        "ORG": Score(0, 1, 0),
        "PER": Score(2, 2, 1),
        ALL: Score(4, 4, 1),
    }
    assert (scores["PER"].precision, scores["PER"].recall, scores["PER"].f1) == (0.5, 0.5, 0.5)
    assert (scores["MISC"].recall, scores["ORG"].precision, scores["ORG"].f1) == (0.0, 0.0, 0.0)


def test_labels_can_be_left_out(spark: SparkSession) -> None:
    scores = evaluate(spark.createDataFrame(FOUND, SCHEMA), spark.createDataFrame(GOLD, SCHEMA), ["PER"])
    assert scores[ALL] == scores["PER"] == Score(2, 2, 1)


def test_a_wrong_path_and_a_missing_column_are_named(
    spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gold.jsonl").write_text('{"doc_id": "a", "start": 1}\n')

    assert main(["--entities", f"{tmp_path}/nowhere", "--gold", f"{tmp_path}/gold.jsonl"]) == 3
    assert "--entities: there is nothing at" in capfd.readouterr().err
    (tmp_path / "found.jsonl").write_text('{"doc_id": "a", "begin": 1, "end": 2, "label": "PER"}\n')
    assert main(["--entities", f"{tmp_path}/found.jsonl", "--gold", f"{tmp_path}/found.jsonl", "--labels", "PERSON"]) == 2
    assert "--labels: PERSON is in neither table" in capfd.readouterr().err
    assert main(["--entities", f"{tmp_path}/gold.jsonl", "--gold", f"{tmp_path}/gold.jsonl"]) == 3
    assert "has no column begin; it has doc_id, start" in capfd.readouterr().err
    (tmp_path / "gold.jsonl").write_text('{"doc_id": "a", "begin": 1, "end": 2, "label": "PER"}\n{"doc_id": "b", \n')
    assert main(["--entities", f"{tmp_path}/found.jsonl", "--gold", f"{tmp_path}/gold.jsonl"]) == 3
    assert "--gold: a row lacks one of doc_id, begin, end, label, or is not valid JSON" in capfd.readouterr().err
