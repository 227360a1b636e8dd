"""Test that sentences and tokens are those that Spark NLP found in difficult texts (see golden/make_segments.py)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import get_args

import pytest

from entitymill.recognition import sentences
from own_segments import Segments, segment_texts

TESTS = Path(__file__).parents[1]
ROWS = [json.loads(line) for line in gzip.decompress((TESTS / "golden" / "segments.jsonl.gz").read_bytes()).splitlines()]
COLUMN = {"dl": 1, "rules": 2}
ENOUGH = 2000


def pairs(flat: list[int]) -> list[tuple[int, int]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.parametrize("kind", COLUMN)
def test_sentences_and_tokens_are_spark_nlps(kind: sentences.DetectorKind) -> None:
    rows = [row for row in ROWS if row[COLUMN[kind]] is not None]
    detector = sentences.open_detector(kind, sentences.find_detector_files(TESTS.parent / "models" / "sentence_detector"))

    found = segment_texts(detector, [row[0] for row in rows])

    wanted = [Segments(*map(pairs, row[COLUMN[kind]])) for row in rows]
    assert [(row[0], ours, theirs) for row, ours, theirs in zip(rows, found, wanted, strict=True) if ours != theirs] == []
    assert len(rows) >= ENOUGH
    assert sum(len(cut.tokens) for cut in wanted) > 20 * ENOUGH


def test_every_detector_but_one_is_held_to_spark_nlp() -> None:
    assert {*get_args(sentences.DetectorKind)} - {*COLUMN} == {"sentencex"}
