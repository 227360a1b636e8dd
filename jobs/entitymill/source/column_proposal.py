"""Propose the id column, the text column and the passthrough columns (copied to `entities`) for a table.

The driver receives only counts and lengths, never the values in the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.errors import SourceError
from entitymill.settings.sections import LimitSettings, SourceSettings
from entitymill.source import reader, source_columns
from entitymill.source.row_checks import REJECT_CODES
from entitymill.spark import storage
from entitymill.spark.files_on_this_machine import exists_here
from entitymill.spark.sql_text import quote_name, quote_part

SAMPLE = 1000
"""Maximum number of rows that are inspected, from the beginning of the table."""
MAX_PASSTHROUGH_CHARS = 200
"""Maximum mean length, in characters, of a string column that is proposed as a passthrough column."""
MAX_REJECT_RATIO = LimitSettings().max_reject_ratio
"""Maximum share (0 to 1) of rows that a run may reject because of their ids, if a column is to be proposed as id column."""
_ID_NAMES = ("id", "key", "uuid", "guid")


@dataclass(frozen=True)
class ColumnProfile:
    """Properties of one column of a table, measured on the inspected rows. This class is not PySpark's `ColumnProfile`.

    kind: Spark's name for the column's type.
    atomic: whether the type is a simple one: not an array, map or struct.
    text: whether the type is string.
    unique: whether every inspected row has a value, and all values differ.
    length: mean length of strings in characters; 0 for other types.
    exclusion: reason why the column is unsuitable as a passthrough column; empty if it is suitable.
    surplus: number of rows minus number of different values; a run with this id column rejects at least this many rows.
    null_ids, repeated_ids: number of rows without a value, and of rows whose value also occurs in other rows; 0 if they were
        not counted. If this is the id column, a run rejects all these rows.
    """

    name: str
    kind: str
    atomic: bool
    text: bool
    unique: bool
    length: float
    exclusion: str
    surplus: int = 0
    null_ids: int = 0
    repeated_ids: int = 0

    @property
    def internal(self) -> bool:
        """Whether pandas or another program added the column, as its name shows."""
        return _is_internal(self.name)

    @property
    def rejected(self) -> int:
        """Number of inspected rows that a run with this id column rejects because of their ids; 0 if not counted."""
        return self.null_ids + self.repeated_ids


@dataclass(frozen=True)
class Proposal:
    """Proposed settings for the columns of a table.

    rows: number of inspected rows.
    key, text: the id column and the text column, which the user named or this module found.
    passthrough: proposed passthrough columns.
    other_keys, other_texts: other columns that could be the id column or the text column.
    left_out: (column name, reason) for each column that is proposed neither as id, text nor passthrough column.
    """

    rows: int
    key: ColumnProfile
    text: ColumnProfile
    passthrough: list[ColumnProfile]
    other_keys: list[ColumnProfile]
    other_texts: list[ColumnProfile]
    left_out: list[tuple[str, str]]


def propose_columns(
    spark: SparkSession, table: str, key: str | None = None, text: str | None = None
) -> tuple[SourceSettings, Proposal]:
    """Inspect the first SAMPLE rows of a table, and propose its id column, text column and passthrough columns.

    This runs Spark jobs.

    Args:
        table: path of the table, or its name in the catalog.
        key, text: names of the id column and the text column that the user chose. None to find one: as text, the string
            column with the longest strings on average; as id, see `_choose_id`.

    Returns:
        A tuple: settings with only the table's format and its absolute path or name; and the proposal.

    Raises:
        SourceError: the table is missing or empty, lacks a column that the user chose, or has no suitable id or text column.
            Or the user chose the same column as id and text.
        SettingsError, StorageError: see `reader.open_table`.
    """
    local = make_absolute(spark, table) if exists_here(table) else table
    kind = _detect_format(spark, local)
    opened = reader.open_table(spark, SourceSettings.model_validate({"path": local, "format": kind}))
    path = local if kind == "table" else make_absolute(spark, local)
    only_table = SourceSettings.model_validate({"path": path, "format": kind})
    rows, columns = _inspect(opened.rows, table)
    if text is not None and text == key:
        raise SourceError(f"--text, --id: {text} cannot be both the text column and the id column.")
    texts = sorted((column for column in columns if column.text and column.name != key), key=lambda column: -column.length)
    chosen_text = _find_column(text, texts, f"--text: {table}", "string column") if text else next(iter(texts), None)
    if chosen_text is None:
        other = " besides the id column" if key else ""
        raise SourceError(f"{table} has no string column{other}, so it contains no text to process.")
    candidates = [column for column in columns if column.atomic and not column.internal and column is not chosen_text]
    if key:
        chosen_key = _count_bad_ids(opened.rows, _find_column(key, columns, f"--id: {table}", "column of a simple type"))
    else:
        chosen_key = _choose_id(opened.rows, candidates, rows, table)
    keys = sorted((column for column in candidates if column.unique), key=_rank_as_id)
    others = [column for column in columns if column.name not in (chosen_key.name, chosen_text.name)]
    passthrough = [column for column in others if not column.exclusion]
    left_out = [(column.name, column.exclusion) for column in others if column.exclusion]
    left_out += [(name, f"{kind}, which Spark cannot read") for name, kind in opened.unreadable.items()]
    return only_table, Proposal(
        rows,
        chosen_key,
        chosen_text,
        passthrough,
        [column for column in keys if column.name != chosen_key.name],
        [column for column in texts if column.name not in (chosen_text.name, chosen_key.name)],
        left_out,
    )


def _detect_format(spark: SparkSession, table: str) -> str:
    """Return the value of `source.format` for a path or a table name; parquet if there is no such path or table."""
    try:
        if storage.exists(spark, table):
            return "delta" if storage.exists(spark, f"{table}/_delta_log") else "parquet"
    except OSError:  # not a valid path, for example a name with a colon
        pass
    try:
        if "/" not in table and spark.catalog.tableExists(quote_name(spark, table)):
            return "table"
    except (ValueError, PySparkException):  # not a valid name, or its catalog does not exist
        pass
    return "parquet"  # for a missing table, reading as parquet gives the clearest error message


def _inspect(table: DataFrame, path: str) -> tuple[int, list[ColumnProfile]]:
    """Read at most SAMPLE rows in one pass; return their number and the properties of all columns.

    Raise SourceError if the table has no rows; `path` is only for the message.
    """
    kinds: dict[str, T.StructField | None] = {}
    for name in source_columns.list_columns(table):
        try:
            [kinds[name]] = source_columns.find_fields(table, [name], "passthrough", path)
        except SourceError:  # PySpark does not know the column's type
            kinds[name] = None
    measured = [F.count(F.lit(1)).alias("rows")]
    for number, (name, field) in enumerate(kinds.items()):
        if field is None or not isinstance(field.dataType, T.AtomicType):
            continue
        column = F.col(quote_part(name))
        measured += [
            F.count(column).alias(f"nonnull{number}"),
            F.size(F.collect_set(F.when(column.isNotNull(), F.xxhash64(column)))).alias(f"distinct{number}"),
        ]
        if isinstance(field.dataType, T.StringType):
            measured.append(F.avg(F.length(column)).alias(f"length{number}"))
    found = table.limit(SAMPLE).agg(*measured).collect()[0].asDict()
    rows = int(found["rows"])
    if not rows:
        raise SourceError(f"{path} has no rows to inspect.")
    columns = []
    for number, (name, field) in enumerate(kinds.items()):
        kind = " ".join(source_columns.describe_type(table, name).split())
        unique = found.get(f"nonnull{number}") == rows == found.get(f"distinct{number}")
        length = float(found.get(f"length{number}") or 0)
        refusal = _explain_exclusion(field, path, kind, length)
        atomic = f"nonnull{number}" in found
        surplus = rows - int(found.get(f"distinct{number}") or 0)
        columns.append(ColumnProfile(name, kind, atomic, f"length{number}" in found, unique, length, refusal, surplus))
    return rows, columns


def _explain_exclusion(field: T.StructField | None, path: str, kind: str, length: float) -> str:
    """Return why a column is unsuitable as a passthrough column; an empty string if it is suitable.

    `field` is None if PySpark does not know the type. `kind` is the type's name, and `length` the mean length of strings.
    """
    if field is None:
        return f"{kind}, which cannot be copied to entities"
    if _is_internal(field.name):
        return f"{kind}, an internal column such as the index of pandas"
    if length > MAX_PASSTHROUGH_CHARS:
        return f"{kind} of {length:,.0f} characters on average, too long to copy to every row of entities"
    try:
        source_columns.check_passthrough([field], path)
    except SourceError:
        return f"{kind}, whose name or type cannot be a column of the entities table"
    return ""


def _is_internal(name: str) -> bool:
    """Return whether the name of a column, such as __index_level_0__, shows that pandas or another program added it."""
    return name.startswith("__") and name.endswith("__")


def _choose_id(table: DataFrame, candidates: Iterable[ColumnProfile], rows: int, path: str) -> ColumnProfile:
    """Return the first candidate, in the order of `_rank_as_id`, with few null and repeated ids. This may run Spark jobs.

    Few means at most MAX_REJECT_RATIO of the inspected rows. Binary columns that are not valid UTF-8 are skipped. Raise
    SourceError if there is no such candidate.
    """
    closest = None
    for column in sorted(candidates, key=_rank_as_id):
        if column.kind == "binary" and not _is_utf8(table, column):
            continue
        if column.unique:
            return column
        if closest is None or column.surplus < closest.surplus:
            closest = column
        if column.surplus <= MAX_REJECT_RATIO * rows:
            counted = _count_bad_ids(table, column)
            if counted.rejected <= MAX_REJECT_RATIO * rows:
                return counted
    found = ""
    if closest is not None:
        found = f" ({closest.name} comes closest: {describe_bad_ids(_count_bad_ids(table, closest), rows)})"
    raise SourceError(
        f"{path} has no column of a simple type whose values are all different and never null in its first {rows:,} "
        f"rows{found}. Name the id column with --id, or create a view that has one."
    )


def _is_utf8(table: DataFrame, column: ColumnProfile) -> bool:
    """Return whether a binary column can be the id column: its first SAMPLE values are valid UTF-8."""
    ids = table.select(F.col(quote_part(column.name)).cast("string").alias("doc_id")).limit(SAMPLE)
    return ids.where(REJECT_CODES["malformed_id"][0]).limit(1).count() == 0


def _count_bad_ids(table: DataFrame, column: ColumnProfile) -> ColumnProfile:
    """Return a copy of `column`, a candidate for the id column, with its fields `null_ids` and `repeated_ids` filled in.

    A Spark job counts both in the first SAMPLE rows. But if `column.unique` is true, return `column` itself, without a job.
    """
    if column.unique:
        return column
    copies = table.select(F.col(quote_part(column.name)).alias("id")).limit(SAMPLE).groupBy("id").count()
    is_null = F.col("id").isNull()
    [found] = copies.agg(
        F.sum(F.when(is_null, F.col("count"))).alias("null_ids"),
        F.sum(F.when(~is_null & (F.col("count") > 1), F.col("count"))).alias("repeated_ids"),
    ).collect()
    return replace(column, null_ids=found["null_ids"] or 0, repeated_ids=found["repeated_ids"] or 0)


def describe_bad_ids(column: ColumnProfile, rows: int) -> str:
    """Return how many of `rows` rows have a null or repeated id, and what a run does with them, as text; empty if none."""
    if not column.rejected:
        return ""
    repeated = f"{column.repeated_ids:,} with an id that occurs several times"
    counts = f"of {rows:,} rows, {column.null_ids:,} without an id and {repeated}"
    if column.rejected <= MAX_REJECT_RATIO * rows:
        return f"{counts}; a run writes these rows to the rejects table"
    return f"{counts}; a run rejects these rows, and fails: limits.max_reject_ratio allows {MAX_REJECT_RATIO:g} of all rows"


def make_absolute(spark: SparkSession, path: str) -> str:
    """Make a relative path absolute, so that it is valid in every working directory; return URIs and invalid paths as is."""
    if path.startswith("/") or "://" in path:
        return path
    try:
        qualified = storage.qualify(spark, path)
    except OSError:  # not a valid path, for example a name with a colon
        return path
    return str(Path(path).absolute()) if qualified.startswith("file:") else qualified


def _rank_as_id(column: ColumnProfile) -> tuple[bool, bool, int, int]:
    """Return a sort key that is smallest for columns whose name, values and type are typical of an id."""
    name = column.name.lower()
    name_rank = 0 if name in _ID_NAMES else 1 if name.endswith(_ID_NAMES) else 2
    type_rank = 0 if column.text or column.kind in ("bigint", "int") else 1
    return name_rank == 2, not column.unique, name_rank, type_rank


def _find_column(name: str, columns: list[ColumnProfile], option: str, requirement: str) -> ColumnProfile:
    """Return the column with this name; raise SourceError if there is none, or if it is an array, map or struct.

    The message is made of `option` (such as `--text: docs.parquet`) and `requirement` (such as `string column`).
    """
    for column in columns:
        if column.name == name and column.atomic:
            return column
    choices = ", ".join(column.name for column in columns if column.atomic)
    raise SourceError(f"{option} has no {requirement} {name}; choose one of {choices}.")
