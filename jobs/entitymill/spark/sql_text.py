"""Quote names, string literals and paths, so that text from settings cannot act as SQL; check names and conditions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `settings` must not load PySpark
    from pyspark.sql import SparkSession
    from pyspark.sql import types as T

MAX_LEVELS = 3
"""Maximum number of levels in a table's name: catalog, schema and table."""
_QUOTED = re.compile(r"`((?:[^`]|``)+)`(?=\.|$)")
_PLAIN = re.compile(r"[^.`][^.]*")
_GLOB, _ESCAPED = re.compile(r"[\\*?\[\]{}]"), r"\\\g<0>"
"""Special characters in patterns of paths, and their escaped form for Hadoop."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_READ_FUNCTIONS = re.compile(
    r"\b(input_file_name|input_file_block_start|input_file_block_length|spark_partition_id|monotonically_increasing_id)`?\s*\(",
    re.IGNORECASE,
)
"""Matches calls of functions whose result depends on how Spark reads a row, not on its content."""
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def split_name(name: str) -> tuple[str, ...]:
    """Return the levels of a table or schema name, without backquotes; raise ValueError if the name is not valid.

    For example, "main.`a.b`" gives ("main", "a.b").
    """
    levels, at = [], 0
    while True:
        quoted, plain = _QUOTED.match(name, at), _PLAIN.match(name, at)
        if quoted:
            levels.append(quoted[1].replace("``", "`"))
        elif plain:
            levels.append(plain[0])
        match = quoted or plain
        if match is None or _CONTROL.search(match[0]):
            raise ValueError(
                f"{name!r} is not a valid table or schema name: "
                "it has an empty level, an unpaired backquote or a control character"
            )
        at = match.end()
        if at == len(name):
            return tuple(levels)
        at += 1


def check_name(name: str, max_levels: int) -> None:
    """Raise ValueError if a table or schema name is not valid, or has more than `max_levels` levels."""
    levels = len(split_name(name))
    if levels > max_levels:
        raise ValueError(
            f"{name!r} has {levels} levels, but at most {max_levels} are allowed; put names that contain a dot in backquotes"
        )


def quote_name(spark: SparkSession, name: str) -> str:
    """Return a table or schema name with each level in backquotes; omit the catalog if it is Spark's current catalog.

    Open-source Delta supports only names with two levels; Delta on Databricks also supports three levels. Raise ValueError
    if the name is not valid.
    """
    levels = split_name(name)
    if len(levels) == MAX_LEVELS and levels[0] == spark.catalog.currentCatalog():
        levels = levels[1:]
    return ".".join(map(quote_part, levels))


def quote_part(part: str) -> str:
    """Return a column name, or one level of a table name, in backquotes."""
    return "`" + part.replace("`", "``") + "`"


def blank_literals(text: str) -> str:
    """Replace each string literal in SQL text by an empty one, and return the text: `a = 'x'` becomes `a = ''`."""
    return _LITERAL.sub("''", text)


def quote_literal(text: str) -> str:
    """Return a SQL string literal, in quotes, whose value is `text`."""
    # Spark substitutes ${property} everywhere in SQL, even in literals, before it parses the SQL.
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\u0024{")
    return f"'{escaped}'"


def type_to_sql(kind: T.DataType) -> str:
    """Return the Spark type `kind` as SQL text; unlike in Spark's simpleString(), names of fields are in backquotes."""
    from pyspark.sql import types as T  # noqa: PLC0415  # `settings` must not load PySpark

    if isinstance(kind, T.StructType):
        return f"struct<{', '.join(f'{quote_part(field.name)}: {type_to_sql(field.dataType)}' for field in kind)}>"
    if isinstance(kind, T.ArrayType):
        return f"array<{type_to_sql(kind.elementType)}>"
    if isinstance(kind, T.MapType):
        return f"map<{type_to_sql(kind.keyType)}, {type_to_sql(kind.valueType)}>"
    return kind.simpleString()


def check_condition(where: str) -> None:
    """Raise ValueError if an SQL condition calls a function, such as `input_file_name`, whose result may differ in each run.

    _READ_FUNCTIONS lists these functions. Their names are allowed inside string literals.
    """
    found = _READ_FUNCTIONS.search(_LITERAL.sub("''", where))
    if found:
        raise ValueError(
            f"{found[1]}() depends on how Spark reads a row, which differs between runs, and not on the row's content; "
            "use only columns of the source"
        )


def escape_pattern(path: str) -> str:
    """Escape the wildcards in a path, so that Hadoop and Spark's readers, which expect a pattern, match only this path."""
    return _GLOB.sub(_ESCAPED, path)
