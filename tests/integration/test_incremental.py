"""A run does what is new or changed, takes out what is gone, and nothing else; however it finds out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill.errors import OutputError, RejectedError
from entitymill.run import units
from truth import POOL, Truth

from .conftest import Job
from .delta_source import BASE, FEED, Source


def test_by_hashes_only_what_differs_is_done(job: Job, truth: Truth) -> None:
    job.texts(list(BASE.items())).run()
    changed = {**BASE, "d1": POOL[10], "new": POOL[11]}
    del changed["d2"]
    summary = job.texts(list(changed.items())).run()

    assert (summary.mode, summary.documents, summary.removed) == ("compare", 2, 1)
    truth.check(job.output, changed)
    runs = {row.doc_id: row.run_id for row in job.read("documents").collect()}
    assert {key for key, run in runs.items() if run == summary.run_id} == {"d1", "new"}


def test_ids_that_are_not_utf8_are_listed_byte_for_byte(job: Job) -> None:
    ids = pa.array([b"good", b"bad\xff"], pa.binary()).view(pa.string())
    for text in POOL[:2]:
        job.texts(pa.table({"id": ids, "text": [text, text]})).run("limits.max_reject_ratio=1")
        [listed] = job.read("rejects").select("code", F.col("doc_id").cast("binary")).collect()
        assert (listed.code, bytes(listed.doc_id)) == ("malformed_id", b"bad\xff")


def versions(job: Job) -> list[int]:
    tables = (DeltaTable.forPath(job.spark, str(job.output / name)) for name in ("entities", "documents", "rejects"))
    return [table.history(1).collect()[0].version for table in tables]


def test_a_run_with_nothing_to_do_touches_nothing(job: Job) -> None:
    job.texts(list(BASE.items())).run()
    before = versions(job)
    summary = job.run()

    assert (summary.mode, summary.documents) == ("none", 0)
    assert versions(job) == before
    assert [row.status for row in job.read("runs").collect()] == ["done", "done"]


def test_a_change_feed_tells_of_every_change(job: Job, truth: Truth) -> None:
    source = Source(job, **FEED)
    job.run(*source.options())
    source.change({"d0": POOL[12], "d9": POOL[13]})
    source.delete("d3")
    source.append({"d8": POOL[14]})
    summary = job.run(*source.options())

    assert (summary.mode, summary.documents, summary.removed) == ("feed", 3, 1)
    truth.check(job.output, source.rows)


def test_appended_rows_arrive_as_a_stream(job: Job, truth: Truth) -> None:
    source = Source(job)
    job.run(*source.options())
    source.append({"d8": POOL[14]})
    source.append({"d9": POOL[15]})
    summary = job.run(*source.options())

    assert (summary.mode, summary.documents) == ("arrivals", 2)
    truth.check(job.output, source.rows)
    assert not (job.output / "_arrived").exists()


def test_a_compacted_source_has_nothing_new(job: Job, truth: Truth) -> None:
    source = Source(job)
    source.append({"d8": POOL[14]})
    job.run(*source.options())
    source.table.optimize().executeCompaction()
    summary = job.run(*source.options())

    assert (summary.mode, summary.documents, summary.removed) == ("feed", 0, 0)
    truth.check(job.output, source.rows)


def test_a_rewritten_source_is_compared(job: Job, truth: Truth) -> None:
    source = Source(job)
    job.run(*source.options())
    source.overwrite({**BASE, "d0": POOL[16]})
    summary = job.run(*source.options())

    assert (summary.mode, summary.documents, summary.removed) == ("compare", 1, 0)
    truth.check(job.output, source.rows)


def test_a_source_made_anew_at_the_same_place_is_compared(job: Job, truth: Truth, spark: SparkSession) -> None:
    source = Source(job, **FEED)
    job.run(*source.options())
    source.writer(source.frame({"d0": POOL[17]})).save(f"{source.path}-2")
    jvm_path = spark.sparkContext._jvm.org.apache.hadoop.fs.Path
    system = jvm_path(source.path).getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
    system.delete(jvm_path(source.path), True)
    system.rename(jvm_path(f"{source.path}-2"), jvm_path(source.path))
    summary = job.run(*source.options())

    assert (summary.mode, summary.documents, summary.removed) == ("compare", 1, 5)
    truth.check(job.output, {"d0": POOL[17]})


def test_a_source_with_deletion_vectors(job: Job, truth: Truth) -> None:
    source = Source(job, **FEED, **{"delta.enableDeletionVectors": "true"})
    job.run(*source.options())
    source.delete("d1")
    source.change({"d2": POOL[18]})
    summary = job.run(*source.options())

    assert (summary.mode, summary.documents, summary.removed) == ("feed", 1, 1)
    truth.check(job.output, source.rows)


def test_a_source_with_column_mapping(job: Job, truth: Truth, spark: SparkSession) -> None:
    source = Source(job, **{"delta.columnMapping.mode": "name"})
    job.run(*source.options())
    source.append({"d8": POOL[14]})
    assert job.run(*source.options()).documents == 1
    spark.sql(f"ALTER TABLE delta.`{source.path}` RENAME COLUMN text TO body")
    summary = job.run(*source.options(), "source.text_column=body")

    assert summary.documents == 0
    truth.check(job.output, source.rows)


@pytest.mark.parametrize("properties", [FEED, {}], ids=["feed", "arrivals"])
def test_a_refused_row_takes_its_document_out_and_may_come_back(job: Job, truth: Truth, properties: dict[str, str]) -> None:
    lenient = "limits.max_reject_ratio=0.9"
    source = Source(job, **properties)
    job.run(*source.options())
    source.writer(source.frame({"d0": POOL[0], "bad": None}), "append").save(source.path)  # d0 twice now
    summary = job.run(*source.options(), lenient)
    assert summary.rejects == {"duplicate_id": 2, "null_text": 1}
    truth.check(job.output, {key: text for key, text in BASE.items() if key != "d0"})

    source.table.delete("id = 'bad' OR id = 'd0'")
    source.append({"d0": POOL[1]})
    job.run(*source.options(), lenient)
    assert job.rejects() == []
    truth.check(job.output, {**BASE, "d0": POOL[1]})


def test_too_many_new_refused_rows_leave_the_tables_as_they_were(job: Job, truth: Truth) -> None:
    source = Source(job, **FEED)
    job.run(*source.options())
    source.writer(source.frame({"x": None, "y": None, "z": POOL[3]}), "append").save(source.path)
    with pytest.raises(RejectedError):
        job.run(*source.options())
    truth.check(job.output, BASE)


def test_another_model_or_setting_reprocesses_refuses_or_is_ignored(job: Job, truth: Truth) -> None:
    job.texts(list(BASE.items())).run()
    other = "segmentation.detector=rules"
    with pytest.raises(OutputError, match="on_fingerprint_change"):
        job.run(other, "incremental.on_fingerprint_change=refuse")
    truth.check(job.output, BASE)
    assert job.run(other, "incremental.on_fingerprint_change=ignore").documents == 0

    mixed = {**BASE, "new": POOL[7]}
    assert job.texts(list(mixed.items())).run(other, "incremental.on_fingerprint_change=ignore").documents == 1
    assert job.run(other).documents == len(BASE)
    assert len({row.fingerprint for row in job.read("documents").collect()}) == 1


def test_full_makes_everything_anew(job: Job, truth: Truth) -> None:
    job.texts(list(BASE.items())).run()
    changed = {**BASE, "d1": POOL[10]}
    del changed["d2"]
    summary = job.texts(list(changed.items())).run(full=True)

    assert (summary.mode, summary.documents) == ("full", len(changed))
    truth.check(job.output, changed)
    assert {row.run_id for row in job.read("documents").collect()} == {summary.run_id}
    assert sorted(path.name for path in job.output.glob("_*")) == []


def test_annotations_follow_their_documents(job: Job) -> None:
    job.texts(list(BASE.items())).run("output.annotations=true")
    changed = {**BASE, "d1": POOL[10]}
    del changed["d2"]
    job.texts(list(changed.items())).run("output.annotations=true")
    rows = job.read("annotations").select("doc_id", F.size("ner_chunk").alias("chunks")).collect()
    counts = {row.doc_id: row.entities for row in job.read("documents").collect()}
    assert sorted((row.doc_id, row.chunks) for row in rows) == sorted(counts.items())
    job.run()
    assert job.read("annotations").count() == 0


def test_a_condition_on_the_time_is_asked_again_though_the_source_is_the_same(job: Job) -> None:
    source = Source(job, **FEED)
    where = "source.where=current_date() > date'2000-01-01'"
    job.run(*source.options(), where)
    assert job.run(*source.options(), where).mode == "compare"


def test_a_change_of_the_columns_is_not_left_to_the_feed(job: Job, truth: Truth, spark: SparkSession) -> None:
    """A column dropped and made anew would be another in every row, and no event tells of it."""
    source = Source(job, **FEED)
    job.run(*source.options())
    spark.sql(f"ALTER TABLE delta.`{source.path}` ADD COLUMN lang STRING")
    source.delete("d1")
    assert job.run(*source.options()).mode == "compare"
    source.delete("d2")
    assert job.run(*source.options()).mode == "feed"
    truth.check(job.output, source.rows)


def test_a_view_that_shows_a_document_twice_for_a_while(
    job: Job, truth: Truth, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row on its way from one table to another, seen in both: after the look for ids that occur twice."""
    one, other = Source(job), f"{job.directory}/other"
    spark.createDataFrame([], "id string, text string").write.format("delta").save(other)
    tables = f"TABLE delta.`{one.path}` UNION ALL TABLE delta.`{other}`"
    spark.sql(f"CREATE OR REPLACE VIEW both_texts AS {tables}")
    options = ("source.format=table", "source.path=both_texts")
    spread = units.spread

    def in_both(*arguments: Any, **named: Any) -> Any:
        one.writer(one.frame({key: BASE[key] for key in ("d0", "d1")}), "append").save(other)
        return spread(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(units, "spread", in_both)
        job.run(*options)
    assert spark.read.table("both_texts").count() == len(BASE) + 2
    truth.check(job.output, BASE)
    one.delete("d0", "d1")
    job.run(*options)
    truth.check(job.output, BASE)
