"""Open the source, and read its rows, its history and its change feed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.errors import SettingsError, SourceError
from entitymill.settings.sections import SourceSettings
from entitymill.source import row_checks, source_columns, unreadable_source
from entitymill.spark import overlapping_paths, storage
from entitymill.spark.private_session import reads_cached_rows
from entitymill.spark.sql_text import escape_pattern, quote_name, quote_part


@dataclass(frozen=True)
class Source:
    """The source of a run, at one version.

    rows: DataFrame of the rows that meet `source.where`, with the columns doc_id, text and, if there are passthrough
        columns, a struct `passthrough`.
    passthrough: schema fields of the passthrough columns (columns that are copied from the source to `entities`).
    version: version number of a Delta table, a digest of the list of Parquet files, or `unversioned` for other tables.
    identity: id that Delta gave the table when it was created; empty if the source is not a Delta table.
    location: URI of the table's directory; empty for a view.
    nondeterministic: whether `source.where` may later select other rows, even if no row has changed.
    size: total size of the data files in bytes; None if unknown.
    detail: result of DESCRIBE DETAIL for a Delta table; None for other tables.
    settings: settings with which the source was opened.
    committed_ms: commit time of the version in milliseconds since 1970 UTC; None for tables that are not Delta.
    """

    rows: DataFrame
    passthrough: list[T.StructField]
    version: str
    identity: str
    location: str
    nondeterministic: bool
    size: int | None
    detail: Row | None
    settings: SourceSettings
    committed_ms: int | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether `rows` always returns the same rows: the source is a Delta table, and `source.where` is deterministic."""
        return bool(self.identity) and not self.nondeterministic

    def validate_rows(self) -> DataFrame:
        """Return all rows with the new columns `copies` (number of rows with the same id), `chars` and REJECT_CODE.

        `chars` is the number of code points of the text. REJECT_CODE is null for documents. This runs a Spark job, which
        counts the copies.
        """
        return row_checks.validate_rows(row_checks.count_copies(self.rows), self.settings.max_chars)

    def check_output(self, output: str) -> None:
        """Raise SettingsError if the path `output` is inside the source, contains the source, or is inside another table.

        Raise OSError if the path's scheme is unknown, or the storage client for it is not configured.
        """
        spark = self.rows.sparkSession
        address = storage.qualify(spark, output)
        overlapping_paths.check_output_path(
            self.location, address, partial(storage.exists, spark), partial(storage.list_names, spark)
        )


@dataclass(frozen=True)
class SourceTable:
    """All rows and columns of a source, before the columns are checked.

    rows: DataFrame of all rows, with all columns that Spark can read.
    unreadable: dict from the name of each column that Spark cannot read to the column's Parquet type.
    version: version number of a Delta table, a digest of the list of Parquet files, or `unversioned` for other tables.
    size: total size of the data files in bytes; None if unknown.
    detail: result of DESCRIBE DETAIL for a Delta table; None for other tables.
    committed_ms: commit time of the Delta version in milliseconds since 1970 UTC; None for other tables.
    """

    rows: DataFrame
    unreadable: dict[str, str]
    version: str
    size: int | None = None
    detail: Row | None = None
    committed_ms: int | None = None


def open_source(spark: SparkSession, settings: SourceSettings) -> Source:
    """Open the source, check its columns, and return it, without reading rows.

    Raises:
        SettingsError: `source.format` is parquet, but the source is a Delta table or inside one.
        SourceError: the source is missing, unreadable or cached (see `open_table`). Or a column that the settings name is
            missing or of an unsuitable type, or `source.where` is invalid.
        StorageError: the storage of the source does not answer, or rejects the credentials.
    """
    table = open_table(spark, settings)
    source_columns.check_unreadable_columns(table.rows, settings, table.unreadable)
    passthrough = source_columns.check_columns(table.rows, settings)
    detail = table.detail
    return Source(
        rows=select_rows(table.rows, settings),
        passthrough=passthrough,
        version=table.version,
        identity="" if detail is None else str(detail["id"]),
        location=_find_location(spark, settings) if detail is None else str(detail["location"]),
        nondeterministic=source_columns.is_nondeterministic(spark, settings.where),
        size=table.size,
        detail=detail,
        settings=settings,
        committed_ms=table.committed_ms,
    )


