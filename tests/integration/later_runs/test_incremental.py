"""Test that a run processes only new and changed documents, and removes missing ones; see also test_histories.py."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill.errors import OutputError
from entitymill.run import work_units
from expected_tables import TEXT_POOL, ExpectedTables
from integration.conftest import Job
from integration.delta_source import BASE, Source


def test_by_hashes_only_what_differs_is_done_and_annotations_follow(job: Job, truth: ExpectedTables) -> None:
    annotated = "output.annotations=true"
    job.texts(list(BASE.items())).run(annotated)
    changed = {**BASE, "d1": TEXT_POOL[10], "new": TEXT_POOL[11]}
    del changed["d2"]
    summary = job.texts(list(changed.items())).run(annotated)

    assert (summary.mode, summary.documents, summary.removed) == ("compare", 2, 1)
    truth.check(job.output, changed)
    documents = job.read("documents").collect()
    assert {row.doc_id for row in documents if row.run_id == summary.run_id} == {"d1", "new"}
    rows = job.read("annotations").select("doc_id", F.size("ner_chunk").alias("chunks")).collect()
    assert sorted((row.doc_id, row.chunks) for row in rows) == sorted((row.doc_id, row.entities) for row in documents)

    # A run without annotations must delete those of earlier runs, which would become outdated.
    job.run()
    assert job.read("annotations").count() == 0
    truth.check(job.output, changed)


@pytest.mark.deep
def test_a_refused_row_takes_its_document_out_and_one_that_is_mended_brings_it_in(job: Job, truth: ExpectedTables) -> None:
    lenient = "limits.max_reject_ratio=0.9"
    source = Source(job)
    source.writer(source.frame({"bad": None}), "append").save(source.path)
    assert job.run(*source.options(), lenient).rejects == {"null_text": 1}
    truth.check(job.output, BASE)

    # The appended rows are valid, but the source has other rows with these ids, so the run must look them up there.
    source.writer(source.frame({"bad": TEXT_POOL[7], "d0": TEXT_POOL[0]}), "append").save(source.path)
    summary = job.run(*source.options(), lenient)
    assert (summary.mode, summary.rejects) == ("arrivals", {"duplicate_id": 4})
    left = {key: text for key, text in BASE.items() if key != "d0"}
    truth.check(job.output, left)

    source.table.delete("id = 'bad' AND text IS NULL")
    job.run(*source.options(), lenient)
    assert job.rejects() == [("d0", "duplicate_id")] * 2
    truth.check(job.output, {"bad": TEXT_POOL[7], **left})


def test_another_setting_is_refused_or_does_all_again(job: Job, truth: ExpectedTables) -> None:
    job.texts(list(BASE.items())).run()
    other = "entities.min_confidence=0.0001"
    with pytest.raises(OutputError, match="on_fingerprint_change"):
        job.run(other, "incremental.on_fingerprint_change=refuse")
    truth.check(job.output, BASE)

    assert job.run(other).documents == len(BASE)
    assert len({row.fingerprint for row in job.read("documents").collect()}) == 1


def test_a_view_that_shows_a_document_twice_for_a_while(
    job: Job, truth: ExpectedTables, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a document occurs twice in a view, but only after the check for duplicates, it must be published once."""
    one, other = Source(job), f"{job.directory}/other"
    spark.createDataFrame([], "id string, text string").write.format("delta").save(other)
    tables = f"TABLE delta.`{one.path}` UNION ALL TABLE delta.`{other}`"
    spark.sql(f"CREATE OR REPLACE VIEW both_texts AS {tables}")
    options = ("source.format=table", "source.path=both_texts")
    spread = work_units.repartition_unit

    def in_both(*arguments: Any, **named: Any) -> Any:
        one.writer(one.frame({key: BASE[key] for key in ("d0", "d1")}), "append").save(other)
        return spread(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(work_units, "repartition_unit", in_both)
        job.run(*options)
    assert spark.read.table("both_texts").count() == len(BASE) + 2
    truth.check(job.output, BASE)
    one.delete("d0", "d1")
    job.run(*options)
    truth.check(job.output, BASE)
