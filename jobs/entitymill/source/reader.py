"""Text table -> documents, and rejects: the only module that reads the source."""

from __future__ import annotations

import hashlib
import re
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
from entitymill.source import carried_columns, row_checks, unreadable_source
from entitymill.spark import overlapping_paths, storage
from entitymill.spark.sql_text import quote_name, quote_part

_NONDETERMINISTIC = re.compile(
    r"\b(current_\w+|curdate|getdate|now|today|yesterday|tomorrow|localtimestamp|unix_timestamp|rand\w*|uuid|select|_metadata)\b",
    re.IGNORECASE,
)
"""Functions, special dates such as DATE 'yesterday', subqueries, and the files that rows lie in at the moment."""


@dataclass(frozen=True)
class Source:
    """The source of one run, one version of it.

    rows: doc_id, text, and a struct `passthrough` where columns are carried; those that pass `source.where`.
    passthrough: fields carried to the entities.
    version: of the table read.
    identity: tells the table from another one made later at the same place; of Delta tables.
    location: address of its files; empty for a view.
    moving: whether `source.where` may hold for other rows at another time, though these did not change.
    size: bytes of its files; None if unknown.
    detail: what DESCRIBE DETAIL says of a Delta table; None for other tables.
    committed_ms: when the version was committed, in milliseconds since 1970 UTC; None for tables that are not Delta's.
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
        """Whether every look at `rows` finds the same: of a Delta table's version, not of files or a view."""
        return bool(self.identity)

    def validated_rows(self) -> DataFrame:
        """All rows with their `copies`, `chars` and row_checks.CODE; runs a job that looks for duplicate ids."""
        return row_checks.validate_rows(row_checks.count_copies(self.rows), self.settings.max_chars)

    def check_output(self, output: str) -> None:
        """Refuse a place for a table that lies in this source, around it, or in another table.

        Args:
            output: a path.

        Raises:
            SettingsError: it does.
            OSError: its scheme is unknown, or that scheme's client is not set up.
        """
        spark = self.rows.sparkSession
        address = storage.qualify(spark, output)
        overlapping_paths.check_output_path(
            self.location, address, partial(storage.exists, spark), partial(storage.list_names, spark)
        )


@dataclass(frozen=True)
class SourceTable:
    """A source as Spark reads it, before its columns are checked.

    rows: all rows and columns that Spark can read.
    unreadable: name -> Parquet type of the columns that Spark cannot read.
    version: Delta's version, a digest of plain files, or `unversioned`.
    size: bytes of its files; None if unknown.
    detail: what DESCRIBE DETAIL says of a Delta table; None for other tables.
    committed_ms: when Delta's version was committed, in milliseconds since 1970 UTC; None for other tables.
    """

    rows: DataFrame
    unreadable: dict[str, str]
    version: str
    size: int | None = None
    detail: Row | None = None
    committed_ms: int | None = None


def open_source(spark: SparkSession, settings: SourceSettings) -> Source:
    """Find and check the source; reads no rows.

    Raises:
        SettingsError: what is to be read as plain Parquet is a Delta table.
        SourceError: it is missing, unreadable, or lacks what the settings name.
    """
    table = read(spark, settings)
    carried_columns.check_unreadable_columns(table.rows, settings, table.unreadable)
    passthrough = carried_columns.check_columns(table.rows, settings)
    detail = table.detail
    return Source(
        rows=select_rows(table.rows, settings),
        passthrough=passthrough,
        version=table.version,
        identity="" if detail is None else str(detail["id"]),
        location=_find_location(spark, settings) if detail is None else str(detail["location"]),
        nondeterministic=is_nondeterministic(settings.where),
        size=table.size,
        detail=detail,
        settings=settings,
        committed_ms=table.committed_ms,
    )


def select_rows(table: DataFrame, settings: SourceSettings, *others: str) -> DataFrame:
    """doc_id, text, perhaps `passthrough`, and other columns, of the rows that pass `source.where`.

    Raises:
        SourceError: the condition is none on this table.
    """
    kept = _apply_condition(table, settings)
    columns = [F.col(quote_part(column)) for column in settings.passthrough]
    struct = [F.struct(*columns).alias("passthrough")] if columns else []
    doc_id = F.col(quote_part(settings.id_column)).cast("string").alias("doc_id")
    return kept.select(doc_id, F.col(quote_part(settings.text_column)).alias("text"), *struct, *others)


def _sql_name(spark: SparkSession, settings: SourceSettings) -> str:
    """The source as SQL names it, quoted."""
    if settings.format == "delta":
        return "delta." + quote_part(storage.qualify(spark, settings.path))
    return quote_name(spark, settings.path)


def describe_delta(spark: SparkSession, settings: SourceSettings) -> Row | None:
    """What DESCRIBE DETAIL says of the source: id, properties, sizeInBytes; none where it is no Delta table."""
    try:
        row = spark.sql(f"DESCRIBE DETAIL {_sql_name(spark, settings)}").collect()[0]
    except PySparkException:
        return None
    return row if row["format"] == "delta" else None


def _find_location(spark: SparkSession, settings: SourceSettings) -> str:
    """Where the files of a source that is not Delta's are."""
    if settings.format != "table":
        return storage.qualify(spark, settings.path)
    told = spark.sql(f"DESCRIBE TABLE EXTENDED {quote_name(spark, settings.path)}").where("col_name = 'Location'")
    return next((str(row["data_type"]) for row in told.collect()), "")


