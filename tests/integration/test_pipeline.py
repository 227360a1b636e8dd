"""The whole job on real text: the tables, their schemas, their offsets, and the entities themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chispa import assert_df_equality
from deltalake import DeltaTable as DeltaReader
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill import schemas

from .conftest import Job

GOLDEN = [json.loads(line) for line in (Path(__file__).parents[1] / "golden" / "documents.jsonl").open(encoding="utf8")]
SPEECHES = Path(__file__).parents[2] / "data" / "state_union.parquet"
WRITTEN_ANEW = ["run_id", "processed_at"]


@pytest.fixture(scope="module")
def golden(module_job: Job) -> Job:
    module_job.texts([(document["id"], document["text"]) for document in GOLDEN]).run()
    return module_job


@pytest.mark.parametrize("document", GOLDEN, ids=lambda d: d["id"])
def test_golden_documents_give_their_entities(golden: Job, document: dict) -> None:
    rows = golden.read("entities").where(F.col("doc_id") == document["id"]).orderBy("begin").collect()
    assert [[row.begin, row.end, row.entity, row.label] for row in rows] == document["entities"]


def test_every_entity_is_the_text_at_its_offsets(golden: Job, spark: SparkSession) -> None:
    source = spark.read.parquet(f"{golden.directory}/texts.parquet").withColumnRenamed("id", "doc_id")
    joined = golden.read("entities").join(source, "doc_id")
    kept = joined.where(F.expr("substring(text, begin + 1, end - begin) = entity"))
    assert kept.count() == joined.count() == sum(len(document["entities"]) for document in GOLDEN)
    inside = joined.where("sentence_begin <= begin and end <= sentence_end and sentence_end <= char_length(text)")
    assert inside.count() == joined.count()


def test_tables_have_their_schema_with_keys_and_comments(golden: Job) -> None:
    for name, schema in (
        ("entities", schemas.entities([])),
        ("documents", schemas.DOCUMENTS),
        ("rejects", schemas.REJECTS),
        ("runs", schemas.RUNS),
    ):
        found = golden.read(name).schema
        assert [(f.name, f.dataType) for f in found] == [(f.name, f.dataType) for f in schema], name
        assert [f.metadata.get("comment") for f in found] == [f.metadata["comment"] for f in schema], name
        written = json.loads(DeltaReader(str(golden.output / name)).schema().to_json())["fields"]
        assert {f["name"] for f in written if not f["nullable"]} == {f.name for f in schema if not f.nullable}, name


def test_entities_are_partitioned_by_label_in_few_files(golden: Job) -> None:
    table = DeltaReader(str(golden.output / "entities"))
    assert table.metadata().partition_columns == ["label"]
    labels = {row.label for row in golden.read("entities").select("label").distinct().collect()}
    assert labels == {"PER", "ORG", "LOC", "MISC"}
    assert len(table.file_uris()) == len(labels)


def test_documents_claim_what_entities_hold(golden: Job) -> None:
    claimed = {row.doc_id: row.entities for row in golden.read("documents").collect()}
    counted = {row.doc_id: row["count"] for row in golden.read("entities").groupBy("doc_id").count().collect()}
    assert claimed == {document["id"]: counted.get(document["id"], 0) for document in GOLDEN}
    assert {row.status for row in golden.read("documents").collect()} == {"done", "blank"}


def test_the_run_is_recorded_with_its_figures(golden: Job) -> None:
    run = golden.read("runs").collect()[0]
    labels = {row.label: row["count"] for row in golden.read("entities").groupBy("label").count().collect()}
    assert (run.status, run.documents, run.entities_by_label) == ("done", len(GOLDEN), labels)
    assert run.sentences == golden.read("documents").agg(F.sum("sentences")).collect()[0][0]
    assert {"source", "recognition", "segmentation", "inference", "writing", "total"} <= set(run.seconds)
    assert run.fingerprint == golden.read("documents").first().fingerprint
    assert json.loads(run.settings)["recognition"]["precision"] == "f32"


def test_a_second_run_doubles_nothing(job: Job) -> None:
    job.texts([("a", "Angela Merkel met Emmanuel Macron in Paris."), ("b", "Nobody came.")])
    job.run()
    first = job.read("entities").drop(*WRITTEN_ANEW).collect()

    job.run()

    assert_df_equality(
        job.read("entities").drop(*WRITTEN_ANEW),
        job.spark.createDataFrame(first, job.read("entities").drop(*WRITTEN_ANEW).schema),
        ignore_row_order=True,
    )
    assert job.read("documents").count() == 2
    assert job.read("runs").count() == 2


def test_partition_count_changes_nothing(job: Job, spark: SparkSession) -> None:
    overrides = [f"source.path={SPEECHES}", "source.where=year = 1945 or year > 2004", "source.passthrough=[speech, year]"]
    one, sixteen = (job.output.with_name(f"out{n}") for n in (1, 16))
    job.run(*overrides, "spark.partitions=1", f"output.path={one}")
    job.run(*overrides, "spark.partitions=16", f"output.path={sixteen}")

    for table in ("entities", "documents"):
        left, right = (spark.read.format("delta").load(f"{path}/{table}").drop(*WRITTEN_ANEW) for path in (one, sixteen))
        assert left.count() > 50
        assert_df_equality(left.drop("confidence"), right.drop("confidence"), ignore_row_order=True)
    left, right = (spark.read.format("delta").load(f"{path}/entities") for path in (one, sixteen))
    apart = left.join(right, "mention_id").select(F.max(F.abs(left.confidence - right.confidence))).collect()[0][0]
    assert apart <= 1e-5


def test_text_of_any_kind_keeps_its_offsets(job: Job, spark: SparkSession) -> None:
    texts = [
        "😀😀 Angela Merkel met 𝒳 in Paris.",
        "Cafe\u0301 owner Zoe\u0308 Kravitz visited Ko\u0308ln.",
        "Angela Merkel\r\nmet Emmanuel Macron\r\n\r\nin Paris.",
        "Angela\x00Merkel met\x00 Emmanuel Macron in Paris.",
        "مرحبا يا باريس. Angela Merkel met Emmanuel Macron. שלום ירושלים.",
        "\ufeffAngela Merkel met Emmanuel Macron in Paris\u2028and Berlin.\u00a0",
        "word " * 5000 + "Angela Merkel met Emmanuel Macron in Paris",
    ]
    job.texts([(str(i), text) for i, text in enumerate(texts)]).run()

    rows = job.read("entities").collect()
    assert all(texts[int(row.doc_id)][row.begin : row.end] == row.entity for row in rows)
    found = {(row.doc_id, row.entity) for row in rows}
    assert {("0", "Angela Merkel"), ("0", "Paris"), ("2", "Emmanuel Macron"), ("4", "Angela Merkel")} <= found
    assert ("6", "Emmanuel Macron") in found
    long = {row.doc_id: row for row in job.read("documents").collect()}["6"]
    assert (long.tokens, long.split_sentences, long.chars) == (5007, 1, len(texts[6]))
    source = spark.read.parquet(f"{job.directory}/texts.parquet")
    matching = job.read("entities").join(source, F.col("doc_id") == F.col("id"))
    assert matching.where("substring(text, begin + 1, end - begin) = entity").count() == len(rows)


@pytest.mark.parametrize("detector", ["dl", "rules"])
def test_either_detector_finds_the_sentences(job: Job, detector: str) -> None:
    job.texts([("a", "Mr. Smith went to Washington. He met Dr. Jones there! Did they talk?")])
    job.run(f"segmentation.detector={detector}")
    assert job.read("documents").collect()[0].sentences == 3


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_faster_precisions_find_nearly_the_same(job: Job, golden: Job, precision: str) -> None:
    job.texts([(document["id"], document["text"]) for document in GOLDEN]).run(f"recognition.precision={precision}")
    exact = {(d["id"], *entity) for d in GOLDEN for entity in map(tuple, d["entities"])}
    found = {(r.doc_id, r.begin, r.end, r.entity, r.label) for r in job.read("entities").collect()}
    assert len(exact & found) >= 0.95 * len(exact | found)
    assert job.read("documents").first().fingerprint != golden.read("documents").first().fingerprint
