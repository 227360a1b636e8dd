"""Apply the condition `source.where`, and find out whether it may later select other rows."""

from __future__ import annotations

import re

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession, functions

from entitymill.errors import SourceError
from entitymill.settings.sections import SourceSettings
from entitymill.source import unreadable_source
from entitymill.spark.sql_text import blank_literals

_NONDETERMINISTIC = re.compile(
    r"\b(current_\w+|curdate|getdate|now|today|yesterday|tomorrow|localtimestamp|unix_timestamp|rand\w*|uuid|select|_metadata)\b"
    r"|\b(session_)?user\s*\(|\bin\s*\(\s*table\b",
    re.IGNORECASE,
)
"""Matches parts of a condition that may select other rows each time: functions that return times, random values or the user,
special dates such as DATE 'yesterday', subqueries, and the column _metadata."""
_FUNCTION = re.compile(r"([a-z_]\w*`?\s*\.\s*)?`?\b([a-z_]\w*)`?\s*\(", re.IGNORECASE)
"""Matches the name of a function and its opening parenthesis; the first group matches if a schema is named."""
_KEYWORDS = frozenset({"all", "and", "any", "between", "case", "else", "in", "like", "not", "or", "some", "then", "when"})
"""Keywords that may precede a parenthesis, in addition to functions."""


def is_nondeterministic(spark: SparkSession, where: str | None) -> bool:
    """Return whether a condition may later select other rows, even if no row has changed.

    It may if it depends on time, random numbers, other tables, metadata of the data files, or a function of a user.
    """
    return where is not None and (has_nondeterministic_part(where) or _calls_user_function(spark, where))


def has_nondeterministic_part(where: str) -> bool:
    """Return whether a condition contains a word, such as `now`, that usually makes it depend on more than the row.

    Words in string literals and in names of columns count, too.
    """
    return _NONDETERMINISTIC.search(where) is not None


def _calls_user_function(spark: SparkSession, where: str) -> bool:
    """Return whether a condition calls a function that a user has defined: it may depend on time or on other tables.

    A function whose schema is named always counts as defined by a user.
    """
    calls = list(_FUNCTION.finditer(blank_literals(where)))
    if any(call[1] for call in calls):
        return True
    called = {call[2].casefold() for call in calls} - _KEYWORDS
    # What `pyspark.sql.functions` has is Spark's own, and needs no look into the catalog.
    called = {name for name in called if not hasattr(functions, name)}
    try:
        defined = spark.sql("SHOW USER FUNCTIONS").collect() if called else []
    except PySparkException:  # a catalog without functions, or whose functions this user may not list
        return True
    return not called.isdisjoint(row["function"].rpartition(".")[2].casefold() for row in defined)


def apply_condition(table: DataFrame, settings: SourceSettings) -> DataFrame:
    """Return the rows that meet `source.where`, all rows if it is not set; raise SourceError if the condition is invalid."""
    if settings.where is None:
        return table
    try:
        return table.where(settings.where)
    except PySparkException as error:
        reason = unreadable_source.summarize_error(error)
        raise SourceError(
            f"source.where: {settings.where!r} is not a valid condition on {settings.path}: {reason}."
        ) from error
