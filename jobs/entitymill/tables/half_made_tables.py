"""What a run that died left where a table was being made or removed."""

from __future__ import annotations

import time

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from entitymill.errors import OutputError
from entitymill.platform import spark_connect, storage
from entitymill.platform.sql_text import MOST_LEVELS, parts, quoted_part

_SESSION_CATALOG = "spark_catalog"


def half_made(spark: SparkSession, directory: str) -> bool:
    """Whether a Delta table's directory is there, but not its first commit, nor anything else of it."""
    log = f"{directory}/_delta_log"
    if storage.exists(spark, f"{log}/{0:020}.json") or not storage.exists(spark, log):
        return False
    # The log alone first: of an old table the first commits are gone, and its data are many files.
    if storage.names(spark, f"{log}/*.json"):
        return False
    return not any(file.endswith((".parquet", ".json")) for file, *_ in storage.files(spark, directory))


def discard(spark: SparkSession, directory: str, *, by_renaming: bool) -> None:
    """Delete a directory; what a death leaves of it is not taken for a table.

    Args:
        directory: to delete, if it is there.
        by_renaming: whether it gets another name first; object stores delete in order of name, a Delta log from its start.
    """
    if by_renaming:
        parent, _, name = directory.rpartition("/")
        aside = f"{parent}/_gone_{name}"
        storage.remove(spark, aside)
        if storage.exists(spark, directory) and storage.rename(spark, directory, aside):
            storage.remove(spark, aside)
            return
    storage.remove(spark, directory)


def clear(spark: SparkSession, name: str, *, hidden: bool, quiet_seconds: float = 0) -> None:
    """Remove the files of a managed table that the catalog does not know; its maker, or remover, died in between.

    Args:
        name: catalog, schema, table: as Settings have it.
        hidden: whether the table is nobody's but this program's.
        quiet_seconds: how long nobody must have written there; 0 where no other run can be at it.

    Raises:
        OutputError: there are some that may be worth something.
    """
    place = _default_place(spark, name)
    if place is None or not storage.exists(spark, place):
        return
    files = list(storage.files(spark, place))
    if quiet_seconds and any(modified / 1000 > time.time() - quiet_seconds for *_, modified in files):
        raise OutputError(f"output.schema: {name} is just being made by another run; run again in a minute.")
    if not hidden and files and not half_made(spark, place):
        raise OutputError(
            f"output.schema: {name} is not in the catalog, but its files are: a run died while it made the table, or "
            f"somebody dropped it; move {place} away and run again."
        )
    storage.remove(spark, place)


def _default_place(spark: SparkSession, name: str) -> str | None:
    """Where the session catalog puts a managed table; none for others, which give each table one."""
    if spark_connect.remote(spark):
        return None
    levels = parts(name)
    catalog = levels[0] if len(levels) == MOST_LEVELS else spark.catalog.currentCatalog()
    if catalog != _SESSION_CATALOG:
        return None
    state = spark._jsparkSession.sessionState()
    try:
        identifier = state.sqlParser().parseTableIdentifier(".".join(map(quoted_part, levels[-2:])))
        place = state.catalog().defaultTablePath(identifier)
        return str(spark.sparkContext._jvm.org.apache.hadoop.fs.Path(place).toString())  # type: ignore[union-attr]
    except (PySparkException, Py4JJavaError):
        return None
