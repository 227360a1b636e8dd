"""What Spark cannot read of a source, and why, in one sentence with what to do: columns of Parquet, or all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from entitymill.settings import unsupported_formats
from entitymill.settings.sections import SourceSettings
from entitymill.spark import spark_connect, storage

_FEATURES = re.compile(r"unsupported by (?:this version of )?Delta Lake \W*([\d.]*\d)\W*: ([^\n]+?)\.?$", re.MULTILINE)
_WILDCARD = re.compile(r"[*?\[\]{}]")
_ERROR_CLASS = re.compile(r"^\[[A-Z_.\d]+\]\s*")
_ERROR_PLACE = re.compile(r";? line \d+ pos \d+;?.*$|\s*SQLSTATE: \w+", re.ASCII)
LONGEST_SUMMARY = 300
"""Characters of what Spark or Delta says that are passed on."""
_TYPE = re.compile(r"Parquet type[^:]*: (.+?)\.?(?:\s*SQLSTATE.*)?$", re.MULTILINE)


def explain_read_error(spark: SparkSession, settings: SourceSettings, error: Exception) -> str:
    """What is wrong with a source that Spark, Delta or the storage refused."""
    path = settings.path
    features = _FEATURES.search(str(error))
    if features:
        return (
            f"{path} is a Delta table with {features[2]}, which Delta {features[1]} does not know: read it with a newer "
            f"Delta, or have it drop what it can do without (ALTER TABLE … DROP FEATURE {features[2].split(',')[0]})."
        )
    if settings.format == "table":
        return f"there is no table {path}, or it may not be read.{_wildcard_advice(path)}"
    try:
        if not storage.exists(spark, path):
            return f"nothing is at {path}.{_wildcard_advice(path)}"
        if storage.exists(spark, f"{path}/_delta_log"):
            return f"{path} is a Delta table that Delta cannot read: {summarize_error(error)}."
        texts = _find_text_file(spark, path)
    except OSError as reason:
        return f"{path} cannot be reached: {reason}."
    return (
        f"{path} is {texts[0]}; {unsupported_formats.conversion_advice(*texts)}"
        if texts
        else _explain_file_error(settings, error)
    )


def _explain_file_error(settings: SourceSettings, error: Exception) -> str:
    """What is wrong with files that are there, and no Delta table."""
    path, kind = settings.path, unreadable_type(error)
    if "[UNABLE_TO_INFER_SCHEMA]" in str(error):
        return f"{path} holds no {settings.format} file."
    if settings.format == "delta":
        return f"{path} is not a Delta table; for plain Parquet files set source.format=parquet."
    if kind:
        return f"{path} has a column of type {kind} in some of its files, which Spark cannot read; write them without it."
    return f"{path} is not readable as {settings.format}: a file there is damaged or of another format."


def summarize_error(error: Exception) -> str:
    """What Spark or Delta says of an error, its first line, without codes and without a full stop; never a row's content.

    For errors of planning alone: those of a task may quote what it read.
    """
    text = storage.java_message(error) if isinstance(error, Py4JJavaError) else str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    said = _ERROR_PLACE.sub("", _ERROR_CLASS.sub("", line))[:LONGEST_SUMMARY].rstrip(" .;")
    return said[:1].lower() + said[1:]


def _wildcard_advice(path: str) -> str:
    if not _WILDCARD.search(path):
        return ""
    return (
        " Wildcards are not read: name the directory, all Parquet files under it are one table, and choose among them by "
        "source.where on a column; or make a view of several and name it (source.format=table)."
    )


def _find_text_file(spark: SparkSession, path: str) -> tuple[str, str] | None:
    """Kind and path of the first file there if it is CSV or JSON."""
    first = first_data_file(storage.list_files(spark, path))
    found = unsupported_formats.text_format(first) if first else None
    if first is None or found is None:
        return None
    return found, path if path.endswith(first.rpartition("/")[2]) else first.removeprefix("file:")


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


def find_readable_columns(spark: SparkSession, address: str) -> tuple[T.StructType, dict[str, str]] | None:
    """A file's columns that Spark can read, and name -> type, as Parquet calls it, of those that it cannot.

    None where Spark reads them all, or will say itself what is wrong. Runs on the driver.

    Args:
        address: of a Parquet file, on any file system that Spark's Hadoop client reads.
    """
    if spark_connect.is_remote(spark):
        return None
    try:
        columns, converter = _read_parquet_columns(spark, address)
        if _find_unreadable_type(spark, converter, columns) is None:
            return None
        faults = {str(column.getName()): _find_unreadable_type(spark, converter, [column]) for column in columns}
        left_out = {name: fault for name, fault in faults.items() if fault is not None}
        kept = [column for column in columns if str(column.getName()) not in left_out]
        schema = converter.convert(_parquet_schema(spark, kept)).json()
    except (Py4JError, PySparkException, OSError, TypeError):
        # It is no Parquet file, cannot be reached, or this platform's Spark has no such classes.
        return None
    return T.StructType.fromJson(json.loads(schema)), left_out


def _read_parquet_columns(spark: SparkSession, address: str) -> tuple[list[Any], Any]:
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


def _parquet_schema(spark: SparkSession, columns: Iterable[Any]) -> Any:
    java: Any = spark.sparkContext._jvm
    held = java.java.util.ArrayList()
    for column in columns:
        held.add(column)
    return java.org.apache.parquet.schema.MessageType("columns", held)


def _find_unreadable_type(spark: SparkSession, converter: Any, columns: Iterable[Any]) -> str | None:
    """The type at which Spark stops; none if it takes all of them."""
    try:
        converter.convert(_parquet_schema(spark, columns))
    except (Py4JError, PySparkException) as error:
        kind = unreadable_type(error)
        if kind is None:
            raise
        return kind
    return None