def select_rows(table: DataFrame, settings: SourceSettings, *extra_columns: str) -> DataFrame:
    """Return doc_id, text, `passthrough` if configured, and `extra_columns` of the rows that meet `source.where`.

    doc_id is the id column, cast to string. `table` has all columns of the source. Raise SourceError if `source.where` is
    not a valid condition for `table`.
    """
    selected = source_columns.apply_condition(table, settings)
    columns = [F.col(quote_part(column)) for column in settings.passthrough]
    struct = [F.struct(*columns).alias("passthrough")] if columns else []
    doc_id = F.col(quote_part(settings.id_column)).cast("string").alias("doc_id")
    return selected.select(doc_id, F.col(quote_part(settings.text_column)).alias("text"), *struct, *extra_columns)


def _sql_name(spark: SparkSession, settings: SourceSettings) -> str:
    """Return the source's identifier for SQL statements: delta.`URI`, or the quoted name in a catalog."""
    if settings.format == "delta":
        return "delta." + quote_part(storage.qualify(spark, settings.path))
    return quote_name(spark, settings.path)


def describe_delta(spark: SparkSession, settings: SourceSettings) -> Row | None:
    """Return the row of DESCRIBE DETAIL (id, sizeInBytes, …); None if the source is unreadable or not a Delta table."""
    try:
        row = spark.sql(f"DESCRIBE DETAIL {_sql_name(spark, settings)}").collect()[0]
    except PySparkException:
        return None
    return row if row["format"] == "delta" else None


def _find_location(spark: SparkSession, settings: SourceSettings) -> str:
    """Return the URI of a source that is not a Delta table; empty for a view."""
    if settings.format != "table":
        return storage.qualify(spark, settings.path)
    described = spark.sql(f"DESCRIBE TABLE EXTENDED {quote_name(spark, settings.path)}").where("col_name = 'Location'")
    return next((str(row["data_type"]) for row in described.collect()), "")


def read_history(spark: SparkSession, settings: SourceSettings, limit: int) -> list[Row]:
    """Return the rows of DESCRIBE HISTORY for the source's latest `limit` commits, newest first."""
    return spark.sql(f"DESCRIBE HISTORY {_sql_name(spark, settings)} LIMIT {limit}").collect()


def commit_time_ms(commit: Row) -> int:
    """Return the time of a commit from `read_history`, in milliseconds since 1970 UTC."""
    # PySpark returns times in the time zone of this process, not the session. A conversion in SQL would be a Spark job.
    return round(commit["timestamp"].timestamp() * 1000)


def read_version(spark: SparkSession, settings: SourceSettings, version: str) -> DataFrame:
    """Return all rows and columns of a Delta source at `version`, the number of a Delta version; ignore `source.where`."""
    return _load(spark.read.format("delta").option("versionAsOf", version), spark, settings)


def _load(reader: Any, spark: SparkSession, settings: SourceSettings) -> DataFrame:
    """Load the source by its path or catalog name with `reader`, a DataFrameReader, and return the DataFrame."""
    if settings.format == "delta":
        return reader.load(storage.qualify(spark, settings.path))
    return reader.table(quote_name(spark, settings.path))


def read_change_feed(spark: SparkSession, settings: SourceSettings, first: int, last: int) -> DataFrame:
    """Return the change events (all rows and columns of the change feed) of a Delta source's versions `first` to `last`."""
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", first).option("endingVersion", last)
    return _load(reader, spark, settings)


def read_texts(spark: SparkSession, settings: SourceSettings, doc_ids: list[str]) -> dict[str, str]:
    """Return a dict from doc_id to text for a few documents, to show the texts to a user.

    Only rows that meet `source.where` are read. An id that occurs in none of these rows is not in the dict; an id in several
    rows gets the text of any of them. Raise the errors of `open_table`, and SourceError if `source.where` is invalid.
    """
    rows = (
        select_rows(open_table(spark, settings).rows, settings).where(F.col("doc_id").isin(doc_ids)).select("doc_id", "text")
    )
    return {row.doc_id: row.text for row in rows.collect()}


