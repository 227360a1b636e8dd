"""Find and remove half-made tables: directories that a run left behind when it died while it was creating a table.

Such a directory is empty, or has a Delta log without commits. In a catalog, the log may have the commit that created the
table.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from entitymill.errors import OutputError
from entitymill.spark import session, spark_connect, storage
from entitymill.spark.sql_text import MAX_LEVELS, quote_part, split_name

_SESSION_CATALOG = "spark_catalog"
_FIRST_COMMIT = f"{0:020}.json"


def is_half_made(spark: SparkSession, directory: str) -> bool:
    """Return whether a directory is a half-made table: it is empty, or has a Delta log without commits and no data files."""
    log = f"{directory}/_delta_log"
    if storage.exists(spark, f"{log}/{_FIRST_COMMIT}"):
        return False
    if not storage.exists(spark, log):  # a run may have died after `clear_log`
        return not storage.list_names(spark, f"{directory}/*") and not any(storage.list_files(spark, directory))
    # Look at the log first: an old table no longer has its first commits, and listing its data files would take long.
    if storage.list_names(spark, f"{log}/*.json"):
        return False
    return not any(file.endswith((".parquet", ".json")) for file, *_ in storage.list_files(spark, directory))


def clear_log(spark: SparkSession, directory: str) -> None:
    """Delete the empty Delta log of a half-made table, because Delta would treat the directory as a table.

    Only temporary files and empty directories are deleted, so a table that another run is creating right now survives.
    """
    log = f"{directory}/_delta_log"
    for name in storage.list_names(spark, f"{log}/.*"):
        if name.endswith((".tmp", ".crc")):
            storage.remove(spark, f"{log}/{name}")
    for empty in (f"{log}/_commits", log):
        storage.remove_empty(spark, empty)


def clear_in_catalog(spark: SparkSession, name: str, mark: str, *, quiet_seconds: float = 0) -> None:
    """Remove what a run that died left in the default directory of a managed table that is missing in the catalog.

    Only an empty Delta log, or one whose only commit created the table, is removed. If the directory does not exist or is
    unknown, nothing happens.

    Args:
        name: full name of the table (catalog, schema, table), as in the settings.
        mark: text by which the first commit of this program's tables is recognized.
        quiet_seconds: if a file is younger than this, another run may be creating the table; 0 turns off this check.

    Raises:
        OutputError: another run may be creating the table, or the directory contains data or other commits.
    """
    directory = _find_default_directory(spark, name)
    if directory is None or not storage.exists(spark, directory):
        return
    files = list(storage.list_files(spark, directory))
    if quiet_seconds and any(modified / 1000 > time.time() - quiet_seconds for *_, modified in files):
        raise OutputError(f"output.schema: another run is creating {name} right now; run again in a minute.")
    if _is_only_created(spark, directory, mark):
        storage.remove(spark, f"{directory}/_delta_log/{_FIRST_COMMIT}")
    elif files and not is_half_made(spark, directory):
        raise OutputError(
            f"output.schema: {name} is not in the catalog, but its files are still in {directory}: a run died while it was "
            f"creating the table, or somebody dropped the table. Move {directory} away, then run again."
        )
    clear_log(spark, directory)


def _is_only_created(spark: SparkSession, directory: str, mark: str) -> bool:
    """Return whether a directory has no data files, and its only commit is the first one and contains the text `mark`."""
    if storage.list_names(spark, f"{directory}/_delta_log/*.json") != [_FIRST_COMMIT]:
        return False
    if any(file.endswith(".parquet") for file, *_ in storage.list_files(spark, directory)):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        commit = Path(scratch) / _FIRST_COMMIT
        storage.fetch(spark, f"{directory}/_delta_log/{_FIRST_COMMIT}", commit)
        return mark in commit.read_text(encoding="utf8")


def _find_default_directory(spark: SparkSession, name: str) -> str | None:
    """Return the directory that Spark's session catalog gives a new table; None for other catalogs and on Spark Connect."""
    if spark_connect.is_remote(spark):
        return None
    levels = split_name(name)
    catalog = levels[0] if len(levels) == MAX_LEVELS else spark.catalog.currentCatalog()
    if catalog != _SESSION_CATALOG:  # other catalogs choose a new directory for each table
        return None
    state = spark._jsparkSession.sessionState()
    try:
        identifier = state.sqlParser().parseTableIdentifier(".".join(map(quote_part, levels[-2:])))
        directory = state.catalog().defaultTablePath(identifier)
        return str(session.get_class(spark, session.HADOOP_PATH)(directory).toString())
    except (PySparkException, Py4JJavaError):
        return None
