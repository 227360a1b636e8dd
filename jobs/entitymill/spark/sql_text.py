"""Names of tables and columns, quoted, so that nothing a setting names is ever read as SQL; and what a condition may ask."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # settings need the names alone
    from pyspark.sql import SparkSession
    from pyspark.sql import types as T  # settings need the names alone

MOST_LEVELS = 3
"""Catalog, schema and table."""
_QUOTED = re.compile(r"`((?:[^`]|``)+)`(?=\.|$)")
_PLAIN = re.compile(r"[^.`][^.]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_READ_FUNCTIONS = re.compile(
    r"\b(input_file_name|input_file_block_start|input_file_block_length|spark_partition_id|monotonically_increasing_id)`?\s*\(",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def split_name(name: str) -> tuple[str, ...]:
    """The levels of a name as SQL writes it: with dots between them, one that holds a dot itself in backquotes.

    Raises:
        ValueError: it is no name.
    """
    found, at = [], 0
    while True:
        quoted_one, plain_one = _QUOTED.match(name, at), _PLAIN.match(name, at)
        if quoted_one:
            found.append(quoted_one[1].replace("``", "`"))
        elif plain_one:
            found.append(plain_one[0])
        match = quoted_one or plain_one
        if match is None or _CONTROL.search(match[0]):
            raise ValueError(
                f"{name!r} is no table's or schema's name: an empty level, a lone backquote or a control character"
            )
        at = match.end()
        if at == len(name):
            return tuple(found)
        at += 1


def check_name(name: str, most: int) -> None:
    """Make sure that a name has no more levels than it may have.

    Raises:
        ValueError: it has, or is no name.
    """
    found = split_name(name)
    if len(found) > most:
        raise ValueError(f"{name!r} has {len(found)} levels, {most} are the most; put one that holds a dot in backquotes")


def quote_name(spark: SparkSession, name: str) -> str:
    """A name, each level quoted, without the catalog where that is the current one.

    Open-source Delta finds and makes tables by names of two levels alone; Databricks' own takes three.

    Raises:
        ValueError: it is no name.
    """
    found = split_name(name)
    if len(found) == MOST_LEVELS and found[0] == spark.catalog.currentCatalog():
        found = found[1:]
    return ".".join(map(quote_part, found))


def quote_part(part: str) -> str:
    """One level of a name, or a column, quoted."""
    return "`" + part.replace("`", "``") + "`"


def quote_literal(text: str) -> str:
    """A text as SQL writes it."""
    # Spark puts a property in the place of ${its name} in all SQL, before it reads what is quoted.
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\u0024{")
    return f"'{escaped}'"


def type_to_sql(kind: T.DataType) -> str:
    """A type as SQL writes it, the names of its fields quoted; simpleString() quotes none."""
    from pyspark.sql import types as T  # noqa: PLC0415  # settings need the names alone

    if isinstance(kind, T.StructType):
        return f"struct<{', '.join(f'{quote_part(field.name)}: {type_to_sql(field.dataType)}' for field in kind)}>"
    if isinstance(kind, T.ArrayType):
        return f"array<{type_to_sql(kind.elementType)}>"
    if isinstance(kind, T.MapType):
        return f"map<{type_to_sql(kind.keyType)}, {type_to_sql(kind.valueType)}>"
    return kind.simpleString()


def check_condition(where: str) -> None:
    """Refuse a condition on files and tasks, which holds for other rows in every run.

    Raises:
        ValueError: it asks for one of them; what it compares with, in quotes, may be called so.
    """
    found = _READ_FUNCTIONS.search(_LITERAL.sub("''", where))
    if found:
        raise ValueError(
            f"{found[1]}() tells how a row is read, which is another way in every run, and not what is in it: "
            "name columns of the source alone"
        )
