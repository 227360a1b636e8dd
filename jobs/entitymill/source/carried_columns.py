"""Columns of the source: whether they are what the settings say, and how those that are carried come to `entities`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import SourceError
from entitymill.settings.sections import SourceSettings
from entitymill.spark import spark_connect
from entitymill.spark.sql_text import quote_part

_FORBIDDEN_CHARACTERS = " ,;{}()\n\t="
_HELPER_COLUMNS = frozenset({"_put"})
"""Columns that are beside those of `entities` while it is changed."""
_COMMENT = "comment"
_IN_BACKQUOTES = re.compile(r"`([^`]+)`")
_MIN_SIMILARITY, _MOST_LISTED = 0.72, 30
"""How alike names are that are taken for one another, from 0 to 1; and how many columns a message lists."""
_STORABLE_TYPES = (
    T.StringType,
    T.CharType,
    T.VarcharType,
    T.BinaryType,
    T.BooleanType,
    T.NumericType,
    T.DateType,
    T.TimestampType,
    T.TimestampNTZType,
    T.UserDefinedType,
)
"""What Delta, Parquet and Arrow all hold, alone or inside arrays, maps and structs."""


def check_columns(table: DataFrame, settings: SourceSettings) -> list[T.StructField]:
    """The carried fields as `entities` is to have them, of a table whose other columns are fit, too.

    Raises:
        SourceError: a column is missing, or of a type that it cannot have.
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
    """The fields of some columns; the types of all others are nobody's business, PySpark may not even know them.

    Args:
        table: that has them.
        names: of the columns.
        setting: that named them, for messages.
        path: of the table, for messages.

    Raises:
        SourceError: there is no such column, or its type is none that PySpark knows.
    """
    held = column_names(table)
    found = []
    for name in names:
        if name not in held:
            raise SourceError(f"source.{setting}: {path} has no column {name}; {_suggest_columns(name, sorted(held))}")
        try:
            found.append(table.select(F.col(quote_part(name))).schema.fields[0])
        except ValueError as error:
            raise SourceError(f"source.{setting}: {_describe_unsupported(name, path, column_type(table, name))}") from error
    return found


def column_names(table: DataFrame) -> list[str]:
    """Of columns of any types; PySpark's own list knows only those of its types."""
    if spark_connect.is_remote(table.sparkSession):
        return list(table.columns)
    java: Any = table._jdf
    return list(java.columns())


def column_type(table: DataFrame, name: str) -> str:
    """The type of a column, as Spark writes it, whatever it is."""
    if spark_connect.is_remote(table.sparkSession):
        return "of a type that PySpark does not know"
    java: Any = table._jdf
    return str(java.schema().apply(name).dataType().simpleString())


def check_unreadable_columns(table: DataFrame, settings: SourceSettings, left_out: Mapping[str, str]) -> None:
    """Make sure that nothing asks for columns which Spark cannot read.

    Args:
        table: without them.
        settings: that say what is asked for.
        left_out: name -> type of each.

    Raises:
        SourceError: something does; the message has the column's type.
    """
    asked = dict.fromkeys(settings.passthrough, "passthrough")
    asked |= {settings.text_column: "text_column", settings.id_column: "id_column"}
    try:
        if settings.where is not None:
            table.where(settings.where)
    except PySparkException as error:
        # Letter case apart, as Spark takes names; what else may be wrong with the condition is said later.
        named = {name.lower() for name in _IN_BACKQUOTES.findall(str(error).partition("\n")[0])}
        asked |= {name: "where" for name in left_out if name.lower() in named}
    for name, setting in asked.items():
        if name in left_out:
            raise SourceError(
                f"source.{setting}: {name} of {settings.path} is {left_out[name]}, which Spark cannot read; write it as "
                "another type there, a time in microseconds for example and a UUID as text."
            )


def _suggest_columns(name: str, held: list[str]) -> str:
    """What to write in the place of a column that is not there."""
    near = get_close_matches(name, held, 1, _MIN_SIMILARITY)
    more = f" and {len(held) - _MOST_LISTED} more" if len(held) > _MOST_LISTED else ""
    has = f"it has {', '.join(held[:_MOST_LISTED])}{more}"
    return f"{has}; did you mean {near[0]}?" if near else f"{has}."


def check_passthrough(found: list[T.StructField], path: str) -> list[T.StructField]:
    """The carried fields as `entities` is to have them: without what their own table notes of them, comments apart.

    Args:
        found: as the source has them.
        path: of the source, for messages.

    Raises:
        SourceError: one cannot be a column of `entities`.
    """
    taken = {name.lower() for name in schemas.ENTITY_COLUMNS} | _HELPER_COLUMNS
    for field in found:
        name = field.name
        if name.lower() in taken:
            raise SourceError(
                f"source.passthrough: {name} is the name of another column of the entities table, letter case apart; "
                "rename it in a view."
            )
        taken.add(name.lower())
        if any(character in _FORBIDDEN_CHARACTERS for character in _field_names(field.dataType) + name):
            raise SourceError(
                f"source.passthrough: {name} of {path} cannot be a column of the entities table, since "
                "Delta and Parquet allow no blank and none of ,;{}()= in names; rename it in a view."
            )
        if not _is_storable(field.dataType):
            raise SourceError(f"source.passthrough: {_describe_unsupported(name, path, field.dataType.simpleString())}")
    return [strip_metadata(field) for field in found]


def strip_metadata(field: T.StructField) -> T.StructField:
    """A field with its comment, and nothing else that was noted of it or of what is inside it."""
    noted = {_COMMENT: field.metadata[_COMMENT]} if _COMMENT in field.metadata else {}
    return T.StructField(field.name, _strip_type_metadata(field.dataType), field.nullable, noted)


def _strip_type_metadata(kind: T.DataType) -> T.DataType:
    if isinstance(kind, T.StructType):
        return T.StructType([strip_metadata(field) for field in kind])
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(_strip_type_metadata(kind.elementType), kind.containsNull)
    if isinstance(kind, T.MapType):
        return T.MapType(_strip_type_metadata(kind.keyType), _strip_type_metadata(kind.valueType), kind.valueContainsNull)
    return kind


def _is_storable(kind: T.DataType) -> bool:
    if isinstance(kind, T.StructType):
        distinct = {field.name.lower() for field in kind}
        return 0 < len(distinct) == len(kind.fields) and all(_is_storable(field.dataType) for field in kind)
    if isinstance(kind, T.ArrayType):
        return _is_storable(kind.elementType)
    if isinstance(kind, T.MapType):
        return _is_storable(kind.keyType) and _is_storable(kind.valueType)
    return isinstance(kind, _STORABLE_TYPES)


def _describe_unsupported(name: str, path: str, kind: str) -> str:
    return (
        f"{name} of {path} is {kind}, which cannot be a column of the entities table; "
        "cast it in a view (source.format table)."
    )


def _field_names(kind: T.DataType) -> str:
    """All field names inside a type, in one string."""
    if isinstance(kind, T.StructType):
        return "".join(field.name + _field_names(field.dataType) for field in kind)
    if isinstance(kind, T.ArrayType):
        return _field_names(kind.elementType)
    return _field_names(kind.keyType) + _field_names(kind.valueType) if isinstance(kind, T.MapType) else ""
