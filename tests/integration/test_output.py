"""Where tables go, and what is never overwritten."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from delta.tables import DeltaTable
from deltalake import DeltaTable as DeltaReader
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill import schemas, settings
from entitymill.errors import OutputError, RejectedError, SettingsError, SourceError
from entitymill.platform.session import configured
from entitymill.run.extraction import extract
from entitymill.run.plan import Plan
from entitymill.tables import Tables, parquet_swap

from .conftest import Job

TEXTS = [("a", "Angela Merkel met Emmanuel Macron in Paris."), ("b", "Nobody came.")]
EXPECTED = [("a", "Angela Merkel", "PER"), ("a", "Emmanuel Macron", "PER"), ("a", "Paris", "LOC")]


def test_parquet_is_written_by_label_and_replaced_as_a_whole(job: Job) -> None:
    job.texts(TEXTS).run("output.format=parquet")
    job.texts(TEXTS[:1]).run("output.format=parquet")

    directory = job.output / "entities"
    assert {path.name for path in directory.glob("label=*")} == {"label=PER", "label=LOC"}
    assert pq.read_table(directory, partitioning="hive").num_rows == 3
    assert sorted(path.name for path in job.output.iterdir()) == ["documents", "entities", "rejects", "runs"]


def test_a_parquet_swap_that_died_in_the_middle_is_undone_or_finished(job: Job) -> None:
    job.texts(TEXTS).run("output.format=parquet")
    # As a run killed between its two renames leaves it.
    (job.output / "entities").rename(job.output / "_replaced")
    (job.output / "_written_7").mkdir()
    (job.output / "_written_7" / "half.parquet").write_bytes(b"half")

    loaded = settings.load(None, job.options("output.format=parquet"), {})
    parquet_swap.settle(Tables(job.spark, loaded.output))

    assert pq.read_table(job.output / "entities").num_rows == 3
    assert not (job.output / "_written_7").exists()


def test_parquet_without_one_mention_is_a_table_like_any_other(job: Job) -> None:
    job.texts(TEXTS[1:]).run("output.format=parquet")
    job.texts(TEXTS).run("output.format=parquet")
    assert job.read("entities", "output.format=parquet").count() == 3
    job.texts(TEXTS[1:]).run("output.format=parquet")
    assert job.read("entities", "output.format=parquet").count() == 0
    assert job.texts([]).run("output.format=parquet").removed == 1


def test_a_directory_that_holds_other_files_is_no_empty_table(job: Job) -> None:
    (job.output / "entities").mkdir(parents=True)
    (job.output / "entities" / "mine.csv").write_text("a,b")
    with pytest.raises(OutputError, match="was not written by"):
        job.texts(TEXTS).run("output.format=parquet")
    assert (job.output / "entities" / "mine.csv").exists()


def test_a_table_that_was_never_finished_blocks_nobody(job: Job) -> None:
    for name in ("documents", "entities", "runs", "rejects"):
        (job.output / name / "_delta_log").mkdir(parents=True)  # as a run that was killed at once leaves it
    job.texts(TEXTS).run()
    assert job.mentions() == EXPECTED
    assert job.read("entities").schema["doc_id"].metadata["comment"]


def test_a_carried_column_of_another_type_is_named(job: Job) -> None:
    table = pa.table({"id": ["a"], "text": [TEXTS[0][1]], "n": [7]})
    job.texts(table).run("source.passthrough=[n]")
    job.texts(table.set_column(2, "n", pa.array([7.5])))
    for full in (False, True):
        with pytest.raises(OutputError, match="n is double now and bigint in"):
            job.run("source.passthrough=[n]", full=full)
    assert [row.n for row in job.read("entities").collect()] == [7] * 3


@pytest.mark.parametrize("carried", ["Label", "n, n"])
def test_a_carried_column_whose_name_is_taken_is_named(job: Job, carried: str) -> None:
    job.texts(pa.table({"id": ["a"], "text": [TEXTS[0][1]], "Label": [7], "n": [7]}))
    with pytest.raises(SourceError, match="is the name of another column of the entities table"):
        job.run(f"source.passthrough=[{carried}]")
    assert not job.output.exists()


def test_a_rebuild_leaves_nothing_of_a_label_that_is_not_found_any_more(job: Job, spark: SparkSession) -> None:
    job.texts(TEXTS).run()
    with configured(spark, {"spark.sql.sources.partitionOverwriteMode": "dynamic"}):
        job.texts([("a", "Angela Merkel came.")]).run(full=True)
    assert job.mentions() == [("a", "Angela Merkel", "PER")]


def test_tables_can_live_in_a_catalog_schema(job: Job, spark: SparkSession) -> None:
    job.texts(TEXTS)
    spark.sql("CREATE SCHEMA IF NOT EXISTS entity_tables")
    spark.range(1).write.format("delta").saveAsTable("entity_tables.staged_entities")  # somebody else's
    options = [option for option in job.options() if not option.startswith("output.path")]
    for _ in range(2):
        extract(spark, settings.load(None, [*options, "output.schema=entity_tables"], {}))

    rows = spark.read.table("entity_tables.entities").orderBy("begin").collect()
    assert [(row.doc_id, row.entity, row.label) for row in rows] == EXPECTED
    assert spark.read.table("entity_tables.runs").count() == 2
    assert spark.read.table("entity_tables.staged_entities").count() == 1
    detail = DeltaTable.forName(spark, "entity_tables.entities").detail().collect()[0]
    assert (detail.partitionColumns, detail.properties["entitymill.schema"]) == (["label"], schemas.VERSION)
    written = DeltaReader(detail.location.removeprefix("file:")).schema().to_json()
    assert {f["name"] for f in json.loads(written)["fields"] if not f["nullable"]} == {"doc_id", "mention_id", "label"}


def test_a_catalog_table_is_read_at_one_version(job: Job, spark: SparkSession) -> None:
    spark.createDataFrame(TEXTS, "key string, body string").write.format("delta").saveAsTable("texts_of_test")
    columns = ["source.id_column=key", "source.text_column=body"]
    job.run("source.format=table", "source.path=texts_of_test", *columns)
    assert job.mentions() == EXPECTED
    assert {row.source_version for row in job.read("documents").collect()} == {"0"}


def test_a_delta_path_is_read_and_its_version_recorded(job: Job, spark: SparkSession) -> None:
    path = f"{job.directory}/delta"
    spark.createDataFrame([("gone", "x")], "id string, text string").write.format("delta").save(path)
    frame = spark.createDataFrame(TEXTS, "id string, text string")
    frame.write.format("delta").mode("overwrite").save(path)
    job.run("source.format=delta", f"source.path={path}")
    assert job.mentions() == EXPECTED
    assert job.read("runs").collect()[0].source_version == "1"


def test_ids_of_any_single_valued_type_become_strings(job: Job) -> None:
    days = pa.array([0, 1], pa.date32())
    job.texts(pa.table({"id": days, "text": [text for _, text in TEXTS]})).run()
    assert {row.doc_id for row in job.read("documents").collect()} == {"1970-01-01", "1970-01-02"}


def test_passthrough_columns_follow_each_entity_and_may_come_and_go(job: Job) -> None:
    table = pa.table({"id": ["a"], "text": [TEXTS[0][1]], "n": [7], "nested": [{"x": 1.5}]})
    job.texts(table).run("source.passthrough=[n]")
    job.run("source.passthrough=[n, nested]")
    rows = job.read("entities").collect()
    assert [(row.n, row.nested.x) for row in rows] == [(7, 1.5)] * 3
    job.run()
    assert job.read("entities").where(F.col("n").isNotNull()).count() == 0
    assert len(job.mentions()) == 3


@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_a_table_of_somebody_else_is_refused(job: Job, spark: SparkSession, format_: str) -> None:
    foreign = str(job.output / "entities")
    spark.range(3).write.format(format_).save(foreign)
    with pytest.raises(OutputError, match="exists and was not written by"):
        job.texts(TEXTS).run(f"output.format={format_}")
    assert spark.read.format(format_).load(foreign).count() == 3


def test_a_table_of_another_schema_version_is_refused(job: Job, spark: SparkSession) -> None:
    job.texts(TEXTS).run()
    spark.sql(f"ALTER TABLE delta.`{job.output}/entities` SET TBLPROPERTIES ('entitymill.schema' = '99')")
    with pytest.raises(OutputError, match="has schema 99, this program writes 3"):
        job.texts(TEXTS[:1]).run()


@pytest.mark.parametrize("place", ["in", "around", "foreign"])
def test_an_output_in_the_source_around_it_or_in_another_table_is_refused(job: Job, spark: SparkSession, place: str) -> None:
    source = job.directory / "lake" / "texts"
    frame = spark.createDataFrame(TEXTS, "id string, text string")
    frame.write.format("delta").save(str(source))
    (job.directory / "link").symlink_to(source)
    output = {"in": f"{job.directory}/link/out", "around": f"{job.directory}/lake/x/..", "foreign": str(job.output)}[place]
    if place == "foreign":
        frame.write.format("delta").save(str(job.directory / "out"))
        output = f"file:{job.output}//out"
    before = sorted(source.rglob("*"))
    for dry_run in (True, False):
        chosen = job.options("source.format=delta", f"source.path={source}", f"output.path={output}")
        loaded = settings.load(None, chosen, {})
        with pytest.raises(SettingsError, match=r"output\.path: .* lies in "):
            extract(spark, loaded, dry_run=dry_run)
    assert sorted(source.rglob("*")) == before


def test_a_dry_run_plans_and_writes_nothing(job: Job) -> None:
    def planned(*overrides: str, **flags: bool) -> Plan | None:
        loaded = settings.load(None, job.options("limits.max_reject_ratio=0.5", *overrides), {})
        return extract(job.spark, loaded, dry_run=True, **flags).plan

    job.texts([*TEXTS, ("c", None)])
    assert planned() == Plan(2, 0, 0, 0, {"null_text": 1}, 1, None, None)
    assert not job.output.exists()
    with pytest.raises(RejectedError, match=r"1 of 3 rows .* would be refused \(1 null_text\), more than .* 0.05 allows"):
        planned("limits.max_reject_ratio=0.05")

    job.run("limits.max_reject_ratio=0.5")
    before = sorted(job.output.rglob("*"))
    plan = planned()
    assert plan is not None
    assert (plan.new, plan.changed, plan.removed, plan.unchanged) == (0, 0, 0, 2)
    [(key, text), *others] = TEXTS
    job.texts([(key, f"{text} More."), ("new", "Paris."), ("newer", "Rome.")])
    plan = planned()
    assert plan is not None
    assert (plan.new, plan.changed, plan.removed, plan.unchanged, plan.units) == (2, 1, len(others), 0, 1)
    assert plan.hours is not None
    assert plan.core_hours == pytest.approx(2 * plan.hours)
    with pytest.raises(RejectedError, match=r"larger share than limits\.max_removed_ratio 0\.2"):
        planned("limits.max_removed_ratio=0.2")
    assert planned("limits.max_removed_ratio=0.2", allow_removals=True) == plan
    assert sorted(job.output.rglob("*")) == before


def test_a_dry_run_tries_whether_the_output_can_be_written(job: Job) -> None:
    job.texts(TEXTS)
    (job.directory / "file").write_text("no directory")
    with pytest.raises(OutputError, match=r"output\.path: .*file/out cannot be (written|reached)"):
        extract(job.spark, settings.load(None, job.options(f"output.path={job.directory}/file/out"), {}), dry_run=True)
