"""Documents that crash or hang the tagger in the Python workers: real Spark, real signals; the poison is poison_stub's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

import poison_stub
from entitymill.engines.openvino import FACTORY
from entitymill.errors import RejectedError
from entitymill.run.failures import AGAIN
from entitymill.run.summary import Summary
from entitymill.tables.publisher import Counted

from .conftest import Job
from .delta_source import BASE, FEED, Source

GOLDEN = [json.loads(line) for line in (Path(__file__).parents[1] / "golden" / "documents.jsonl").open(encoding="utf8")]
GOOD = [(document["id"], document["text"]) for document in GOLDEN]
DEADLY = {"segfault": poison_stub.SEGFAULT, "kill": poison_stub.KILL, "loop": poison_stub.LOOP}
POISON = [(name, f"{word} met Angela Merkel in Paris.") for name, word in DEADLY.items()]
REJECTED = [
    ("kill", "recognition", "tagger_crashed", "killed by SIGKILL"),
    ("loop", "recognition", "tagger_timed_out", "no answer in 6 s"),
    ("segfault", "recognition", "tagger_crashed", "killed by SIGSEGV"),
]
LIMITS = ("limits.batch_seconds=6", "limits.max_reject_ratio=0.5")


@pytest.fixture(autouse=True)
def poison(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.spark.sparkContext.addPyFile(poison_stub.__file__)
    monkeypatch.setattr("entitymill.engines.openvino.FACTORY", poison_stub.FACTORY)


def entities(job: Job, *overrides: str) -> list[tuple]:
    rows = job.read("entities", *overrides).orderBy("doc_id", "begin").collect()
    return [
        (row.mention_id, row.entity, row.label, row.sentence_id, pytest.approx(row.confidence, abs=1e-5)) for row in rows
    ]


def rejects(job: Job) -> list[tuple]:
    rows = job.read("rejects").collect()
    return sorted((row.doc_id, row.stage, row.code, row.detail) for row in rows)


def documents(job: Job) -> set[str]:
    return {row.doc_id for row in job.read("documents").collect()}


def test_poison_is_rejected_and_all_other_documents_are_as_without_it(job: Job) -> None:
    job.texts(GOOD).run()
    clean = entities(job)

    # One of the documents that the output holds goes bad, too.
    known, text = GOOD[0]
    spoiled = [(known, f"{text} {poison_stub.KILL}"), *GOOD[1:], *POISON]
    summary = job.texts(spoiled).run(*LIMITS, "limits.max_reject_ratio=1")

    left = [row for row in clean if not row[0].startswith(f"{known}:")]
    listed = sorted([*REJECTED, (known, "recognition", "tagger_crashed", "killed by SIGKILL")])
    assert len(left) < len(clean)
    assert entities(job) == left
    assert rejects(job) == listed
    assert documents(job) == {doc_id for doc_id, _ in GOOD[1:]}
    assert summary.rejects == {"tagger_crashed": 3, "tagger_timed_out": 1}
    assert summary.documents == 0

    # All that is new is tried in vain again, and too little of the source to give up.
    again = job.texts(spoiled).run(*LIMITS)
    assert (again.mode, again.rejects) == ("compare", summary.rejects)
    assert entities(job) == left
    assert rejects(job) == [(doc_id, stage, code, detail + AGAIN) for doc_id, stage, code, detail in listed]

    healed = job.texts(GOOD).run(*LIMITS)
    assert (healed.documents, rejects(job), entities(job)) == (1, [], clean)


def test_a_parquet_output_loses_what_a_poisoned_document_had(job: Job) -> None:
    parquet = "output.format=parquet"
    job.texts(GOOD).run(parquet)
    clean = entities(job, parquet)
    known, text = GOOD[0]
    job.texts([(known, f"{text} {poison_stub.SEGFAULT}"), *GOOD[1:]]).run(parquet)
    assert entities(job, parquet) == [row for row in clean if not row[0].startswith(f"{known}:")]
    assert rejects(job) == [(known, "recognition", "tagger_crashed", "killed by SIGSEGV")]


def test_too_much_poison_publishes_nothing(job: Job) -> None:
    job.texts([*GOOD, *POISON[:2]])
    with pytest.raises(RejectedError, match=r"2 of \d+ documents of a unit of .* crash or hang the tagger, more than"):
        job.run("limits.max_reject_ratio=0")
    assert entities(job) == []
    assert [doc_id for doc_id, *_ in rejects(job)] == ["kill", "segfault"]


def test_what_failed_is_tried_once_more_though_the_source_is_as_it_was(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was short of memory one night leaves nothing behind; true poison is not tried for ever."""
    source = Source(job, **FEED)
    job.run(*source.options())
    clean = entities(job)
    source.change({"d0": f"{BASE['d0']} {poison_stub.KILL}"})
    assert job.run(*source.options(), *LIMITS).rejects == {"tagger_crashed": 1}
    assert "d0" not in documents(job)

    with monkeypatch.context() as healthy:
        healthy.setattr("entitymill.engines.openvino.FACTORY", FACTORY)
        again = job.run(*source.options(), *LIMITS)
    assert (again.mode, again.documents, rejects(job)) == ("compare", 1, [])
    assert {row[0].split(":")[0] for row in entities(job)} >= {row[0].split(":")[0] for row in clean}

    source.change({"d1": f"{BASE['d1']} {poison_stub.KILL}"})
    modes = [job.run(*source.options(), *LIMITS).mode for _ in range(3)]
    assert modes == ["feed", "compare", "none"]
    assert [(doc_id, detail) for doc_id, _, _, detail in rejects(job)] == [("d1", f"killed by SIGKILL{AGAIN}")]


def test_a_document_that_fails_only_when_a_lost_part_is_computed_again_fails_the_run(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be published as one without mentions, and never be looked at again."""
    marker = job.directory / "now"
    job.texts([(doc_id, f"{text} {poison_stub.WHEN}{marker}") for doc_id, text in GOOD])
    count = Summary.count

    def then_loses_it(summary: Summary, recognised: DataFrame, *, names: bool) -> Counted:
        found = count(summary, recognised, names=names)
        recognised.unpersist(blocking=True)  # as the death of an executor does
        marker.touch()
        return found

    monkeypatch.setattr(Summary, "count", then_loses_it)
    with pytest.raises((PySparkException, Py4JJavaError), match="failed that did not fail before"):
        job.run(*LIMITS)
    assert marker.exists()
    assert entities(job) == []
