"""Test catalog names in settings: names of three levels, names with odd characters, and names that look like SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from entitymill import settings
from entitymill.errors import OutputError, SourceError
from entitymill.run.extraction import extract
from entitymill.source.reader import open_source

from .conftest import Job

TEXT = "Angela Merkel met Emmanuel Macron in Paris."
ODD_SCHEMA, ODD_TABLE, ODD_COLUMN = "raw; DROP TABLE victim", "we`ird -- 'x'.t", "te`xt; --"


@pytest.fixture
def odd_catalog(spark: SparkSession) -> Iterator[str]:
    """Yield the name of a JDBC catalog whose schema and table have names that Spark's own catalog would refuse."""
    url = "jdbc:derby:memory:odd"
    connection = spark.sparkContext._jvm.java.sql.DriverManager.getConnection(f"{url};create=true")  # type: ignore[union-attr]
    statement = connection.createStatement()
    table, column = f'"{ODD_SCHEMA}"."{ODD_TABLE}"', f'"{ODD_COLUMN}"'
    for sql in (
        f'CREATE SCHEMA "{ODD_SCHEMA}"',
        f'CREATE TABLE {table} ("id" VARCHAR(9), {column} VARCHAR(99))',
        f"INSERT INTO {table} VALUES ('a', '{TEXT}')",
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


def test_a_table_of_three_odd_levels_is_read(spark: SparkSession, odd_catalog: str) -> None:
    name = f"{odd_catalog}.{ODD_SCHEMA}.`{ODD_TABLE.replace('`', '``')}`"
    options = ["output.path=unused", "source.format=table", f"source.path={name}", f"source.text_column={ODD_COLUMN}"]
    assert open_source(spark, settings.load(None, options, {}).source).rows.collect() == [("a", TEXT)]


def test_sql_in_a_name_is_a_name(job: Job, spark: SparkSession) -> None:
    name = "x`; DROP TABLE victim; --"
    with pytest.raises(SourceError, match=re.escape(f"there is no table {name}")) as source:
        job.run("source.format=table", f"source.path={name}")
    job.texts([("a", TEXT)])
    options = [item for item in job.options() if not item.startswith("output.path")]
    with pytest.raises(OutputError, match=re.escape(f"output.schema: {name} does not exist")) as output:
        extract(spark, settings.load(None, [*options, f"output.schema={name}"], {}))
    for error in (source, output):  # an unquoted name would be a syntax error
        assert "PARSE_SYNTAX_ERROR" not in str(error.value.__cause__)
