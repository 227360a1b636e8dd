"""Catalog names from settings: of three levels, of odd characters, and what looks like SQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from entitymill import settings
from entitymill.errors import OutputError, SourceError
from entitymill.run.extraction import extract

from .conftest import MODELS, Job

TEXT = "Angela Merkel met Emmanuel Macron in Paris."
ODD_SCHEMA, ODD_TABLE, ODD_COLUMN = "raw; DROP TABLE victim", "we`ird -- 'x'.t", "te`xt; --"


@pytest.fixture
def odd_catalog(spark: SparkSession) -> Iterator[str]:
    """A catalog beside Spark's own, which refuses such names: an in-memory database behind Spark's JDBC catalog."""
    url = "jdbc:derby:memory:odd"
    connection = spark.sparkContext._jvm.java.sql.DriverManager.getConnection(f"{url};create=true")  # type: ignore[union-attr]
    statement = connection.createStatement()
    table, column = f'"{ODD_SCHEMA}"."{ODD_TABLE}"', f'"{ODD_COLUMN}"'
    for sql in (
        f'CREATE SCHEMA "{ODD_SCHEMA}"',
        f'CREATE TABLE {table} ("id" VARCHAR(9), {column} VARCHAR(99))',
        f"INSERT INTO {table} VALUES ('a', '{TEXT}')",  # a constant
    ):
        statement.execute(sql)
    for key, value in {
        "spark.sql.catalog.od-d": "org.apache.spark.sql.execution.datasources.v2.jdbc.JDBCTableCatalog",
        "spark.sql.catalog.od-d.url": url,
        "spark.sql.catalog.od-d.driver": "org.apache.derby.jdbc.EmbeddedDriver",
    }.items():
        spark.conf.set(key, value)
    yield "od-d"
    statement.execute(f"DROP TABLE {table}")
    statement.execute(f'DROP SCHEMA "{ODD_SCHEMA}" RESTRICT')
    connection.close()


def test_a_table_of_three_odd_levels_is_read(job: Job, odd_catalog: str) -> None:
    name = f"{odd_catalog}.{ODD_SCHEMA}.`{ODD_TABLE.replace('`', '``')}`"
    job.run("source.format=table", f"source.path={name}", f"source.text_column={ODD_COLUMN}")
    assert [entity for _, entity, _ in job.mentions()] == ["Angela Merkel", "Emmanuel Macron", "Paris"]


def test_columns_of_odd_names_are_read_and_carried(job: Job, spark: SparkSession) -> None:
    columns = ["source.id_column=i`d", "source.text_column=te.xt", "source.passthrough=[n`n, o.o]"]
    for number in (7, 8):  # the second time mentions that are there are replaced
        frame = spark.createDataFrame([("a", TEXT, number, number)], ["i`d", "te.xt", "n`n", "o.o"])
        frame.write.mode("overwrite").parquet(f"{job.directory}/texts.parquet")
        job.run(*columns)
        assert [(row["n`n"], row["o.o"]) for row in job.read("entities").collect()] == [(number, number)] * 3


def test_three_level_tables_of_sparks_own_catalog(job: Job, spark: SparkSession) -> None:
    spark.sql("CREATE SCHEMA IF NOT EXISTS names_raw")
    spark.createDataFrame([("a", TEXT)], "id string, text string").write.format("delta").saveAsTable("names_raw.articles")
    chosen = ["source.format=table", "source.path=spark_catalog.names_raw.articles", "output.schema=spark_catalog.names_out"]
    extract(spark, settings.load(None, [*chosen, *MODELS, "spark.partitions=2"], {}))
    assert spark.read.table("spark_catalog.names_out.entities").count() == 3
    # Found as the Delta table it is, by a name of three levels too: its version is known.
    assert spark.read.table("spark_catalog.names_out.runs").first()["source_version"] == "0"  # type: ignore[index]


@pytest.mark.parametrize("name", ["x`; DROP TABLE victim; --", "x; DROP TABLE victim", "x UNION SELECT 1"])
def test_sql_in_a_name_is_a_name(job: Job, spark: SparkSession, name: str) -> None:
    spark.sql("CREATE TABLE IF NOT EXISTS victim (x INT) USING delta")
    with pytest.raises(SourceError, match="there is no table"):
        job.run("source.format=table", f"source.path={name}")
    job.texts([("a", TEXT)])
    options = [item for item in job.options() if not item.startswith("output.path")]
    with pytest.raises(OutputError, match=r"output\.schema"):
        extract(spark, settings.load(None, [*options, f"output.schema={name}"], {}))
    assert spark.catalog.tableExists("victim")
