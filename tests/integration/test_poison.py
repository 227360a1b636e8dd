"""Documents that crash or hang the tagger in the Python workers: real Spark, real signals; the poison is poison_stub's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import poison_stub
from entitymill.errors import RejectedError

from .conftest import Job

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
    assert (entities(job), rejects(job)) == (left, listed)

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
    with pytest.raises(RejectedError, match=r"2 of \d+ documents of a unit of .* crash or hang the tagger, 2 of \d+ rows"):
        job.run("limits.max_reject_ratio=0")
    assert entities(job) == []
    assert [doc_id for doc_id, *_ in rejects(job)] == ["kill", "segfault"]