def read_history(spark: SparkSession, settings: SourceSettings, limit: int) -> list[Row]:
    """Return Delta's record of the source's latest commits, newest first: version, timestamp, operation and more."""
    return spark.sql(f"DESCRIBE HISTORY {_sql_name(spark, settings)} LIMIT {limit}").collect()


def committed_ms(commit: Row) -> int:
    """Return when a commit of `history` was made, in milliseconds since 1970 UTC.

    In Python: in SQL it costs a Spark job. PySpark gives timestamps in the zone of this process, whatever the session's is.
    """
    return round(commit["timestamp"].timestamp() * 1000)


def read_version(spark: SparkSession, settings: SourceSettings, version: str) -> DataFrame:
    """Read a Delta table as it was at a version."""
    return _load(spark.read.format("delta").option("versionAsOf", version), spark, settings)


def _load(reader: Any, spark: SparkSession, settings: SourceSettings) -> DataFrame:
    """Read the source by its path or name."""
    if settings.format == "delta":
        return reader.load(storage.qualify(spark, settings.path))
    return reader.table(quote_name(spark, settings.path))


def read_change_feed(spark: SparkSession, settings: SourceSettings, first: int, last: int) -> DataFrame:
    """The change feed of some versions, both included."""
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", first).option("endingVersion", last)
    return _load(reader, spark, settings)


def is_nondeterministic(where: str | None) -> bool:
    """Whether a condition asks for the time, for chance, for another table, or for files; one that only might counts."""
    return where is not None and _NONDETERMINISTIC.search(where) is not None


def _apply_condition(table: DataFrame, settings: SourceSettings) -> DataFrame:
    if settings.where is None:
        return table
    try:
        return table.where(settings.where)
    except PySparkException as error:
        reason = unreadable_source.summarize_error(error)
        raise SourceError(f"source.where: {settings.where!r} is not a condition on {settings.path}: {reason}.") from error


def read_texts(spark: SparkSession, settings: SourceSettings, doc_ids: list[str]) -> dict[str, str]:
    """The texts of a few documents, for showing."""
    rows = select_rows(read(spark, settings).rows, settings).where(F.col("doc_id").isin(doc_ids)).select("doc_id", "text")
    return {row.doc_id: row.text for row in rows.collect()}


def read_mentions(spark: SparkSession, address: str, setting: str, columns: Sequence[str]) -> DataFrame:
    """A table of mentions, this program's own or gold.

    Args:
        address: a Delta table, Parquet, JSON Lines (.jsonl), or table:NAME.
        setting: option that named it, for messages.
        columns: it must have.

    Raises:
        SourceError: it cannot be read, or lacks a column.
    """
    try:
        if address.startswith("table:"):
            found = spark.read.table(quote_name(spark, address.removeprefix("table:")))
        elif not storage.exists(spark, address):
            raise SourceError(f"{setting}: nothing is at {address}.")
        elif storage.exists(spark, f"{address}/_delta_log"):
            found = spark.read.format("delta").load(address)
        else:
            found = spark.read.json(address) if address.endswith(".jsonl") else spark.read.parquet(address)
    except (PySparkException, Py4JJavaError, OSError, ValueError) as error:
        raise SourceError(f"{setting}: {address} is not a table that can be read.") from error
    missing = [column for column in columns if column not in found.columns]
    if missing:
        raise SourceError(f"{setting}: {address} has no column {missing[0]}; it has {', '.join(found.columns)}.")
    return found


def read(spark: SparkSession, settings: SourceSettings) -> SourceTable:
    """Open the table; no row is read.

    A Delta table is pinned to its version, so that every pass of a run sees the same rows.

    Raises:
        SettingsError: what is to be read as plain Parquet is a Delta table.
        SourceError: it is missing or unreadable.
    """
    try:
        if settings.format == "parquet":
            return _read_parquet(spark, settings)
        detail = describe_delta(spark, settings)
        if detail is None and settings.format == "table":
            return SourceTable(spark.read.table(quote_name(spark, settings.path)), {}, "unversioned")
        [commit] = read_history(spark, settings, 1)
        version = str(commit["version"])
        size = None if detail is None else detail["sizeInBytes"]
        return SourceTable(read_version(spark, settings, version), {}, version, size, detail, committed_ms(commit))
    except (PySparkException, Py4JJavaError, OSError) as error:
        fault = storage.storage_fault(str(error)) if settings.format == "table" else None
        if fault is not None:
            raise fault from error
        raise SourceError(f"source.path: {unreadable_source.explain_read_error(spark, settings, error)}") from error


def _read_parquet(spark: SparkSession, settings: SourceSettings) -> SourceTable:
    # Before Spark lists the files itself: one that comes in between is seen by the next run, at the latest.
    listing = list(storage.list_files(spark, settings.path))
    around = overlapping_paths.find_enclosing_table(storage.qualify(spark, settings.path), partial(storage.exists, spark))
    if around is not None:
        raise SettingsError(
            f"source.format: parquet would read deleted rows of {settings.path}, since {around} is a Delta table: "
            "set source.format=delta."
        )
    first = unreadable_source.first_data_file(listing)
    readable = unreadable_source.find_readable_columns(spark, first) if first else None
    schema, unreadable = readable or (None, {})
    reader = spark.read if schema is None else spark.read.schema(schema)
    size = sum(size for _, size, _ in listing)
    return SourceTable(reader.parquet(settings.path), unreadable, _digest_listing(listing), size)


def _digest_listing(listing: list[tuple[str, int, int]]) -> str:
    """Plain files have no version: a digest of their names, sizes and times."""
    return hashlib.sha256("\n".join(map(str, listing)).encode()).hexdigest()[:16]
