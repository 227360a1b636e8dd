"""Test documents that crash or hang the tagger in Python workers, with real Spark and real signals.

Certain words in a text make the stub in poison_stub.py crash or hang.
"""

from __future__ import annotations

from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Row

import poison_stub
from entitymill.errors import RejectedError
from entitymill.run.crashing_documents import AGAIN, STAGE
from entitymill.run.recognition_ahead import UnitInRecognition
from entitymill.workers.engine_openvino import FACTORY

from .conftest import Job
from .delta_source import BASE, FEED, Source

GOOD = list(BASE.items())
MET = "met Angela Merkel in Paris."
LIMITS = ("limits.batch_seconds=3", "limits.max_reject_ratio=0.5")
ALL_MAY_FAIL = (*LIMITS, "limits.max_reject_ratio=1")
SEGFAULT, KILL = "killed by SIGSEGV", "killed by SIGKILL"


@pytest.fixture(autouse=True)
def poison(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.spark.sparkContext.addPyFile(poison_stub.__file__)
    monkeypatch.setattr("entitymill.workers.engine_openvino.FACTORY", poison_stub.FACTORY)


def entities(job: Job, *overrides: str) -> list[tuple[Any, ...]]:
    rows = job.read("entities", *overrides).orderBy("doc_id", "begin").collect()
    return [
        (row.mention_id, row.entity, row.label, row.sentence_id, pytest.approx(row.confidence, abs=1e-5)) for row in rows
    ]


def rejects(job: Job) -> list[tuple[Any, ...]]:
    rows = job.read("rejects").collect()
    assert {row.stage for row in rows} <= {STAGE}
    return sorted((row.doc_id, row.code, row.detail) for row in rows)


def documents(job: Job) -> set[str]:
    return {row.doc_id for row in job.read("documents").collect()}


@pytest.mark.deep
def test_poison_is_rejected_and_tried_once_more_and_other_documents_are_as_without_it(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run must retry a failed document once; it is published if it succeeds, and not tried again if it fails."""
    source = Source(job, **FEED)
    job.run(*source.options())
    clean = entities(job)

    # Make a published document crash the tagger, and add a new document that hangs it.
    source.change({"d0": f"{BASE['d0']} {poison_stub.KILL}", "loop": f"{poison_stub.LOOP} {MET}"})
    spoiled = job.run(*source.options(), *ALL_MAY_FAIL)
    left = [row for row in clean if not row[0].startswith("d0:")]
    assert len(left) < len(clean)
    assert (spoiled.mode, spoiled.documents, spoiled.rejects) == ("feed", 0, {"tagger_crashed": 1, "tagger_timed_out": 1})
    assert rejects(job) == [("d0", "tagger_crashed", KILL), ("loop", "tagger_timed_out", "no answer in 3 s")]
    assert entities(job) == left
    assert documents(job) == BASE.keys() - {"d0"}

    # The source has not changed, but now the tagger works, as if the machine had caused the failures.
    with monkeypatch.context() as healthy:
        healthy.setattr("entitymill.workers.engine_openvino.FACTORY", FACTORY)
        healed = job.run(*source.options(), *LIMITS)
    assert (healed.mode, healed.documents, rejects(job)) == ("feed", 2, [])
    assert [row for row in entities(job) if not row[0].startswith(("d0:", "loop:"))] == left
    assert {row[0] for row in clean} <= {row[0] for row in entities(job)}
    assert documents(job) == BASE.keys() | {"loop"}

    source.delete("loop")
    source.change({"d0": BASE["d0"], "d1": f"{BASE['d1']} {poison_stub.KILL}", "kill": f"{poison_stub.KILL} {MET}"})
    assert job.run(*source.options(), *ALL_MAY_FAIL).rejects == {"tagger_crashed": 2}
    listed = [("d1", "tagger_crashed", KILL), ("kill", "tagger_crashed", KILL)]
    left = [row for row in clean if not row[0].startswith("d1:")]
    assert (rejects(job), entities(job), documents(job)) == (listed, left, BASE.keys() - {"d1"})

    # The next run retries both documents, which fail again but do not fail the run. Later runs do not retry them.
    again = job.run(*source.options(), *LIMITS)
    assert (again.mode, again.rejects) == ("feed", {"tagger_crashed": 2})
    assert rejects(job) == [(doc_id, code, detail + AGAIN) for doc_id, code, detail in listed]
    assert job.run(*source.options(), *LIMITS).mode == "none"
    assert (len(rejects(job)), entities(job)) == (2, left)


@pytest.mark.deep
def test_a_parquet_output_loses_what_a_poisoned_document_had_unless_too_much_is_poison(job: Job) -> None:
    parquet = "output.format=parquet"
    job.texts(GOOD).run(parquet)
    clean = entities(job, parquet)
    known, text = GOOD[0]
    job.texts([(known, f"{text} {poison_stub.SEGFAULT}"), *GOOD[1:], ("kill", f"{poison_stub.KILL} {MET}")])
    with pytest.raises(RejectedError, match=r"2 of \d+ documents of a unit of .* crash the tagger or make it hang, more"):
        job.run(parquet, "limits.max_reject_ratio=0")
    listed = [("kill", "tagger_crashed", KILL), (known, "tagger_crashed", SEGFAULT)]
    assert (entities(job, parquet), rejects(job)) == (clean, sorted(listed))

    job.run(parquet, *ALL_MAY_FAIL)
    left = [row for row in clean if not row[0].startswith(f"{known}:")]
    assert entities(job, parquet) == left
    assert len(left) < len(clean)
    assert [doc_id for doc_id, *_ in rejects(job)] == sorted([known, "kill"])


def test_a_document_that_fails_only_when_a_lost_part_is_computed_again_fails_the_run(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a document fails only when Spark recomputes a partition, the run must fail, not publish it without mentions."""
    marker = job.directory / "now"
    job.texts([(doc_id, f"{text} {poison_stub.WHEN}{marker}") for doc_id, text in GOOD[:3]])
    wait = UnitInRecognition.wait

    def then_loses_it(unit: UnitInRecognition) -> list[Row]:
        counts = wait(unit)
        unit.recognized.unpersist(blocking=True)  # as the death of an executor does
        marker.touch()
        return counts

    monkeypatch.setattr(UnitInRecognition, "wait", then_loses_it)
    with pytest.raises((PySparkException, Py4JJavaError), match="only when Spark recomputed a lost partition"):
        job.run(*LIMITS)
    assert marker.exists()
    assert entities(job) == []
