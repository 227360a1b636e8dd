"""What Parquet files say of their columns, where Spark's own look at them fails: at any type it cannot read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from entitymill.platform import spark_connect, storage

_TYPE = re.compile(r"Parquet type[^:]*: (.+?)\.?(?:\s*SQLSTATE.*)?$", re.MULTILINE)


def unreadable_type(error: Exception) -> str | None:
    """The Parquet type that an error of Spark's is about; none if it is about anything else."""
    found = _TYPE.search(str(error))
    return found[1] if found else None


def first_data_file(listing: Iterable[tuple[str, int, int]]) -> str | None:
    """The file whose columns Spark takes for those of all, from `storage.files`; none if there is no file of data."""
    for address, _, _ in listing:
        if address.rpartition("/")[2][:1] not in ("_", "."):
            return address
    return None


def legible(spark: SparkSession, address: str) -> tuple[T.StructType, dict[str, str]] | None:
    """A file's columns that Spark can read, and name -> type, as Parquet calls it, of those that it cannot.

    None where Spark reads them all, or will say itself what is wrong. Runs on the driver.

    Args:
        address: of a Parquet file, on any file system that Spark's Hadoop client reads.
    """
    if spark_connect.remote(spark):
        return None
    try:
        columns, converter = _columns(spark, address)
        if _fault(spark, converter, columns) is None:
            return None
        faults = {str(column.getName()): _fault(spark, converter, [column]) for column in columns}
        left_out = {name: fault for name, fault in faults.items() if fault is not None}
        kept = [column for column in columns if str(column.getName()) not in left_out]
        schema = converter.convert(_message(spark, kept)).json()
    except (Py4JError, PySparkException, OSError, TypeError):
        # It is no Parquet file, cannot be reached, or this platform's Spark has no such classes.
        return None
    return T.StructType.fromJson(json.loads(schema)), left_out


def _columns(spark: SparkSession, address: str) -> tuple[list[Any], Any]:
    """A file's columns, and what makes Spark's of them; Java's both."""
    java: Any = spark.sparkContext._jvm
    session: Any = spark._jsparkSession
    _, path = storage.hadoop_path(spark, address)
    file = java.org.apache.parquet.hadoop.util.HadoopInputFile.fromPath(path, session.sessionState().newHadoopConf())
    reader = java.org.apache.parquet.hadoop.ParquetFileReader.open(file)
    try:
        columns = list(reader.getFooter().getFileMetaData().getSchema().getFields())
    finally:
        reader.close()
    package = java.org.apache.spark.sql.execution.datasources.parquet
    return columns, package.ParquetToSparkSchemaConverter(session.sessionState().conf())


def _message(spark: SparkSession, columns: Iterable[Any]) -> Any:
    java: Any = spark.sparkContext._jvm
    held = java.java.util.ArrayList()
    for column in columns:
        held.add(column)
    return java.org.apache.parquet.schema.MessageType("columns", held)


def _fault(spark: SparkSession, converter: Any, columns: Iterable[Any]) -> str | None:
    """The type at which Spark stops; none if it takes all of them."""
    try:
        converter.convert(_message(spark, columns))
    except (Py4JError, PySparkException) as error:
        kind = unreadable_type(error)
        if kind is None:
            raise
        return kind
    return None
