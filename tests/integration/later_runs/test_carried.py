"""Test passthrough columns of every type: they are copied to `entities`, or an error names them before any write."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyspark.sql import DataFrame, SparkSession

from entitymill import settings
from entitymill.errors import OutputError, SettingsError, SourceError
from entitymill.source import changes
from entitymill.source.reader import Source, open_source
from entitymill.spark.private_session import open_private_session
from integration.conftest import Job

Main = Callable[..., tuple[int, str]]
TEXT = "Angela Merkel met Emmanuel Macron in Paris."
IDS = [f"d{i}" for i in range(10)]
COLUMNS = {
    "short": ("VARCHAR(5)", "'ab'"),
    "padded": ("CHAR(4)", "'ab'"),
    "held": ("ARRAY<STRUCT<x: VARCHAR(3), y: CHAR(2)>>", "array(named_struct('x', 'abc', 'y', 'c'))"),
    "filled": ("INT DEFAULT 7", "7"),
    "s": ("STRUCT<doc_id: STRING, _put: BOOLEAN>", "named_struct('doc_id', 'x', '_put', true)"),
    "t": ("STRUCT<mention_id: STRING, doc_id: INT>", "named_struct('mention_id', 'x', 'doc_id', 3)"),
    "ntz": ("TIMESTAMP_NTZ", "TIMESTAMP_NTZ '1066-10-14 09:00:00'"),
    "amount": ("DECIMAL(10, 2)", "1.50"),
    "counts": ("MAP<STRING, INT>", "map('a', 1)"),
    "raw": ("BINARY", "X'00ff'"),
    "day": ("DATE", "DATE '0001-01-01'"),
    "at": ("TIMESTAMP", "TIMESTAMP '1582-10-10 01:02:03.000004'"),
}
OLD_DAYS = [dt.date(1, 1, 1), dt.date(1582, 10, 10), dt.date(1899, 12, 31), dt.date(9999, 12, 31)]
OLD_TIMES = [
    dt.datetime(*moment, tzinfo=dt.timezone.utc)  # type: ignore[misc]  # a tuple of any length
    for moment in ((1, 1, 2, 3, 4, 5), (1582, 10, 10), (1899, 12, 31, 23), (2500, 1, 1))
]


@pytest.fixture
def delta(job: Job) -> tuple[str, ...]:
    """Create a Delta source with a column of every type, and return the settings that name it."""
    address = f"delta.`{job.directory}/source`"
    declared = ", ".join(f"{name} {kind} COMMENT 'of {name}'" for name, (kind, _) in COLUMNS.items())
    allowed = "TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported')"
    job.spark.sql(f"CREATE TABLE {address} (id STRING, text VARCHAR(100), {declared}) USING delta {allowed}")
    values = ", ".join(value for _, value in COLUMNS.values())
    rows = ", ".join(f"('{key}', '{TEXT}', {values})" for key in IDS)
    with open_private_session(job.spark, "UTC", {}) as own:
        own.sql(f"INSERT INTO {address} VALUES {rows}")
    carried = f"source.passthrough=[{', '.join(COLUMNS)}]"
    return "source.format=delta", f"source.path={job.directory}/source", carried


@pytest.mark.parametrize("format_", [pytest.param("delta", marks=pytest.mark.deep), "parquet"])
def test_columns_of_every_kind_arrive_and_stay(job: Job, delta: tuple[str, ...], format_: str) -> None:
    options = (*delta, f"output.format={format_}")
    assert job.run(*options).documents == len(IDS)
    with open_private_session(job.spark, "UTC", {}) as own:
        own.sql(f"UPDATE delta.`{job.directory}/source` SET filled = 8, s.doc_id = 'y' WHERE id = 'd3'")

    alone = format_ == "delta"  # test a run that only removes documents
    where = "source.where=id <> 'd4'"
    summary = job.run(*options, *([] if alone else [where]))
    assert (summary.documents, summary.removed) == (1, 0 if alone else 1)
    if alone:
        assert job.run(*options, where).removed == 1

    found = job.read("entities", *options)
    rows = {row.doc_id: row for row in found.where("entity = 'Paris'").collect()}
    assert set(rows) == set(IDS) - {"d4"}
    assert [rows["d3"].filled, rows["d3"].s.doc_id, rows["d2"].filled, rows["d2"].s.doc_id] == [8, "y", 7, "x"]
    row = rows["d2"]
    assert (row.short, row.padded, row.held[0].x, row.held[0].y) == ("ab", "ab  ", "abc", "c ")
    assert (row.t.mention_id, row.amount, row.counts, bytes(row.raw)) == ("x", Decimal("1.50"), {"a": 1}, b"\x00\xff")
    assert (row.day, row.ntz) == (dt.date(1, 1, 1), dt.datetime(1066, 10, 14, 9))  # noqa: DTZ001
    [told] = found.where("doc_id = 'd2'").selectExpr("CAST(at AS STRING)").distinct().collect()
    assert told[0] == "1582-10-10 01:02:03.000004"
    noted = {field.name: field.metadata for field in found.schema if field.name in COLUMNS}
    assert noted == {name: {"comment": f"of {name}"} for name in COLUMNS}


@pytest.mark.deep
def test_columns_may_come_and_change_and_go(job: Job) -> None:
    """Passthrough columns may be added, changed and dropped, also with odd names; names are not case-sensitive."""
    columns = {"i`d": ["a"], "te.xt": [TEXT], "nested": [{"x": 1.5}]}
    named = ("source.id_column=i`d", "source.text_column=te.xt")
    job.texts(pa.table({**columns, "n`n": [7], "o.o": [8], "Lang": ["en"]}))
    job.run(*named, "source.passthrough=[n`n, o.o, Lang]")
    held = job.read("entities").collect()
    assert [(row["n`n"], row["o.o"], row["Lang"]) for row in held] == [(7, 8, "en")] * 3

    changed = pa.table({**columns, "n`n": [9], "o.o": [10], "lang": ["de"]})
    carried = "source.passthrough=[n`n, o.o, nested, lang]"
    job.texts(changed).run(*named, carried)
    held = job.read("entities").select("*", "lang").collect()
    assert [(row["n`n"], row["o.o"], row["nested"]["x"], row["lang"]) for row in held] == [(9, 10, 1.5, "de")] * 3

    job.texts(changed.drop_columns("lang").append_column("lang", [[1]]))
    with pytest.raises(OutputError, match="lang is bigint in the source, but string in"):
        job.run(*named, carried)
    assert job.read("entities").select("*", "lang").collect() == held

    job.run(*named)
    held = job.read("entities").collect()
    assert [(row["n`n"], row["o.o"], row["nested"], row["Lang"]) for row in held] == [(None, None, None, None)] * 3
    assert sorted(row["entity"] for row in held) == ["Angela Merkel", "Emmanuel Macron", "Paris"]


def source_of(job: Job, *options: str, spark: SparkSession | None = None) -> Source:
    return open_source(spark or job.spark, settings.load(None, job.options(*options), {}).source)


def with_old_days(job: Job, kind: str) -> list[str]:
    """Write a source with old dates and times, without Spark, and return the settings that name it."""
    ids = IDS[: len(OLD_DAYS)]
    columns = {"day": pa.array(OLD_DAYS, pa.date32()), "at": pa.array(OLD_TIMES, pa.timestamp("us", "UTC"))}
    texts = pa.table({"id": ids, "text": [TEXT] * len(ids), **columns})
    if kind == "delta-rs":
        write_deltalake(job.directory / "source", texts)
        return ["source.passthrough=[day, at]", "source.format=delta", f"source.path={job.directory}/source"]
    pq.write_table(texts, job.directory / "texts.parquet", use_deprecated_int96_timestamps=kind == "int96")
    return ["source.passthrough=[day, at]"]


def days_and_times(rows: DataFrame) -> tuple[list[dt.date], list[int]]:
    held = rows.orderBy("doc_id").selectExpr("day", "unix_micros(at) AS at").collect()
    return [row["day"] for row in held], [row["at"] for row in held]


OLD = (OLD_DAYS, pa.array(OLD_TIMES, pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist())


@pytest.mark.parametrize("kind", ["parquet", "int96", "delta-rs"])
def test_old_days_and_times_of_files_that_spark_did_not_write_are_read(job: Job, kind: str) -> None:
    options = with_old_days(job, kind)
    with open_private_session(job.spark, "UTC", {}) as own:
        assert days_and_times(source_of(job, *options, spark=own).rows.select("doc_id", "passthrough.*")) == OLD


def test_old_days_and_times_arrive_and_are_known_again(job: Job) -> None:
    options = [*with_old_days(job, "int96"), "output.format=parquet"]
    assert job.run(*options).documents == len(OLD_DAYS)
    assert days_and_times(job.read("entities", *options).where("entity = 'Paris'")) == OLD

    exported = job.spark.read.parquet(str(job.output / "entities"))
    assert days_and_times(exported.where("entity = 'Paris'")) == OLD

    known = job.read("documents")
    [fingerprint] = {row["fingerprint"] for row in known.collect()}
    with open_private_session(job.spark, "UTC", {}) as own:
        policy = changes.Policy(fingerprint, "reprocess", None)
        found = changes.compare_all(source_of(job, *options, spark=own), known, policy)
        found.close()
    assert (found.rows, found.to_recognize, found.to_remove) == (len(OLD_DAYS), 0, 0)


@pytest.mark.parametrize(
    ("column", "carried", "message"),
    [
        ("INTERVAL '1' DAY", "c", "c of texts is interval day"),
        ("INTERVAL '1' MONTH", "c", "c of texts is interval month"),
        ("make_interval(1, 2)", "c", "c of texts is interval"),
        ("array(INTERVAL '1' DAY)", "c", "c of texts is array<interval day>"),
        ("NULL", "c", "c of texts is void"),
        ("array(named_struct('a', NULL))", "c", "c of texts is array<struct<a:void>>"),
        ("named_struct('a', 1, 'A', 2)", "c", "c of texts is struct<a:int,A:int>"),
        ("true", "_put", "_put is already the name of a column"),
        ("1", "Label", "Label is already the name of a column"),
    ],
)
def test_a_column_that_cannot_arrive_is_refused_by_name(job: Job, column: str, carried: str, message: str) -> None:
    job.spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW texts AS SELECT 'a' AS id, '{TEXT}' AS text, {column} AS {carried}")
    with pytest.raises(SourceError, match=re.escape(f"source.passthrough: {message}")):
        source_of(job, "source.format=table", "source.path=texts", f"source.passthrough=[{carried}]")


def test_a_run_that_is_to_carry_such_a_column_writes_nothing(job: Job, main: Main) -> None:
    job.spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW texts AS SELECT 'a' AS id, '{TEXT}' AS text, NULL AS c")
    code, error = main("source.format=table", "source.path=texts", "source.passthrough=[c]")
    assert (code, job.output.exists()) == (3, False)
    assert "source.passthrough: c of texts is void" in error


def test_a_column_of_a_type_that_pyspark_does_not_know_is_no_matter_where_it_is_not_named(job: Job) -> None:
    job.spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW texts AS SELECT 'a' AS id, '{TEXT}' AS text, make_interval(1) AS c")
    source = source_of(job, "source.format=table", "source.path=texts")
    assert changes.select_all_documents(source, changes.Mode.FIRST).documents.select("doc_id", "text").collect() == [
        ("a", TEXT)
    ]


def test_files_of_a_delta_table_are_not_read_as_plain_parquet(job: Job, main: Main) -> None:
    frame = job.spark.createDataFrame([("a", TEXT, 1), ("b", TEXT, 2)], "id string, text string, year int")
    source = job.directory / "source"
    frame.write.format("delta").partitionBy("year").save(str(source))
    job.spark.sql(f"DELETE FROM delta.`{source}` WHERE id = 'a'")
    file = next(source.glob("year=1/*.parquet"))

    for path in (source, source / "year=1", file, f"file:{source}/"):
        code, error = main(f"source.path={path}")
        assert (code, job.output.exists()) == (2, False)
        assert f"source.format: parquet would read deleted rows of {path}, since file:{source} is a Delta table" in error
        assert "`source.format: delta`" in error


def test_an_output_in_or_around_its_source_is_refused_wherever_that_is_said_to_be(job: Job) -> None:
    spark, place = job.spark, job.directory
    spark.sql("CREATE SCHEMA IF NOT EXISTS apart")
    rows = spark.createDataFrame([("a", TEXT)], "id string, text string")
    for name in ("delta", "parquet"):
        rows.write.format(name).option("path", f"{place}/{name}").mode("overwrite").saveAsTable(f"apart.{name}_table")
    spark.sql("CREATE OR REPLACE VIEW apart.view AS SELECT * FROM apart.delta_table")
    job.texts([("a", TEXT)])
    sources = {
        f"{place}/delta": [("delta", f"{place}/delta"), ("table", "apart.delta_table"), ("table", "apart.view")],
        f"{place}/parquet": [("parquet", f"file://{place}//parquet/"), ("table", "apart.parquet_table")],
        f"{place}/texts.parquet": [("parquet", f"{place}/texts.parquet")],
    }
    for files, named in sources.items():
        for format_, path in named:
            options = ["output.path=unused", f"source.format={format_}", f"source.path={path}"]
            source = open_source(spark, settings.load(None, options, {}).source)
            source.check_output(f"{place}/out")
            source.check_output(f"{place}/delta_out")
            for output in (files, f"{files}/a/out", *([] if path == "apart.view" else [place])):
                with pytest.raises(SettingsError, match=r"output\.path"):
                    source.check_output(str(output))
