"""Check the source columns that the settings name, and apply the condition `source.where`.

Passthrough columns are columns that are copied from the source to `entities`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession, functions
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import SourceError
from entitymill.settings.sections import SourceSettings
from entitymill.source import unreadable_source
from entitymill.spark import spark_connect
from entitymill.spark.sql_text import blank_literals, quote_part

_FORBIDDEN_CHARACTERS = " ,;{}()\n\t="
"""Characters that Delta and Parquet do not allow in names of columns."""
_HELPER_COLUMNS = frozenset({"_put"})
"""Names of columns that this program adds temporarily to rows of `entities` while it writes them."""
_COMMENT = "comment"
_IN_BACKQUOTES = re.compile(r"`([^`]+)`")
_MIN_SIMILARITY, _MAX_LISTED = 0.72, 30
"""Minimum similarity (0 to 1) of a column name that a message suggests, and maximum number of columns that it lists."""
_STORABLE_TYPES = (
    T.StringType, T.CharType, T.VarcharType, T.BinaryType, T.BooleanType, T.NumericType, T.DateType, T.TimestampType,
    T.TimestampNTZType, T.UserDefinedType,
)  # fmt: skip
"""Types that Delta, Parquet and Arrow can all store, directly or inside arrays, maps and structs."""
_NONDETERMINISTIC = re.compile(
    r"\b(current_\w+|curdate|getdate|now|today|yesterday|tomorrow|localtimestamp|unix_timestamp|rand\w*|uuid|select|_metadata)\b"
    r"|\b((session_)?user|uniform)\s*\(|\bin\s*\(\s*table\b"
    r"|['\"]\s*T?\d{1,2}:\d{1,2}(:|\s|[+-]|Z|['\"])",
    re.IGNORECASE,
)
"""Matches parts of a condition that may select other rows each time: functions that return times, random values or the user,
special dates such as DATE 'yesterday', times of day such as '06:00' (Spark adds today's date), subqueries, and _metadata."""
_FUNCTION = re.compile(r"([a-z_]\w*`?\s*\.\s*)?`?\b([a-z_]\w*)`?\s*\(", re.IGNORECASE)
"""Matches the name of a function and its opening parenthesis; the first group is the schema's name, if there is one."""
_KEYWORDS = frozenset({"all", "and", "any", "between", "case", "else", "in", "like", "not", "or", "some", "then", "when"})
"""SQL keywords that may precede a parenthesis, but are not functions."""


def check_columns(table: DataFrame, settings: SourceSettings) -> list[T.StructField]:
    """Check the columns that the settings name, and return the passthrough columns' fields for the schema of `entities`.

    Raise SourceError if a column is missing or has an unsuitable type, or if a passthrough column has an unsuitable name.
    """
    path = settings.path
    [key] = find_fields(table, [settings.id_column], "id_column", path)
    [text] = find_fields(table, [settings.text_column], "text_column", path)
    if not isinstance(text.dataType, T.StringType):
        raise SourceError(f"source.text_column: {text.name} of {path} is {text.dataType.simpleString()}, not string.")
    if not isinstance(key.dataType, T.AtomicType):
        raise SourceError(
            f"source.id_column: {key.name} of {path} is {key.dataType.simpleString()}; an id must be a single value."
        )
    return check_passthrough(find_fields(table, list(settings.passthrough), "passthrough", path), path)


def find_fields(table: DataFrame, names: list[str], setting: str, path: str) -> list[T.StructField]:
    """Return the schema fields of the named columns, even if other columns have types that PySpark does not know.

    Raise SourceError if a column does not exist, or PySpark does not know its type. The message contains `setting`, the key
    under `source` that names the columns, and `path`, the path of the source.
    """
    existing = list_columns(table)
    found = []
    for name in names:
        if name not in existing:
            raise SourceError(f"source.{setting}: {path} has no column {name}; {suggest_columns(name, sorted(existing))}")
        try:
            found.append(table.select(F.col(quote_part(name))).schema.fields[0])
        except ValueError as error:
            raise SourceError(
                f"source.{setting}: {_describe_unsupported(name, path, describe_type(table, name))}"
            ) from error
    return found


def list_columns(table: DataFrame) -> list[str]:
    """Return the names of all columns, including columns of types that PySpark does not know."""
    if spark_connect.is_remote(table.sparkSession):
        return list(table.columns)
    java: Any = table._jdf
    return list(java.columns())


def describe_type(table: DataFrame, name: str) -> str:
    """Return Spark's name for the type of a column, even if PySpark does not know the type.

    Spark Connect gives no access to the name. There, return the phrase `of a type that PySpark does not know`.
    """
    if spark_connect.is_remote(table.sparkSession):
        return "of a type that PySpark does not know"
    java: Any = table._jdf
    return str(java.schema().apply(name).dataType().simpleString())


def check_unreadable_columns(table: DataFrame, settings: SourceSettings, left_out: Mapping[str, str]) -> None:
    """Raise SourceError if a setting needs a column that Spark cannot read.

    `left_out` is a dict from the name of each unreadable column to its Parquet type; `table` has all readable columns.
    """
    needed = dict.fromkeys(settings.passthrough, "passthrough")
    needed |= {settings.text_column: "text_column", settings.id_column: "id_column"}
    try:
        if settings.where is not None:
            table.where(settings.where)
    except PySparkException as error:
        # Spark ignores case in names. Other mistakes in the condition are reported later, when it is applied.
        named = {name.lower() for name in _IN_BACKQUOTES.findall(str(error).partition("\n")[0])}
        needed |= {name: "where" for name in left_out if name.lower() in named}
    for name, setting in needed.items():
        if name in left_out:
            raise SourceError(
                f"source.{setting}: {name} of {settings.path} has the Parquet type {left_out[name]}, which Spark "
                "cannot read. Write the column with another type, for example times in microseconds and UUIDs as strings."
            )


def suggest_columns(name: str, existing: list[str]) -> str:
    """Return the end of a message, which lists existing columns and, if one has a name similar to `name`, suggests it."""
    near = get_close_matches(name, existing, 1, _MIN_SIMILARITY)
    more = f" and {len(existing) - _MAX_LISTED} more" if len(existing) > _MAX_LISTED else ""
    has = f"it has {', '.join(existing[:_MAX_LISTED])}{more}"
    return f"{has}; did you mean {near[0]}?" if near else f"{has}."


def check_passthrough(fields: list[T.StructField], path: str) -> list[T.StructField]:
    """Check that passthrough columns can be columns of `entities`; return their fields, with comments as the only metadata.

    Raise SourceError if a column cannot; the message contains `path`, the path of the source.
    """
    taken = {name.lower() for name in schemas.ENTITY_COLUMNS} | _HELPER_COLUMNS
    for field in fields:
        name = field.name
        if name.lower() in taken:
            raise SourceError(
                f"source.passthrough: {name} is already the name of a column of the entities table (case is ignored); "
                "rename it in a view."
            )
        taken.add(name.lower())
        if any(character in _FORBIDDEN_CHARACTERS for character in _concatenate_field_names(field.dataType) + name):
            raise SourceError(
                f"source.passthrough: {name} of {path} cannot be a column of the entities table, since "
                "Delta and Parquet allow neither spaces nor ,;{}()= in names; rename it in a view."
            )
        if not _is_storable(field.dataType):
            raise SourceError(f"source.passthrough: {_describe_unsupported(name, path, field.dataType.simpleString())}")
    return [strip_metadata(field) for field in fields]


def strip_metadata(field: T.StructField) -> T.StructField:
    """Return a copy of a schema field without metadata, except comments; the same applies to nested fields."""
    metadata = {_COMMENT: field.metadata[_COMMENT]} if _COMMENT in field.metadata else {}
    return T.StructField(field.name, _strip_type_metadata(field.dataType), field.nullable, metadata)


def _strip_type_metadata(kind: T.DataType) -> T.DataType:
    """Return the type `kind` without the metadata of its nested fields; their comments are kept."""
    if isinstance(kind, T.StructType):
        return T.StructType([strip_metadata(field) for field in kind])
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(_strip_type_metadata(kind.elementType), kind.containsNull)
    if isinstance(kind, T.MapType):
        return T.MapType(_strip_type_metadata(kind.keyType), _strip_type_metadata(kind.valueType), kind.valueContainsNull)
    return kind


def _is_storable(kind: T.DataType) -> bool:
    """Return whether Delta, Parquet and Arrow can all store the type `kind`; False for empty structs and repeated names."""
    if isinstance(kind, T.StructType):
        distinct = {field.name.lower() for field in kind}
        return 0 < len(distinct) == len(kind.fields) and all(_is_storable(field.dataType) for field in kind)
    if isinstance(kind, T.ArrayType):
        return _is_storable(kind.elementType)
    if isinstance(kind, T.MapType):
        return _is_storable(kind.keyType) and _is_storable(kind.valueType)
    return isinstance(kind, _STORABLE_TYPES)


def _describe_unsupported(name: str, path: str, kind: str) -> str:
    """Return an error message for a column `name` whose type `kind` cannot be stored in `entities`; it says what to do."""
    return (
        f"{name} of {path} is {kind}, which cannot be a column of the entities table; "
        "cast it in a view, and read the view with `source.format: table`."
    )


def _concatenate_field_names(kind: T.DataType) -> str:
    """Return the names of all fields nested inside the type `kind`, concatenated to one string; empty if there are none."""
    if isinstance(kind, T.StructType):
        return "".join(field.name + _concatenate_field_names(field.dataType) for field in kind)
    if isinstance(kind, T.ArrayType):
        return _concatenate_field_names(kind.elementType)
    if isinstance(kind, T.MapType):
        return _concatenate_field_names(kind.keyType) + _concatenate_field_names(kind.valueType)
    return ""


def is_nondeterministic(spark: SparkSession, where: str | None) -> bool:
    """Return whether a condition may later select other rows, even if no row has changed; False if there is no condition.

    Such a condition depends on time, user, random numbers, other tables, metadata of data files or a user-defined function.
    If in doubt, the result is True: the condition is examined as text.
    """
    return where is not None and (has_nondeterministic_part(where) or _calls_user_function(spark, where))


def has_nondeterministic_part(where: str) -> bool:
    """Return whether a condition has a part, such as `now`, that can make the result depend on more than the row.

    _NONDETERMINISTIC matches these parts, even in string literals and in names of columns.
    """
    return _NONDETERMINISTIC.search(where) is not None


def _calls_user_function(spark: SparkSession, where: str) -> bool:
    """Return whether a condition calls a user-defined function, which may depend on time or on other tables.

    A function name with a schema always counts as user-defined, and so does any unknown name if functions cannot be listed.
    """
    calls = list(_FUNCTION.finditer(blank_literals(where)))
    if any(call[1] for call in calls):
        return True
    called = {call[2].casefold() for call in calls} - _KEYWORDS
    # Functions in `pyspark.sql.functions` are Spark's own, so that only other names must be looked up in the catalog.
    called = {name for name in called if not hasattr(functions, name)}
    try:
        defined = spark.sql("SHOW USER FUNCTIONS").collect() if called else []
    except PySparkException:  # a catalog without functions, or whose functions this user may not list
        return True
    return not called.isdisjoint(row["function"].rpartition(".")[2].casefold() for row in defined)


def apply_condition(table: DataFrame, settings: SourceSettings) -> DataFrame:
    """Return the rows that meet `source.where`, or all rows if it is not set; raise SourceError if it is invalid."""
    if settings.where is None:
        return table
    try:
        return table.where(settings.where)
    except PySparkException as error:
        reason = unreadable_source.summarize_error(error)
        raise SourceError(
            f"source.where: {settings.where!r} is not a valid condition on {settings.path}: {reason}."
        ) from error
