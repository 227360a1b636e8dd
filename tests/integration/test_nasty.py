"""Test that hostile texts do not fail a run, and do not change the results of healthy texts in the same run."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pyspark.sql import Row, SparkSession

import entitymill
from hostile_texts import HOSTILE_TEXTS, SAMPLE

from .conftest import ROOT, Job, recognized

HEALTHY = {f"healthy-{number:02d}": text for number, text in enumerate(SAMPLE * 5)}
MEGABYTES = "a megabyte without a blank"
"""Name of the only hostile text that is not shortened; with all texts at full length, a run would take minutes."""
SHORTENED = 3_000
CUT = [text if name == MEGABYTES else text[:SHORTENED] for name, text in HOSTILE_TEXTS.items()]
PAIRS = zip(enumerate(CUT), list(HEALTHY.items()) * 20, strict=False)
TEXTS = dict(row for (number, text), healthy in PAIRS for row in ((f"nasty-{number:03d}", text), healthy))


def clean(detector: Literal["dl", "rules"]) -> list[tuple[Any, ...]]:
    """Return the mentions that `entitymill.load` finds in the healthy texts alone, without Spark."""
    tagger = entitymill.load(ROOT / "models" / "demo", detector=detector)
    return [
        (f"{key}:{found.begin}-{found.end}", *brief(found))
        for key, text in sorted(HEALTHY.items())
        for found in tagger(text)
    ]


def brief(mention: Row | entitymill.Mention) -> tuple[Any, ...]:
    close = pytest.approx(mention.confidence, abs=1e-5)
    return (mention.sentence_id, mention.entity, mention.label, mention.token_count, close)


def test_healthy_texts_beside_nasty_ones_are_as_without_them(job: Job) -> None:
    summary = job.texts(list(TEXTS.items())).run("source.max_chars=2000000")

    rows = job.read("entities").orderBy("doc_id", "begin").collect()
    healthy = [(row.mention_id, *brief(row)) for row in rows if row.doc_id in HEALTHY]
    assert healthy == clean("dl") != []
    assert (job.rejects(), summary.rejects) == ([], {})
    assert job.read("documents").count() == len(TEXTS)
    assert all(TEXTS[row.doc_id][row.begin : row.end] == row.entity for row in rows)


def test_so_they_are_with_the_other_detector(spark: SparkSession) -> None:
    rows = recognized(spark, TEXTS, "segmentation.detector=rules")

    healthy = [
        (f"{key}:{found.begin}-{found.end}", *brief(found)) for key in sorted(HEALTHY) for found in rows[key].mentions
    ]
    assert healthy == clean("rules") != []
    assert [key for key, row in rows.items() if row.failure is not None] == []
    assert set(rows) == set(TEXTS)
    for key, row in rows.items():
        assert all(TEXTS[key][found.begin : found.end] == found.entity for found in row.mentions)
