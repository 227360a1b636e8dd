"""Columns that are carried, of every kind that a source may have: they arrive, or are refused by name before any write."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from entitymill import settings
from entitymill.errors import SettingsError
from entitymill.platform.overlapping_paths import check_output
from entitymill.platform.session import calendars, configured
from entitymill.source.reader import open_source

from .conftest import Job
from .test_bad_input import nothing_written

Main = Callable[..., tuple[int, str]]
TEXT = "Angela Merkel met Emmanuel Macron in Paris."
IDS = [f"d{i}" for i in range(10)]
FAST = "recognition.precision=int8"
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
    dt.datetime(*moment, tzinfo=dt.timezone.utc)
    for moment in ((1, 1, 2, 3, 4, 5), (1582, 10, 10), (1899, 12, 31, 23), (2500, 1, 1))
]


@pytest.fixture
def delta(job: Job) -> tuple[str, ...]:
    """A Delta table with a column of every kind."""
    address = f"delta.`{job.directory}/source`"
    declared = ", ".join(f"{name} {kind} COMMENT 'of {name}'" for name, (kind, _) in COLUMNS.items())
    allowed = "TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported')"
    job.spark.sql(f"CREATE TABLE {address} (id STRING, text VARCHAR(100), {declared}) USING delta {allowed}")
    values = ", ".join(value for _, value in COLUMNS.values())
    rows = ", ".join(f"('{key}', '{TEXT}', {values})" for key in IDS)
    with configured(job.spark, calendars(job.spark)):
        job.spark.sql(f"INSERT INTO {address} VALUES {rows}")
    carried = f"source.passthrough=[{', '.join(COLUMNS)}]"
    return "source.format=delta", f"source.path={job.directory}/source", carried, FAST


@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_columns_of_every_kind_arrive_and_stay(job: Job, delta: tuple[str, ...], format_: str) -> None:
    options = (*delta, f"output.format={format_}")
    assert job.run(*options).documents == len(IDS)
    with configured(job.spark, calendars(job.spark)):
        job.spark.sql(f"UPDATE delta.`{job.directory}/source` SET filled = 8, s.doc_id = 'y' WHERE id = 'd3'")

    assert job.run(*options).documents == 1
    assert job.run(*options, "source.where=id <> 'd4'").removed == 1

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


@pytest.mark.parametrize(
    ("kind", "format_"), [("parquet", "delta"), ("parquet", "parquet"), ("int96", "parquet"), ("delta-rs", "delta")]
)
def test_old_days_and_times_of_files_that_spark_did_not_write_arrive(job: Job, kind: str, format_: str) -> None:
    ids = IDS[: len(OLD_DAYS)]
    times = pa.array(OLD_TIMES, pa.timestamp("us", "UTC"))
    texts = pa.table({"id": ids, "text": [TEXT] * len(ids), "day": pa.array(OLD_DAYS), "at": times})
    options = [f"output.format={format_}", "source.passthrough=[day, at]", FAST]
    if kind == "delta-rs":
        write_deltalake(job.directory / "source", texts)
        options += ["source.format=delta", f"source.path={job.directory}/source"]
    else:
        pq.write_table(texts, job.directory / "texts.parquet", use_deprecated_int96_timestamps=kind == "int96")

    assert job.run(*options).documents == len(ids)
    assert job.run(*options, "limits.max_reject_ratio=1").documents == 0
    found = job.read("entities", *options).where("entity = 'Paris'").orderBy("doc_id")
    assert [row.day for row in found.select("day").collect()] == OLD_DAYS
    micros = [row[0] for row in found.selectExpr("unix_micros(at)").collect()]
    assert micros == times.cast(pa.int64()).to_pylist()


def test_a_mode_that_somebody_chose_stays(job: Job) -> None:
    key = "spark.sql.parquet.datetimeRebaseModeInRead"
    before = job.spark.conf.get(key)
    try:
        job.spark.conf.set(key, "LEGACY")
        job.texts([("a", TEXT)])
        open_source(job.spark, settings.load(None, job.options(), {}).source)
        assert job.spark.conf.get(key) == "LEGACY"
    finally:
        job.spark.conf.set(key, str(before))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("INTERVAL '1' DAY AS c", "c of texts is interval day"),
        ("INTERVAL '1' MONTH AS c", "c of texts is interval month"),
        ("make_interval(1, 2) AS c", "c of texts is interval"),
        ("array(INTERVAL '1' DAY) AS c", "c of texts is array<interval day>"),
        ("NULL AS c", "c of texts is void"),
        ("array(named_struct('a', NULL)) AS c", "c of texts is array<struct<a:void>>"),
        ("named_struct('a', 1, 'A', 2) AS c", "c of texts is struct<a:int,A:int>"),
        ("true AS _put", "_put is the name of another column"),
        ("1 AS Label", "Label is the name of another column"),
    ],
)
def test_a_column_that_cannot_arrive_is_refused_by_name(job: Job, main: Main, column: str, message: str) -> None:
    job.spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW texts AS SELECT 'a' AS id, '{TEXT}' AS text, {column}")
    name = column.rpartition(" ")[2]

    code, error = main("source.format=table", "source.path=texts", f"source.passthrough=[{name}]")

    assert (code, nothing_written(job)) == (3, True)
    assert f"source.passthrough: {message}" in error


def test_a_column_of_a_type_that_pyspark_does_not_know_is_no_matter_where_it_is_not_named(job: Job) -> None:
    job.spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW texts AS SELECT 'a' AS id, '{TEXT}' AS text, make_interval(1) AS c")
    assert job.run("source.format=table", "source.path=texts", FAST).documents == 1


def test_files_of_a_delta_table_are_not_read_as_plain_parquet(job: Job, main: Main) -> None:
    frame = job.spark.createDataFrame([("a", TEXT, 1), ("b", TEXT, 2)], "id string, text string, year int")
    source = job.directory / "source"
    frame.write.format("delta").partitionBy("year").save(str(source))
    job.spark.sql(f"DELETE FROM delta.`{source}` WHERE id = 'a'")
    file = next(source.glob("year=1/*.parquet"))

    for path in (source, source / "year=1", file, f"file:{source}/"):
        code, error = main(f"source.path={path}")
        assert (code, nothing_written(job)) == (2, True)
        assert f"source.format: parquet would read deleted rows of {path}, since file:{source} is a Delta table" in error
        assert "source.format=delta" in error


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
            check_output(spark, source.location, f"{place}/out")
            check_output(spark, source.location, f"{place}/delta_out")
            for output in (files, f"{files}/a/out", *([] if path == "apart.view" else [place])):
                with pytest.raises(SettingsError, match=r"output\.path"):
                    check_output(spark, source.location, str(output))
