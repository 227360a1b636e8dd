"""Test where tables are written, what is never overwritten, and what a dry run does."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from delta.tables import DeltaTable
from deltalake import DeltaTable as DeltaReader
from pyspark.sql import SparkSession

from entitymill import schemas, settings
from entitymill.errors import OutputError, RejectedError, SettingsError
from entitymill.run.dry_runs import Plan
from entitymill.run.extraction import extract
from entitymill.source.reader import open_source
from entitymill.tables import table_setup

from .conftest import MODELS, Job

TEXTS = [("a", "Angela Merkel met Emmanuel Macron in Paris."), ("b", "Nobody came.")]
EXPECTED = [("a", "Angela Merkel", "PER"), ("a", "Emmanuel Macron", "PER"), ("a", "Paris", "LOC")]


def test_a_directory_that_holds_other_files_is_no_empty_table(job: Job) -> None:
    (job.output / "entities").mkdir(parents=True)
    (job.output / "entities" / "mine.csv").write_text("a,b")
    with pytest.raises(OutputError, match="was not written by"):
        job.texts(TEXTS).run("output.format=parquet")
    assert (job.output / "entities" / "mine.csv").exists()


def test_a_table_that_was_never_finished_blocks_nobody(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_setup, "CREATION_SECONDS", 0.05)
    for name in ("documents", "entities", "runs", "rejects"):
        (job.output / name / "_delta_log").mkdir(parents=True)  # left by a run that was killed while it created a table
    job.texts(TEXTS).run()
    assert job.mentions() == EXPECTED
    assert job.read("entities").schema["doc_id"].metadata["comment"]


def test_tables_can_live_in_a_catalog_schema(spark: SparkSession) -> None:
    """`output.schema` may contain the catalog or not. A source that is a Delta table in a catalog must have a version."""
    for schema in ("names_raw", "entity_tables"):
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    spark.createDataFrame(TEXTS, "key string, body string").write.format("delta").saveAsTable("names_raw.articles")
    spark.range(1).write.format("delta").saveAsTable("entity_tables.staged_entities")  # a table of somebody else
    source = ["source.format=table", "source.path=spark_catalog.names_raw.articles"]
    options = [*source, "source.id_column=key", "source.text_column=body", *MODELS, "spark.partitions=2"]
    schemas_ = ("spark_catalog.entity_tables", "entity_tables")
    runs = [extract(spark, settings.load(None, [*options, f"output.schema={schema}"], {})) for schema in schemas_]
    assert [run.mode for run in runs] == ["first", "none"]

    rows = spark.read.table("spark_catalog.entity_tables.entities").orderBy("begin").collect()
    assert [(row.doc_id, row.entity, row.label) for row in rows] == EXPECTED
    for name, count in {"documents": len(TEXTS), "runs": len(runs)}.items():
        versions = [row.source_version for row in spark.read.table(f"entity_tables.{name}").collect()]
        assert versions == ["0"] * count
    assert spark.read.table("entity_tables.staged_entities").count() == 1
    detail = DeltaTable.forName(spark, "entity_tables.entities").detail().collect()[0]
    assert (detail.partitionColumns, detail.properties["entitymill.schema"]) == (["label"], schemas.VERSION)
    written = DeltaReader(detail.location.removeprefix("file:")).schema().to_json()
    assert {f["name"] for f in json.loads(written)["fields"] if not f["nullable"]} == {"doc_id", "mention_id", "label"}


def test_ids_of_any_single_valued_type_become_strings(job: Job) -> None:
    days = pa.array([0, 1], pa.date32())
    job.texts(pa.table({"id": days, "text": [text for _, text in TEXTS]}))
    rows = open_source(job.spark, settings.load(None, job.options(), {}).source).rows.collect()
    assert {row.doc_id for row in rows} == {"1970-01-01", "1970-01-02"}


@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_a_table_of_somebody_else_is_refused(job: Job, spark: SparkSession, format_: str) -> None:
    foreign = str(job.output / "entities")
    spark.range(3).write.format(format_).save(foreign)
    with pytest.raises(OutputError, match="exists and was not written by"):
        job.texts(TEXTS).run(f"output.format={format_}")
    assert spark.read.format(format_).load(foreign).count() == 3


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
        with pytest.raises(SettingsError, match=r"output\.path: .* is inside "):
            extract(spark, loaded, dry_run=dry_run)
    assert sorted(source.rglob("*")) == before


def test_a_dry_run_plans_and_writes_nothing(job: Job) -> None:
    def planned(*overrides: str, **flags: Any) -> Plan | None:
        loaded = settings.load(None, job.options("limits.max_reject_ratio=0.5", *overrides), {})
        return extract(job.spark, loaded, dry_run=True, **flags).plan

    job.texts([*TEXTS, ("c", None)])
    assert planned() == Plan(2, 0, 0, 0, {"null_text": 1}, 1, None, None)
    assert not job.output.exists()
    with pytest.raises(RejectedError, match=r"1 of 3 rows .* would be rejected \(1 null_text\), more than .* 0.05` allows"):
        planned("limits.max_reject_ratio=0.05")

    job.run("limits.max_reject_ratio=0.5")
    before = sorted(job.output.rglob("*"))
    plan = planned()
    assert plan is not None
    assert (plan.new, plan.changed, plan.removed, plan.unchanged) == (0, 0, 0, 2)
    plan = planned("recognition.precision=int8", "mentions.trim=false", "limits.batch_seconds=99")
    assert plan is not None
    assert (plan.changed, plan.causes) == (2, {"settings or model": 2})
    assert plan.changed_settings == ("recognition.precision", "mentions.trim")
    [(key, text), *others] = TEXTS
    job.texts([(key, f"{text} More."), ("new", "Paris."), ("newer", "Rome.")])
    plan = planned()
    assert plan is not None
    assert (plan.new, plan.changed, plan.removed, plan.unchanged, plan.units) == (2, 1, len(others), 0, 1)
    assert (plan.causes, plan.changed_settings) == ({"text": 1}, ())
    assert plan.hours is not None
    assert plan.core_hours == pytest.approx(2 * plan.hours)
    with pytest.raises(RejectedError, match=r"larger share than `limits\.max_removed_ratio: 0\.2`"):
        planned("limits.max_removed_ratio=0.2")
    assert planned("limits.max_removed_ratio=0.2", allow_removals=True) == plan
    assert sorted(job.output.rglob("*")) == before


def test_a_dry_run_tries_whether_the_output_can_be_written(job: Job) -> None:
    job.texts(TEXTS)
    (job.directory / "file").write_text("no directory")
    with pytest.raises(OutputError, match=r"output\.path: .*file/out cannot be (written|reached)"):
        extract(job.spark, settings.load(None, job.options(f"output.path={job.directory}/file/out"), {}), dry_run=True)
