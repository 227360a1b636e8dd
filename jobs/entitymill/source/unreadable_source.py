"""Explain in one sentence why Spark cannot read a source, and what to do; find Parquet columns that Spark cannot read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from entitymill.settings import unsupported_source_formats
from entitymill.settings.sections import SourceSettings
from entitymill.spark import session, spark_connect, storage

_FEATURES = re.compile(r"unsupported by (?:this version of )?Delta Lake \W*([\d.]*\d)\W*: ([^\n]+?)\.?$", re.MULTILINE)
_WILDCARD = re.compile(r"[*?\[\]{}]")
_ERROR_CLASS = re.compile(r"^\[[A-Z_.\d]+\]\s*")
_ERROR_POSITION = re.compile(r";? line \d+ pos \d+;?.*$|\s*SQLSTATE: \w+", re.ASCII)
MAX_SUMMARY_CHARS = 300
"""Maximum number of characters quoted from a message of Spark or Delta."""
_UNREADABLE_TYPE = re.compile(r"Parquet type[^:]*: (.+?)\.?(?:\s*SQLSTATE.*)?$", re.MULTILINE)


def explain_read_error(spark: SparkSession, settings: SourceSettings, error: Exception) -> str:
    """Return a sentence that says why Spark, Delta or the storage cannot read a source, and what to do about it.

    To find out, this looks for the source in the storage. Raise StorageError if the storage does not answer, or rejects the
    credentials.
    """
    path = settings.path
    features = _FEATURES.search(str(error))
    if features:
        return (
            f"{path} is a Delta table with the table features {features[2]}, which Delta {features[1]} does not support: "
            f"use a newer Delta, or drop these features (ALTER TABLE … DROP FEATURE {features[2].split(',')[0]})."
        )
    if settings.format == "table":
        return f"there is no table {path}, or you lack permission to read it.{_advise_on_wildcards(path)}"
    try:
        if not storage.exists(spark, path):
            return f"there is nothing at {path}.{_advise_on_wildcards(path)}"
        if storage.exists(spark, f"{path}/_delta_log"):
            return f"{path} is a Delta table that Delta cannot read: {summarize_error(error)}."
        text_file = _find_text_file(spark, path)
    except OSError as reason:
        return f"{path} cannot be reached: {reason}."
    if text_file is None:
        explanation = _explain_file_error(settings, error)
    else:
        explanation = f"{path} is {text_file[0]}; {unsupported_source_formats.describe_conversion(*text_file)}"
    return explanation


def _explain_file_error(settings: SourceSettings, error: Exception) -> str:
    """Return a sentence that says why a source that is not a Delta table cannot be read, and what to do about it."""
    path, kind = settings.path, parse_unreadable_type(error)
    if "[UNABLE_TO_INFER_SCHEMA]" in str(error):
        return f"{path} contains no {settings.format} file."
    if settings.format == "delta":
        return f"{path} is not a Delta table. For plain Parquet files, set `source.format: parquet`."
    if kind:
        return (
            f"some files of {path} have a column of type {kind}, which Spark cannot read. "
            "Rewrite these files without the column."
        )
    return f"{path} cannot be read as {settings.format}: one of its files is damaged or has another format."


def summarize_error(error: Exception) -> str:
    """Return the first line of an error message of Spark or Delta, without its error codes and final period.

    The line is cut to MAX_SUMMARY_CHARS characters, and its first letter is made lower case, to fit into a sentence. Use
    this only for errors that occur while Spark plans a query: errors from tasks may quote the content of rows.
    """
    text = storage.java_message(error) if isinstance(error, Py4JJavaError) else str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    message = _ERROR_POSITION.sub("", _ERROR_CLASS.sub("", line))[:MAX_SUMMARY_CHARS].rstrip(" .;")
    return message[:1].lower() + message[1:]


def _advise_on_wildcards(path: str) -> str:
    """Return a sentence, with a leading space, on what to use instead of wildcards; empty if the path has no wildcards."""
    if not _WILDCARD.search(path):
        return ""
    return (
        " Wildcards are not supported: name the directory, whose Parquet files are read as one table, and select rows with "
        "source.where; or create a view over several paths, and read it with `source.format: table`."
    )


def _find_text_file(spark: SparkSession, path: str) -> tuple[str, str] | None:
    """Return the format (CSV or JSON) and the path of the first data file in a source.

    The format is judged by the file's name. Return None if there is no data file, or its name suggests neither format.
    """
    first = find_first_data_file(storage.list_files(spark, path))
    found = unsupported_source_formats.detect_text_format(first) if first else None
    if first is None or found is None:
        return None
    return found, path if path.endswith(first.rpartition("/")[2]) else first.removeprefix("file:")


def parse_unreadable_type(error: Exception) -> str | None:
    """Return the Parquet type that Spark cannot read, as an error of Spark names it; None if the error has another cause."""
    found = _UNREADABLE_TYPE.search(str(error))
    return found[1] if found else None


def find_first_data_file(listing: Iterable[tuple[str, int, int]]) -> str | None:
    """Return the path or URI of the first data file in a result of `storage.list_files`; None if there is no data file.

    Spark infers all columns from this file. Files whose names begin with `_` or `.` are not data files.
    """
    for address, _, _ in listing:
        if address.rpartition("/")[2][:1] not in ("_", "."):
            return address
    return None


def exclude_unreadable_columns(spark: SparkSession, address: str) -> tuple[T.StructType, dict[str, str]] | None:
    """Find the columns of a Parquet file that Spark cannot read; this runs on the driver, without a Spark job.

    Returns:
        None if Spark can read all columns, or if the check is not possible. Otherwise, the schema of the readable columns,
        and a dict from the name of each unreadable column to its Parquet type.
    """
    if spark_connect.is_remote(spark):
        return None
    try:
        columns, converter = _read_parquet_columns(spark, address)
        if _find_unreadable_type(spark, converter, columns) is None:
            return None
        faults = {str(column.getName()): _find_unreadable_type(spark, converter, [column]) for column in columns}
        left_out = {name: fault for name, fault in faults.items() if fault is not None}
        readable = [column for column in columns if str(column.getName()) not in left_out]
        schema = converter.convert(_build_parquet_schema(spark, readable)).json()
    except (Py4JError, PySparkException, OSError, TypeError):
        # The file is not Parquet or cannot be accessed (Spark will report this), or this platform's Spark lacks the classes.
        return None
    return T.StructType.fromJson(json.loads(schema)), left_out


def _read_parquet_columns(spark: SparkSession, address: str) -> tuple[list[Any], Any]:
    """Return the columns of a Parquet file, and Spark's converter for Parquet schemas, as py4j proxies."""
    java_session: Any = spark._jsparkSession
    _, path = storage.get_file_system_and_path(spark, address)
    input_file = session.get_class(spark, "org.apache.parquet.hadoop.util.HadoopInputFile")
    file = input_file.fromPath(path, java_session.sessionState().newHadoopConf())
    reader = session.get_class(spark, "org.apache.parquet.hadoop.ParquetFileReader").open(file)
    try:
        columns = list(reader.getFooter().getFileMetaData().getSchema().getFields())
    finally:
        reader.close()
    name = "org.apache.spark.sql.execution.datasources.parquet.ParquetToSparkSchemaConverter"
    return columns, session.get_class(spark, name)(java_session.sessionState().conf())


def _build_parquet_schema(spark: SparkSession, columns: Iterable[Any]) -> Any:
    """Return a Parquet schema with these columns (results of `_read_parquet_columns`), as a py4j proxy."""
    fields = session.get_class(spark, "java.util.ArrayList")()
    for column in columns:
        fields.add(column)
    return session.get_class(spark, "org.apache.parquet.schema.MessageType")("columns", fields)


def _find_unreadable_type(spark: SparkSession, converter: Any, columns: Iterable[Any]) -> str | None:
    """Return the Parquet type of the first column that Spark's schema `converter` cannot convert; None if it converts all.

    If the converter fails, but its error names no type, raise this error.
    """
    try:
        converter.convert(_build_parquet_schema(spark, columns))
    except (Py4JError, PySparkException) as error:
        kind = parse_unreadable_type(error)
        if kind is None:
            raise
        return kind
    return None
