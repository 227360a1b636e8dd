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
"""Spark options that read all subdirectories, and skip files that are deleted during the read or that a killed run left
incomplete."""


def read_all_files(tables: Tables, name: str, schema: str) -> DataFrame:
    """Return the rows of all data files in a table's directory, including deleted rows; the column FILE names the data file.

    Columns that a file lacks are null. With `output.format: parquet`, the Parquet export of `entities` is read, too.

    Args:
        tables: the output's tables.
        name: name of the table.
        schema: columns to read, as a DDL string.
    """
    places = [tables.location(name)]
    if name == "entities" and tables.exported and storage.exists(tables.spark, f"{tables.root}/{name}"):
        places.append(f"{tables.root}/{name}")
    reader = tables.spark.read.options(**_READER_OPTIONS).schema(schema)
    return reader.parquet(*places).withColumn(FILE, F.substring_index("_metadata.file_path", "/", -1))


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
    """Delete data files of a table by file name; table versions that refer to these files become unreadable.

    On Spark Connect, which gives no access to files, this function does nothing.

    Raises:
        OSError: a file cannot be deleted.
    """
    if not files or spark_connect.is_remote(tables.spark):
        return
    for address, _, _ in list(storage.list_files(tables.spark, tables.location(name))):
        if address.rpartition("/")[2] in files:
            storage.remove(tables.spark, address)


READ_ERRORS = (PySparkException, Py4JJavaError, OSError, StorageError)
"""Errors that `read_all_files` or reading its result may raise: some catalogs do not give access to the files of tables."""
