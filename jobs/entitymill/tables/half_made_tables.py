"""Clean up half-made tables: directories that a run left behind when it died while it was creating a table.

A half-made table is a directory that is empty, or that has no data files and a Delta log without commits. This module
deletes the log, so that Delta can create the table. In a catalog, the run may also have died after the commit that created
the table, but before it added the table to the catalog. In this case, this module adds the table.
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
from entitymill.spark.files_on_this_machine import open_private_directory
from entitymill.spark.sql_text import MAX_LEVELS, quote_literal, quote_name, quote_part, split_name

_SESSION_CATALOG = "spark_catalog"
_FIRST_COMMIT = f"{0:020}.json"


def is_half_made(spark: SparkSession, directory: str) -> bool:
    """Return whether a directory is a half-made table: it is empty, or has no data files and a Delta log without commits."""
    log = f"{directory}/_delta_log"
    if storage.exists(spark, f"{log}/{_FIRST_COMMIT}"):
        return False
    if not storage.exists(spark, log):  # a run may have died after `clear_log`
        return not storage.list_names(spark, f"{directory}/*") and not any(storage.list_files(spark, directory))
    # Look for later commits first: an old table no longer has its first commit, and listing its data files would take long.
    if storage.list_names(spark, f"{log}/*.json"):
        return False
    return not any(file.endswith((".parquet", ".json")) for file, *_ in storage.list_files(spark, directory))


def clear_log(spark: SparkSession, directory: str) -> None:
    """Delete a half-made table's Delta log, because Delta would treat a directory with a log as an existing table.

    Only temporary files and empty directories are deleted, so a table that another run is creating right now loses nothing.
    """
    log = f"{directory}/_delta_log"
    for name in storage.list_names(spark, f"{log}/.*"):
        if name.endswith((".tmp", ".crc")):
            storage.remove(spark, f"{log}/{name}")
    for empty in (f"{log}/_commits", f"{log}/_staged_commits", log):  # Delta 3 makes _commits, Delta 4 _staged_commits
        storage.remove_empty(spark, empty)


def recover_in_catalog(spark: SparkSession, name: str, mark: str, *, quiet_seconds: float = 0) -> bool:
    """Clean up the directory of a table that a dead run did not finish creating in a catalog, so that a run can create it.

    The directory is the one that the catalog gives the table by default. If its Delta log has no commits, the log is
    deleted. If the log's only commit created the table, the table is added to the catalog, as an external table in this
    directory. Only in this case, return True. If the directory does not exist or is unknown, nothing happens.

    Args:
        name: full name of the table (catalog, schema, table), as in the settings.
        mark: text that shows that this program made a commit; the commit that created the table must contain it.
        quiet_seconds: minimum age, in seconds, of the files in the directory. If a file is younger, raise OutputError,
            because another run may still be creating the table. 0 turns off this check.

    Raises:
        OutputError: another run may be creating the table; or the directory contains data files, a commit without `mark`, or
            several commits.
    """
    directory = _find_default_directory(spark, name)
    if directory is None or not storage.exists(spark, directory):
        return False
    files = list(storage.list_files(spark, directory))
    if quiet_seconds and any(modified / 1000 > time.time() - quiet_seconds for *_, modified in files):
        raise OutputError(f"output.schema: another run is creating {name} right now; run again in a minute.")
    if _has_only_creation_commit(spark, directory, mark):  # keep the commit: another run may have added the table
        spark.sql(f"CREATE TABLE IF NOT EXISTS {quote_name(spark, name)} USING delta LOCATION {quote_literal(directory)}")
        return True
    if files and not is_half_made(spark, directory):
        raise OutputError(
            f"output.schema: {name} is not in the catalog, but its files are still in {directory}: a run died while it was "
            f"creating the table, or somebody dropped the table. Move {directory} away, then run again."
        )
    clear_log(spark, directory)
    return False


def _has_only_creation_commit(spark: SparkSession, directory: str, mark: str) -> bool:
    """Return whether a directory has no data files and only one commit, which has version 0 and contains the text `mark`."""
    if storage.list_names(spark, f"{directory}/_delta_log/*.json") != [_FIRST_COMMIT]:
        return False
    if any(file.endswith(".parquet") for file, *_ in storage.list_files(spark, directory)):
        return False
    with tempfile.TemporaryDirectory(dir=open_private_directory()) as scratch:
        commit = Path(scratch) / _FIRST_COMMIT
        storage.fetch(spark, f"{directory}/_delta_log/{_FIRST_COMMIT}", commit)
        return mark in commit.read_text(encoding="utf8")


def _find_default_directory(spark: SparkSession, name: str) -> str | None:
    """Return the directory in which Spark's session catalog would create a table of this name.

    Return None if the name belongs to any other catalog or is invalid, and on Spark Connect.
    """
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
