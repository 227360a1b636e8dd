"""What a run that died left where it created a table: a directory without a first commit."""

from __future__ import annotations

import time

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from entitymill.errors import OutputError
from entitymill.spark import spark_connect, storage
from entitymill.spark.sql_text import MOST_LEVELS, quote_part, split_name

_SESSION_CATALOG = "spark_catalog"


def is_half_made(spark: SparkSession, directory: str) -> bool:
    """Whether a Delta table's directory is there, but not its first commit, nor anything else of it."""
    log = f"{directory}/_delta_log"
    if storage.exists(spark, f"{log}/{0:020}.json") or not storage.exists(spark, log):
        return False
    # First only the log: of an old table the first commits are gone, and its data are many files.
    if storage.list_names(spark, f"{log}/*.json"):
        return False
    return not any(file.endswith((".parquet", ".json")) for file, *_ in storage.list_files(spark, directory))


def clear_log(spark: SparkSession, directory: str) -> None:
    """Delete the empty log of a half made table, which Delta takes for a table.

    Another run may be creating this very table: only unfinished files and an empty directory are deleted, so a table that
    was created meanwhile stays.
    """
    log = f"{directory}/_delta_log"
    for name in storage.list_names(spark, f"{log}/.*"):
        if name.endswith((".tmp", ".crc")):
            storage.remove(spark, f"{log}/{name}")
    for place in (f"{log}/_commits", log):
        storage.remove_empty(spark, place)


def clear_in_catalog(spark: SparkSession, name: str, *, quiet_seconds: float = 0) -> None:
    """Make way for a managed table whose files are there, but which the catalog does not know.

    Args:
        name: catalog, schema, table: as Settings have it.
        quiet_seconds: how long nobody must have written there; 0 where no other run can be creating it.

    Raises:
        OutputError: there are files that may be worth something.
    """
    place = _default_place(spark, name)
    if place is None or not storage.exists(spark, place):
        return
    files = list(storage.list_files(spark, place))
    if quiet_seconds and any(modified / 1000 > time.time() - quiet_seconds for *_, modified in files):
        raise OutputError(f"output.schema: another run is just creating {name}; run again in a minute.")
    if files and not is_half_made(spark, place):
        raise OutputError(
            f"output.schema: {name} is not in the catalog, but its files are: a run died while it created the table, or "
            f"somebody dropped it; move {place} away and run again."
        )
    clear_log(spark, place)


def _default_place(spark: SparkSession, name: str) -> str | None:
    """Return where the session catalog puts a managed table; None for others, which give each table a place of its own."""
    if spark_connect.is_remote(spark):
        return None
    levels = split_name(name)
    catalog = levels[0] if len(levels) == MOST_LEVELS else spark.catalog.currentCatalog()
    if catalog != _SESSION_CATALOG:
        return None
    state = spark._jsparkSession.sessionState()
    try:
        identifier = state.sqlParser().parseTableIdentifier(".".join(map(quote_part, levels[-2:])))
        place = state.catalog().defaultTablePath(identifier)
        return str(spark.sparkContext._jvm.org.apache.hadoop.fs.Path(place).toString())  # type: ignore[union-attr]
    except (PySparkException, Py4JJavaError):
        return None