def read_mentions(spark: SparkSession, address: str, setting: str, columns: Sequence[str]) -> DataFrame:
    """Return a table of mentions: an `entities` table, or a table of manual (gold) annotations.

    Args:
        address: path of a Delta table, Parquet files or a JSON Lines file (.jsonl); or table:NAME for a catalog table.
        setting: command-line option that names the table, for messages.
        columns: names of columns that the table must have.

    Raises:
        SourceError: the table cannot be read, or lacks a column.
    """
    try:
        if address.startswith("table:"):
            found = spark.read.table(quote_name(spark, address.removeprefix("table:")))
        elif not storage.exists(spark, address):
            raise SourceError(f"{setting}: there is nothing at {address}.")
        elif storage.exists(spark, f"{address}/_delta_log"):
            found = spark.read.format("delta").load(address)
        else:
            pattern = escape_pattern(address)
            found = spark.read.json(pattern) if address.endswith(".jsonl") else spark.read.parquet(pattern)
    except (PySparkException, Py4JJavaError, OSError, ValueError) as error:
        raise SourceError(
            f"{setting}: {address} is not a readable table. Check the path or name: a table is Delta, Parquet or a .jsonl "
            "file."
        ) from error
    missing = [column for column in columns if column not in found.columns]
    if missing:
        raise SourceError(f"{setting}: {address} has no column {missing[0]}; it has {', '.join(found.columns)}.")
    return found


def open_table(spark: SparkSession, settings: SourceSettings) -> SourceTable:
    """Return the source with all its columns, without checking the columns and without reading rows.

    For a Delta table, the DataFrame always reads the version that is current now, even if others write the table later.

    Raises:
        SettingsError: `source.format` is parquet, but the source is a Delta table or inside one.
        SourceError: the source is missing or unreadable. Or the source is a view, or a catalog table that is not Delta, and
            Spark would read cached rows, which may be outdated.
        StorageError: the storage of the source does not answer, or rejects the credentials.
    """
    try:
        if settings.format == "parquet":
            return _read_parquet(spark, settings)
        detail = describe_delta(spark, settings)
        if detail is None and settings.format == "table":
            rows = spark.read.table(quote_name(spark, settings.path))
            _check_not_cached(rows, settings)
            return SourceTable(rows, {}, "unversioned")
        [commit] = read_history(spark, settings, 1)
        version = str(commit["version"])
        size = None if detail is None else detail["sizeInBytes"]
        return SourceTable(read_version(spark, settings, version), {}, version, size, detail, commit_time_ms(commit))
    except (PySparkException, Py4JJavaError, OSError) as error:
        fault = storage.find_storage_fault(str(error)) if settings.format == "table" else None
        if fault is not None:
            raise fault from error
        raise SourceError(f"source.path: {unreadable_source.explain_read_error(spark, settings, error)}") from error


def _check_not_cached(rows: DataFrame, settings: SourceSettings) -> None:
    """Raise SourceError if a view or table is cached: Spark would read the cached rows, which may be outdated."""
    if reads_cached_rows(rows):
        raise SourceError(
            f"source.path: rows of {settings.path} are cached in this Spark application, and may be older than the source: "
            "call `unpersist()` or `spark.catalog.clearCache()` first."
        )


def _read_parquet(spark: SparkSession, settings: SourceSettings) -> SourceTable:
    """Return a source of Parquet files with all its columns, except columns of types that Spark cannot read.

    Only the types in the first file are checked. The version is a digest of the names, sizes and modification times of all
    files. Raise SettingsError if the path is a Delta table or inside a Delta table.
    """
    # List the files before Spark does. If a file is added in between, the version below does not include it, so the next
    # run gets another version.
    listing = list(storage.list_files(spark, settings.path))
    enclosing = overlapping_paths.find_enclosing_table(storage.qualify(spark, settings.path), partial(storage.exists, spark))
    if enclosing is not None:
        raise SettingsError(
            f"source.format: parquet would read deleted rows of {settings.path}, since {enclosing} is a Delta table. "
            "Set `source.format: delta`."
        )
    first = unreadable_source.find_first_data_file(listing)
    readable = unreadable_source.exclude_unreadable_columns(spark, first) if first else None
    schema, unreadable = readable or (None, {})
    reader = spark.read if schema is None else spark.read.schema(schema)
    # Because this option has a unique value, Spark does not use older rows of these files that another query has cached.
    rows = reader.option("entitymill", uuid.uuid4().hex).parquet(escape_pattern(settings.path))
    version = hashlib.sha256("\n".join(map(str, listing)).encode()).hexdigest()[:16]
    return SourceTable(rows, unreadable, version, sum(size for _, size, _ in listing))
