"""Read a table's data files directly from the storage, including files of older versions and of failed commits."""

from __future__ import annotations

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.errors import StorageError
from entitymill.spark import spark_connect, storage
from entitymill.tables.output_tables import Tables

FILE = "file"
_READER_OPTIONS = {"recursiveFileLookup": "true", "ignoreMissingFiles": "true", "ignoreCorruptFiles": "true"}
"""Spark options for reading all subdirectories, and for skipping files that are deleted during the read or incomplete."""


def read_all_files(tables: Tables, name: str, schema: str) -> DataFrame:
    """Return the rows of all data files in a table's directory, including deleted rows; the column FILE names their file.

    Columns that a file lacks are null. With `output.format: parquet`, the Parquet export of `entities` is also read.

    Args:
        tables: tables of the output.
        name: name of the table.
        schema: columns to read, as a DDL string.
    """
    directories = [tables.location(name)]
    if name == "entities" and tables.exported and storage.exists(tables.spark, f"{tables.root}/{name}"):
        directories.append(f"{tables.root}/{name}")
    reader = tables.spark.read.options(**_READER_OPTIONS).schema(schema)
    return reader.parquet(*directories).withColumn(FILE, F.substring_index("_metadata.file_path", "/", -1))


def list_files(tables: Tables, name: str) -> set[str]:
    """Return the names of all files in a table's directory; an empty set on Spark Connect, which gives no access to files.

    Raises:
        OSError: the directory cannot be listed.
    """
    if spark_connect.is_remote(tables.spark):
        return set()
    return {address.rpartition("/")[2] for address, _, _ in storage.list_files(tables.spark, tables.location(name))}


def list_current_files(tables: Tables, name: str) -> set[str]:
    """Return the names of the data files of a table's current version."""
    rows = tables.read(name).select(F.substring_index("_metadata.file_path", "/", -1).alias(FILE)).distinct().collect()
    return {row[FILE] for row in rows}


def delete_files(tables: Tables, name: str, files: set[str]) -> None:
    """Delete data files of a table by file name; table versions that refer to them become unreadable.

    On Spark Connect, which gives no access to files, do nothing.

    Raises:
        OSError: a file cannot be deleted.
    """
    if not files or spark_connect.is_remote(tables.spark):
        return
    for address, _, _ in list(storage.list_files(tables.spark, tables.location(name))):
        if address.rpartition("/")[2] in files:
            storage.remove(tables.spark, address)


READ_ERRORS = (PySparkException, Py4JJavaError, OSError, StorageError)
"""Errors that `read_all_files`, or an action on its result, may raise: some catalogs give no access to files of tables."""
