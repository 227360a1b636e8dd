"""The data files of a table as they lie on the storage: those of older versions and of commits that failed, too."""

from __future__ import annotations

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.errors import StorageError
from entitymill.spark import spark_connect, storage
from entitymill.tables.layout import Tables

FILE = "file"
_READER_OPTIONS = {"recursiveFileLookup": "true", "ignoreMissingFiles": "true", "ignoreCorruptFiles": "true"}
"""Of Spark's reader: in all directories, whatever is deleted meanwhile, and past what a dead writer left half done."""


def read_all_files(tables: Tables, name: str, schema: str) -> DataFrame:
    """Read some columns of all files below a table's directory, deleted rows included; FILE is the name of each row's file.

    A file that lacks a column has null there. With `output.format: parquet` the export of `entities` counts, too.
    """
    detail = tables.detail(name)
    places = [tables.address(name) if detail is None else str(detail["location"])]
    if name == "entities" and tables.exported and storage.exists(tables.spark, f"{tables.root}/{name}"):
        places.append(f"{tables.root}/{name}")
    reader = tables.spark.read.options(**_READER_OPTIONS).schema(schema)
    return reader.parquet(*places).withColumn(FILE, F.substring_index("_metadata.file_path", "/", -1))


def current_files(tables: Tables, name: str) -> set[str]:
    """Return the names of the files of a table's present version."""
    rows = tables.read(name).select(F.substring_index("_metadata.file_path", "/", -1).alias(FILE)).distinct().collect()
    return {row[FILE] for row in rows}


def delete(tables: Tables, name: str, files: set[str]) -> None:
    """Delete data files of a table by their names, which no version that is to stay readable may need.

    Raises:
        OSError: one cannot be deleted.
    """
    if not files or spark_connect.is_remote(tables.spark):
        return
    detail = tables.detail(name)
    place = tables.address(name) if detail is None else str(detail["location"])
    for address, _, _ in list(storage.list_files(tables.spark, place)):
        if address.rpartition("/")[2] in files:
            storage.remove(tables.spark, address)


READ_ERRORS = (PySparkException, Py4JJavaError, OSError, StorageError)
"""What `read_all_files` may raise, also when its rows are collected: a catalog may give credentials for tables only."""
