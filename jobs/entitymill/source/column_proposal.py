"""A look at a table: which columns are ids, texts and worth carrying. Of its texts only lengths come to the driver."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.errors import SourceError
from entitymill.settings.sections import SourceSettings
from entitymill.source import carried_columns, reader
from entitymill.spark import storage
from entitymill.spark.sql_text import quote_name, quote_part

SAMPLE = 1000
"""Rows that are looked at, the first ones."""
LONGEST_PASSTHROUGH = 200
"""Characters, on average, of a text column that is carried beside each mention."""
_ID_NAMES = ("id", "key", "uuid", "guid")


@dataclass(frozen=True)
class Column:
    """What the rows that were looked at say of a column.

    kind: its type, as Spark writes it.
    atomic, text: whether it is a single value, and one of string.
    unique: whether every row has a value, and no two the same.
    length: mean characters of a text; 0 of others.
    refusal: why it cannot be carried; empty if it can.
    """

    name: str
    kind: str
    atomic: bool
    text: bool
    unique: bool
    length: float
    exclusion: str


@dataclass(frozen=True)
class Proposal:
    """Columns for each use, and what else there might be: (column's name, why) of each."""

    rows: int
    key: Column
    text: Column
    passthrough: list[Column]
    other_keys: list[Column]
    other_texts: list[Column]
    left_out: list[tuple[str, str]]


def propose_columns(
    spark: SparkSession, table: str, key: str | None = None, text: str | None = None
) -> tuple[SourceSettings, Proposal]:
    """Look at the first rows of a table.

    Args:
        table: a path, or a name in the catalog.
        key: the id column, if it is known.
        text: the text column, if it is known.

    Raises:
        SourceError: there is no such table, it has no rows, or no column fits.
    """
    place = SourceSettings.model_validate({"path": table, "format": _detect_format(spark, table)})
    opened = reader.read(spark, place)
    rows, columns = _inspect(opened.rows, table)
    texts = sorted((column for column in columns if column.text), key=lambda column: -column.length)
    chosen_text = _find_column(text, texts, f"--text {text} of {table}", "of strings") if text else next(iter(texts), None)
    if chosen_text is None:
        raise SourceError(f"{table} has no column of strings: there is no text in it to find entities in.")
    keys = sorted((column for column in columns if column.unique and column is not chosen_text), key=_rank_as_id)
    chosen_key = _find_column(key, columns, f"--id {key} of {table}", "a single value") if key else next(iter(keys), None)
    if chosen_key is None:
        raise SourceError(
            f"{table} has no column that is a single value, never null and unique in its first {rows:,} rows: name one "
            "with --id, or make a view that has one."
        )
    others = [column for column in columns if column not in (chosen_key, chosen_text)]
    carried = [column for column in others if not column.exclusion]
    left_out = [(column.name, column.exclusion) for column in others if column.exclusion]
    left_out += [(name, f"{kind}, which Spark cannot read") for name, kind in opened.unreadable.items()]
    return place, Proposal(
        rows,
        chosen_key,
        chosen_text,
        carried,
        [column for column in keys if column is not chosen_key],
        [column for column in texts if column not in (chosen_text, chosen_key)],
        left_out,
    )


def _detect_format(spark: SparkSession, table: str) -> str:
    """What a table is, by what lies there."""
    try:
        if storage.exists(spark, table):
            return "delta" if storage.exists(spark, f"{table}/_delta_log") else "parquet"
    except OSError:  # no path at all, such as a name with a colon in it
        pass
    try:
        if "/" not in table and spark.catalog.tableExists(quote_name(spark, table)):
            return "table"
    except (ValueError, PySparkException):  # no name, or of a catalog that is not there
        pass
    return "parquet"  # which says best that nothing is there


def _inspect(table: DataFrame, path: str) -> tuple[int, list[Column]]:
    """The rows looked at, and all columns; one pass over a few rows, whose values stay where they are."""
    kinds: dict[str, T.StructField | None] = {}
    for name in carried_columns.column_names(table):
        try:
            [kinds[name]] = carried_columns.find_fields(table, [name], "passthrough", path)
        except SourceError:  # of a type that PySpark does not know
            kinds[name] = None
    measured = [F.count(F.lit(1)).alias("rows")]
    for number, (name, field) in enumerate(kinds.items()):
        if field is None or not isinstance(field.dataType, T.AtomicType):
            continue
        column = F.col(quote_part(name))
        measured += [F.count(column).alias(f"held{number}"), F.size(F.collect_set(F.xxhash64(column))).alias(f"set{number}")]
        if isinstance(field.dataType, T.StringType):
            measured.append(F.avg(F.length(column)).alias(f"length{number}"))
    found = table.limit(SAMPLE).agg(*measured).collect()[0].asDict()
    rows = int(found["rows"])
    if not rows:
        raise SourceError(f"{path} has no rows: there is nothing to look at.")
    columns = []
    for number, (name, field) in enumerate(kinds.items()):
        kind = " ".join(carried_columns.column_type(table, name).split())
        unique = found.get(f"held{number}") == rows == found.get(f"set{number}")
        length = float(found.get(f"length{number}") or 0)
        refusal = _explain_exclusion(field, path, kind, length)
        atomic = f"held{number}" in found
        columns.append(Column(name, kind, atomic, f"length{number}" in found, unique, length, refusal))
    return rows, columns


def _explain_exclusion(field: T.StructField | None, path: str, kind: str, length: float) -> str:
    if field is None:
        return f"{kind}, which cannot be carried"
    if length > LONGEST_PASSTHROUGH:
        return f"{kind} of {length:,.0f} characters on average, long for a copy beside each mention"
    try:
        carried_columns.check_passthrough([field], path)
    except SourceError:
        return f"{kind}, whose name or type cannot be a column of the entities table"
    return ""


def _rank_as_id(column: Column) -> tuple[int, int]:
    """Least where a column is called as ids are, and of a type that ids have."""
    name = column.name.lower()
    called = 0 if name in _ID_NAMES else 1 if name.endswith(_ID_NAMES) else 2
    return called, 0 if column.text or column.kind in ("bigint", "int", "binary") else 1


def _find_column(name: str, columns: list[Column], asked: str, wanted: str) -> Column:
    for column in columns:
        if column.name == name and column.atomic:
            return column
    raise SourceError(f"{asked} is not there, or not {wanted}; there are {', '.join(column.name for column in columns)}.")
