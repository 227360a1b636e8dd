"""Test that `entitymill.mentions` and `entitymill.udf` find the same mentions in a DataFrame as the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import entitymill
from difficult_texts import generate_texts
from entitymill.dataframe_functions import _check_options, _Options
from entitymill.errors import SettingsError

from .conftest import ROOT, Job

DEMO = str(ROOT / "models" / "demo")
COLUMNS = ("begin", "end", "entity", "label", "confidence", "token_count", "sentence_id", "sentence_begin", "sentence_end")
DOCUMENTS = 10_000
TEXTS = ("Angela Merkel flew to Paris.", "Barack Obama met 😀 Nelson Mandela in London. Then he left.", "Nothing here.")


@pytest.fixture(scope="module")
def filled(module_job: Job) -> Job:
    """Run the job on ten thousand texts, some of them difficult, with a sentence detector that needs no model."""
    texts = [*generate_texts(200, 1), *(f"{TEXTS[number % 3]} It was {number}." for number in range(DOCUMENTS - 200))]
    module_job.texts(pa.table({"id": [f"d{number}" for number in range(DOCUMENTS)], "text": pa.array(texts, pa.string())}))
    module_job.run("segmentation.detector=sentencex", "limits.max_reject_ratio=1")
    return module_job


def source(job: Job) -> DataFrame:
    return job.spark.read.parquet(f"{job.directory}/texts.parquet")


def rows(frame: DataFrame, key: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in frame.select(key, *COLUMNS).collect())


@pytest.fixture(scope="module")
def expected(filled: Job) -> list[tuple[Any, ...]]:
    found = rows(filled.read("entities"), "doc_id")
    assert len(found) > DOCUMENTS
    return found


def test_mentions_are_those_of_the_job(filled: Job, expected: list[tuple[Any, ...]]) -> None:
    assert rows(entitymill.mentions(source(filled), "id", "text", model=DEMO), "id") == expected


@pytest.mark.parametrize("ending", ["7", pytest.param("", marks=pytest.mark.deep)], ids=["a tenth", "all"])
def test_the_function_finds_those_of_the_job_in_sql(filled: Job, expected: list[tuple[Any, ...]], ending: str) -> None:
    source(filled).where(F.col("id").endswith(ending)).createOrReplaceTempView("texts_of_the_function")
    filled.spark.udf.register("entities", entitymill.udf(model=DEMO))
    found = filled.spark.sql("SELECT id, explode(entities(text)) AS mention FROM texts_of_the_function")
    assert rows(found.select("id", "mention.*"), "id") == [row for row in expected if row[0].endswith(ending)]


def test_both_functions_ignore_html_tags_if_they_are_told_to(spark: SparkSession) -> None:
    texts = spark.createDataFrame([(1, "<p>Angela Merkel</p>met Barack <b>Obama</b>.")], "id int, text string")
    names = ["Angela Merkel", "Barack <b>Obama"]
    found = entitymill.mentions(texts, model=DEMO, markup="html")
    assert [row.entity for row in found.orderBy("begin").collect()] == names
    [row] = texts.select(entitymill.udf(model=DEMO, spark=spark, markup="html")("text").alias("found")).collect()
    assert [mention.entity for mention in row.found] == names


@pytest.mark.parametrize(("key", "body"), [("key", "body"), ("the.key", "the.`body`")])
def test_ids_keep_their_type_and_null_texts_have_no_mentions(spark: SparkSession, key: str, body: str) -> None:
    frame = spark.createDataFrame([(1, TEXTS[0]), (None, TEXTS[0]), (3, None)], "key long, body string").toDF(key, body)
    found = entitymill.mentions(frame, key, body, model=DEMO)
    assert found.schema[key].dataType.simpleString() == "bigint"
    assert sorted((str(row[key]), row.entity) for row in found.collect()) == [
        ("1", "Angela Merkel"), ("1", "Paris"), ("None", "Angela Merkel"), ("None", "Paris"),
    ]  # fmt: skip
    listed = frame.toDF("key", "body").select(entitymill.udf(model=DEMO, spark=spark)("body").alias("found")).collect()
    assert [row.found is None for row in listed] == [False, False, True]


def test_a_stream_goes_on_where_it_was_stopped(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    def run_until_idle() -> None:
        stream = spark.readStream.schema("id string, text string").option("maxFilesPerTrigger", 1).parquet(f"{tmp_path}/in")
        writer = entitymill.mentions(stream, model=DEMO).writeStream.format("delta")
        query = writer.option("checkpointLocation", f"{tmp_path}/checkpoint").start(f"{tmp_path}/out")
        try:
            query.processAllAvailable()
        finally:
            query.stop()

    for number in range(4):
        pq.write_table(pa.table({"id": [str(number)], "text": [TEXTS[0]]}), tmp_path / "in" / f"{number}.parquet")
        if number % 2:
            run_until_idle()
    found = spark.read.format("delta").load(f"{tmp_path}/out").groupBy("id").agg(F.count("*").alias("mentions")).collect()
    assert {row.id: row.mentions for row in found} == dict.fromkeys("0123", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_column": "body"}, "the DataFrame has no column body; it has id, text, Label"),
        ({"precisoin": "int8"}, "precisoin is not an option; the options are detector"),
        ({"precision": "int4"}, "precision: 'int4' is not one of f32"),
        ({"trim": "no"}, "trim must be True or False, not 'no'"),
        ({"batch_seconds": 0}, "batch_seconds must be a positive number of seconds, not 0"),
        ({"id_column": "Label"}, "id_column: Label is also a field of Mention; rename the column first"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(spark: SparkSession, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        entitymill.mentions(spark.createDataFrame([], "id string, text string, Label string"), model=DEMO, **options)


def test_none_stands_for_the_default() -> None:
    options = dict.fromkeys(_Options.__dataclass_fields__)
    assert _Options(**_check_options(options)) == _Options()


def test_an_id_column_may_have_any_other_name(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(7, TEXTS[0])], "mention long, text string")
    found = entitymill.mentions(frame, "mention", model=DEMO)
    assert found.columns[0] == "mention"
    assert {row["mention"] for row in found.collect()} == {7}
