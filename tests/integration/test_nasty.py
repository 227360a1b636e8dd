"""No text kills a run: nasty ones beside healthy ones, through engine openvino as it is."""

from __future__ import annotations

import pytest

from nasty import NASTY, SAMPLE

from .conftest import Job

HEALTHY = [(f"healthy-{number:02d}", text) for number, text in enumerate(SAMPLE * 5)]
MEGABYTES = "a megabyte without a blank"
"""What a run of minutes is made of is cut short; one text is left as long as it is."""
SHORTENED = 10_000


def entities(job: Job) -> list[tuple]:
    rows = job.read("entities").where("doc_id LIKE 'healthy%'").orderBy("doc_id", "begin").collect()
    return [
        (row.mention_id, row.sentence_id, row.entity, row.label, row.token_count, pytest.approx(row.confidence, abs=1e-5))
        for row in rows
    ]


@pytest.mark.parametrize("detector", ["dl", "rules"])
def test_healthy_texts_beside_nasty_ones_are_as_without_them(job: Job, detector: str) -> None:
    options = (f"segmentation.detector={detector}", "source.max_chars=2000000")
    job.texts(HEALTHY).run(*options)
    clean = entities(job)
    nasty = [
        (f"nasty-{number:03d}", text if name == MEGABYTES else text[:SHORTENED])
        for number, (name, text) in enumerate(NASTY.items())
    ]
    mixed = [row for pair in zip(nasty, HEALTHY * 20, strict=False) for row in pair]

    summary = job.texts(list(dict(mixed).items())).run(*options, full=True)

    assert clean
    assert entities(job) == clean
    assert (job.rejects(), summary.rejects) == ([], {})
    assert job.read("documents").count() == len(HEALTHY) + len(nasty)
    texts = dict(mixed)
    for row in job.read("entities").where("doc_id LIKE 'nasty%'").collect():
        assert texts[row.doc_id][row.begin : row.end] == row.entity
