"""Why a source cannot be read, or a condition on it not be asked: in one sentence, with what to do."""

from __future__ import annotations

import re

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from entitymill.platform import storage
from entitymill.settings import unsupported_formats
from entitymill.settings.sections import SourceSettings
from entitymill.source import parquet_footers

_FEATURES = re.compile(r"unsupported by (?:this version of )?Delta Lake \W*([\d.]*\d)\W*: ([^\n]+?)\.?$", re.MULTILINE)
_WILDCARD = re.compile(r"[*?\[\]{}]")
_CLASS = re.compile(r"^\[[A-Z_.\d]+\]\s*")
_PLACE = re.compile(r";? line \d+ pos \d+;?.*$|\s*SQLSTATE: \w+", re.ASCII)
LONGEST_WORDS = 300
"""Characters of what Spark or Delta says that are passed on."""


def of_reading(spark: SparkSession, settings: SourceSettings, error: Exception) -> str:
    """What is wrong with a source that Spark, Delta or the storage refused."""
    path = settings.path
    features = _FEATURES.search(str(error))
    if features:
        return (
            f"{path} is a Delta table with {features[2]}, which Delta {features[1]} does not know: read it with a newer "
            f"Delta, or have it drop what it can do without (ALTER TABLE … DROP FEATURE {features[2].split(',')[0]})."
        )
    if settings.format == "table":
        return f"there is no table {path}, or it may not be read.{_wildcards(path)}"
    try:
        if not storage.exists(spark, path):
            return f"nothing is at {path}.{_wildcards(path)}"
        if storage.exists(spark, f"{path}/_delta_log"):
            return f"{path} is a Delta table that Delta cannot read: {words(error)}."
        texts = _text_files(spark, path)
    except OSError as reason:
        return f"{path} cannot be reached: {reason}."
    return f"{path} is {texts[0]}; {unsupported_formats.advice(*texts)}" if texts else _of_files(settings, error)


def _of_files(settings: SourceSettings, error: Exception) -> str:
    """What is wrong with files that are there, and no Delta table."""
    path, kind = settings.path, parquet_footers.unreadable_type(error)
    if "[UNABLE_TO_INFER_SCHEMA]" in str(error):
        return f"{path} holds no {settings.format} file."
    if settings.format == "delta":
        return f"{path} is not a Delta table; for plain Parquet files set source.format=parquet."
    if kind:
        return f"{path} has a column of type {kind} in some of its files, which Spark cannot read; write them without it."
    return f"{path} is not readable as {settings.format}: a file there is damaged or of another format."


def words(error: Exception) -> str:
    """What Spark or Delta says of an error, its first line, without codes and without a full stop; never a row's content.

    For errors of planning alone: those of a task may quote what it read.
    """
    text = storage.java_message(error) if isinstance(error, Py4JJavaError) else str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    said = _PLACE.sub("", _CLASS.sub("", line))[:LONGEST_WORDS].rstrip(" .;")
    return said[:1].lower() + said[1:]


def _wildcards(path: str) -> str:
    if not _WILDCARD.search(path):
        return ""
    return (
        " Wildcards are not read: name the directory, all Parquet files under it are one table, and choose among them by "
        "source.where on a column; or make a view of several and name it (source.format=table)."
    )


def _text_files(spark: SparkSession, path: str) -> tuple[str, str] | None:
    """Kind and path of the first file there if it is CSV or JSON."""
    first = parquet_footers.first_data_file(storage.files(spark, path))
    found = unsupported_formats.kind(first) if first else None
    if first is None or found is None:
        return None
    return found, path if path.endswith(first.rpartition("/")[2]) else first.removeprefix("file:")
