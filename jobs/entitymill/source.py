"""1  text table -> documents, and rejects: the only module that reads the source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas, storage
from entitymill.errors import SourceError
from entitymill.settings import SourceSettings

BROADCAST_DUPLICATES = 100_000
_CODE = "_code"
_NOT_IN_NAMES = " ,;{}()\n\t="


@dataclass(frozen=True)
class Source:
    """The checked source of one run.

    documents: doc_id, text, text_hash, chars, and a struct `passthrough` where columns are carried.
    rejects: doc_id, stage, code, detail.
    counts: reject code -> rows, and "" -> rows that are documents.
    chars: code points of all documents.
    passthrough: fields carried to the entities.
    version: of the table read.
    """

    documents: DataFrame
    rejects: DataFrame
    counts: dict[str, int]
    chars: int
    passthrough: list[T.StructField]
    version: str

    @property
    def rejected(self) -> int:
        """Rows refused."""
        return sum(count for code, count in self.counts.items() if code)

    @property
    def rows(self) -> int:
        """All rows read."""
        return sum(self.counts.values())


def open_source(spark: SparkSession, settings: SourceSettings) -> Source:
    """Read, check and split the source; runs one job that counts.

    Raises:
        SourceError: it is missing, unreadable, or lacks what the settings name.
    """
    table, version = _read(spark, settings)
    passthrough = _check_columns(table, settings)
    if settings.where is not None:
        try:
            table = table.where(settings.where)
        except PySparkException as error:
            raise SourceError(f"source.where: {settings.where!r} is not a condition on {settings.path}.") from error
    rows = _judge(_with_counts_of_ids(_rows(table, settings)), settings.max_chars)
    sums = rows.groupBy(_CODE).agg(F.count("*").alias("rows"), F.sum("chars").alias("chars")).collect()
    counts = {row[_CODE] or "": row["rows"] for row in sums}
    chars = sum(row["chars"] or 0 for row in sums if row[_CODE] is None)
    carried = [F.col("passthrough")] if passthrough else []
    documents = rows.where(F.col(_CODE).isNull()).select(
        "doc_id", "text", F.sha2("text", 256).alias("text_hash"), "chars", *carried
    )
    rejects = rows.where(F.col(_CODE).isNotNull()).select(
        "doc_id",
        F.lit("source").alias("stage"),
        F.col(_CODE).alias("code"),
        _detail(settings.max_chars).alias("detail"),
    )
    return Source(documents, rejects, counts, chars, passthrough, version)


def texts(spark: SparkSession, settings: SourceSettings, doc_ids: list[str]) -> dict[str, str]:
    """The texts of a few documents, for showing."""
    table, _ = _read(spark, settings)
    if settings.where is not None:
        table = table.where(settings.where)
    rows = _rows(table, settings).where(F.col("doc_id").isin(doc_ids)).select("doc_id", "text")
    return {row.doc_id: row.text for row in rows.collect()}


def read_mentions(spark: SparkSession, address: str, setting: str, columns: Sequence[str]) -> DataFrame:
    """A table of mentions, this program's own or gold.

    Args:
        spark: the session.
        address: a Delta table, Parquet, JSON Lines (.jsonl), or table:NAME.
        setting: option that named it, for messages.
        columns: it must have.

    Raises:
        SourceError: it cannot be read, or lacks a column.
    """
    try:
        if address.startswith("table:"):
            found = spark.read.table(address.removeprefix("table:"))
        elif not storage.exists(spark, address):
            raise SourceError(f"{setting}: nothing is at {address}.")
        elif storage.exists(spark, f"{address}/_delta_log"):
            found = spark.read.format("delta").load(address)
        else:
            found = spark.read.json(address) if address.endswith(".jsonl") else spark.read.parquet(address)
    except (PySparkException, Py4JJavaError, OSError) as error:
        raise SourceError(f"{setting}: {address} is not a table that can be read.") from error
    missing = [column for column in columns if column not in found.columns]
    if missing:
        raise SourceError(f"{setting}: {address} has no column {missing[0]}; it has {', '.join(found.columns)}.")
    return found


def _read(spark: SparkSession, settings: SourceSettings) -> tuple[DataFrame, str]:
    """The table and its version; a Delta table is pinned to it, so that every pass of a run sees the same rows."""
    reader = spark.read
    try:
        if settings.format == "parquet":
            return reader.parquet(settings.path), _listing_digest(spark, settings.path)
        if settings.format == "delta":
            path = storage.qualify(spark, settings.path)
            version = _latest(DeltaTable.forPath(spark, path))
            return reader.format("delta").option("versionAsOf", version).load(path), version
        if not _is_delta(spark, settings.path):
            return reader.table(settings.path), "unversioned"
        version = _latest(DeltaTable.forName(spark, settings.path))
        return reader.option("versionAsOf", version).table(settings.path), version
    except (PySparkException, Py4JJavaError, OSError) as error:
        raise SourceError(f"source.path: {_reading_fault(spark, settings, error)}") from error


def _latest(table: DeltaTable) -> str:
    return str(table.history(1).select("version").collect()[0][0])


def _is_delta(spark: SparkSession, name: str) -> bool:
    try:
        DeltaTable.forName(spark, name)
    except PySparkException:
        return False
    return True


def _listing_digest(spark: SparkSession, path: str) -> str:
    """Plain files have no version: a digest of their names, sizes and times."""
    listing = "\n".join(map(str, storage.files(spark, path)))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def _reading_fault(spark: SparkSession, settings: SourceSettings, error: Exception) -> str:
    if settings.format == "table":
        return f"there is no table {settings.path}, or it may not be read."
    try:
        if not storage.exists(spark, settings.path):
            return f"nothing is at {settings.path}."
    except OSError as reason:
        return f"{settings.path} cannot be reached: {reason}."
    condition = error.getErrorClass() if isinstance(error, PySparkException) else None
    if condition == "UNABLE_TO_INFER_SCHEMA":
        return f"{settings.path} holds no {settings.format} file."
    if settings.format == "delta":
        return f"{settings.path} is not a Delta table; for plain Parquet files set source.format=parquet."
    return f"{settings.path} is not readable as {settings.format}: a file there is damaged or of another format."


def _check_columns(table: DataFrame, settings: SourceSettings) -> list[T.StructField]:
    fields = {field.name: field for field in table.schema.fields}
    wanted = [("id_column", settings.id_column), ("text_column", settings.text_column)]
    for setting, column in [*wanted, *(("passthrough", column) for column in settings.passthrough)]:
        if column not in fields:
            raise SourceError(
                f"source.{setting}: {settings.path} has no column {column}; it has {', '.join(sorted(fields))}."
            )
    text, key = fields[settings.text_column], fields[settings.id_column]
    if not isinstance(text.dataType, T.StringType):
        raise SourceError(
            f"source.text_column: {text.name} of {settings.path} is {text.dataType.simpleString()}, not string."
        )
    if not isinstance(key.dataType, T.AtomicType):
        raise SourceError(
            f"source.id_column: {key.name} of {settings.path} is {key.dataType.simpleString()}; "
            "an id must be a single value."
        )
    for column in settings.passthrough:
        if column in schemas.ENTITY_COLUMNS:
            raise SourceError(f"source.passthrough: {column} is a column of the entities table itself; rename it in a view.")
        if any(character in _NOT_IN_NAMES for character in _names(fields[column].dataType) + column):
            raise SourceError(
                f"source.passthrough: {column} of {settings.path} cannot be a column of the entities table, since "
                "Delta and Parquet allow no blank and none of ,;{}()= in names; rename it in a view."
            )
    return [fields[column] for column in settings.passthrough]


def _names(kind: T.DataType) -> str:
    """All field names inside a type, in one string."""
    if isinstance(kind, T.StructType):
        return "".join(field.name + _names(field.dataType) for field in kind)
    if isinstance(kind, T.ArrayType):
        return _names(kind.elementType)
    return _names(kind.keyType) + _names(kind.valueType) if isinstance(kind, T.MapType) else ""


def _rows(table: DataFrame, settings: SourceSettings) -> DataFrame:
    carried = [F.struct(*(F.col(f"`{c}`") for c in settings.passthrough)).alias("passthrough")] * bool(settings.passthrough)
    doc_id = F.col(f"`{settings.id_column}`").cast("string").alias("doc_id")
    return table.select(doc_id, F.col(f"`{settings.text_column}`").alias("text"), *carried)


def _with_counts_of_ids(rows: DataFrame) -> DataFrame:
    """Add how often each id occurs; only ids are shuffled unless some do occur twice."""
    repeated = rows.where(F.col("doc_id").isNotNull()).groupBy("doc_id").agg(F.count("*").alias("copies"))
    repeated = repeated.where("copies > 1")
    found = repeated.limit(BROADCAST_DUPLICATES + 1).count()
    if not found:
        return rows.withColumn("copies", F.lit(1))
    if found <= BROADCAST_DUPLICATES:
        repeated = F.broadcast(repeated)
    return rows.join(repeated, "doc_id", "left")


def _judge(rows: DataFrame, max_chars: int) -> DataFrame:
    """Add the reject code, null for a document."""
    code = (
        F.when(F.col("doc_id").isNull(), "null_id")
        .when(_malformed("doc_id"), "malformed_id")
        .when(F.col("copies") > 1, "duplicate_id")
        .when(F.col("text").isNull(), "null_text")
        .when(F.length("text") > max_chars, "text_too_long")
        .when(_malformed("text"), "malformed_text")
    )
    return rows.withColumn("chars", F.length("text")).withColumn(_CODE, code)


def _malformed(column: str) -> Column:
    """Bytes that are not UTF-8, a lone surrogate for one: Java's round trip replaces them, so the bytes differ."""
    return F.col(column).cast("binary") != F.encode(F.col(column), "UTF-8")


def _detail(max_chars: int) -> Column:
    return (
        F.when(F.col(_CODE) == "null_id", F.lit("the id is null"))
        .when(F.col(_CODE) == "malformed_id", F.lit("the id is not valid UTF-8"))
        .when(F.col(_CODE) == "duplicate_id", F.format_string("%d rows of this run have this id", F.col("copies")))
        .when(F.col(_CODE) == "null_text", F.lit("the text is null"))
        .when(
            F.col(_CODE) == "text_too_long",
            F.format_string(f"%d code points, source.max_chars is {max_chars}", F.col("chars")),
        )
        .otherwise(F.lit("the text is not valid UTF-8 (a lone surrogate, or cut in the middle of a character)"))
    )
