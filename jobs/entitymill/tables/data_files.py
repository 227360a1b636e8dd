"""Read and list a table's data files in the storage, including files of older table versions and of failed commits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.errors import StorageError
from entitymill.spark import spark_connect, storage
from entitymill.spark.private_session import create_frame
from entitymill.spark.sql_text import escape_pattern
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
FILE = "file"
_READER_OPTIONS = {"recursiveFileLookup": "true", "ignoreMissingFiles": "true", "ignoreCorruptFiles": "true"}
"""Spark options for reading all subdirectories, and for skipping files that are incomplete, or deleted during the read."""
READ_ERRORS = (PySparkException, Py4JJavaError, OSError, StorageError)
"""Errors that `read_all_files`, or an action on its DataFrame, may raise: some catalogs give no access to tables' files."""
_NAMED_FILES = "add struct<path: string>, remove struct<path: string>"
"""Schema, as a DDL string, of the fields of a Delta log that name data files."""
_DAY_MS = timedelta(days=1) / timedelta(milliseconds=1)


def read_all_files(tables: Tables, name: str, schema: str) -> DataFrame:
    """Return the rows of all data files in a table's directory, also deleted rows; the column FILE has the file's name.

    `schema` lists the columns to read as a DDL string; columns that a file lacks are null. With `output.format: parquet`,
    the Parquet export of `entities` is also read.
    """
    directories = [tables.location(name)]
    if name == "entities" and tables.exported and storage.exists(tables.spark, f"{tables.root}/{name}"):
        directories.append(f"{tables.root}/{name}")
    reader = tables.spark.read.options(**_READER_OPTIONS).schema(schema)
    return reader.parquet(*map(escape_pattern, directories)).withColumn(
        FILE, F.substring_index("_metadata.file_path", "/", -1)
    )


def list_files(tables: Tables, name: str) -> list[tuple[str, int, int]] | None:
    """Return the path, size in bytes and modification time in ms of each file in a table's directory.

    Return None on Spark Connect, and if a catalog does not let the program list the files. If the output is a directory that
    cannot be listed, raise OSError or StorageError.
    """
    if spark_connect.is_remote(tables.spark):
        return None
    try:
        return list(storage.list_files(tables.spark, tables.location(name)))
    except (OSError, StorageError):
        if tables.root is not None:
            raise
        return None  # Unity Catalog does not let programs list the directories of tables


def count_old_files(tables: Tables, name: str, files: Sequence[tuple[str, int, int]]) -> int:
    """Return how many of the given data files still exist although the table's current version does not need them.

    VACUUM may keep a file because the clock of the machine that wrote or removed it is ahead. Files in hidden directories
    do not count. `files` has the path, size and modification time of files, as `list_files` returns them.
    """
    root = tables.location(name).rstrip("/")
    listed = {path for path, *_ in files if path.endswith(".parquet")}
    remaining = {path for path, *_ in list_files(tables, name) or () if path in listed}
    parts = (path.rpartition(root)[2].strip("/").removeprefix("_change_data/").split("/") for path in remaining)
    visible = sum(not any(part.startswith(("_", ".")) for part in found) for found in parts)
    tables.forget(name)
    current = tables.detail(name)
    return 0 if current is None else max(0, visible - int(current["numFiles"]))


def select_deletable_files(
    tables: Tables, name: str, files: Sequence[tuple[str, int, int]], id_frame: DataFrame | None
) -> list[tuple[str, int, int]]:
    """Return the files of a table that VACUUM may delete even while another program is working on the table.

    These are all files except data files that are younger than a day and that no commit has added or removed. Another
    program may be about to commit such a file: Delta lets an OPTIMIZE commit its files even if VACUUM has just deleted them.
    Other files of this kind were left by a run that died, or written by Delta for an empty commit.

    Args:
        files: path, size in bytes and modification time in ms of each file in the table's directory; this must include
            the file of a commit that was made just now, because its modification time serves as the current time.
        id_frame: DataFrame with the ids of erased documents in the column doc_id; None if none were erased. A file that
            contains one of the ids is always returned: it must go, and Delta refuses an OPTIMIZE of erased rows.
    """
    kept = _find_uncommitted_files(tables, files)
    if id_frame is not None:
        kept -= _find_files_with_ids(tables, name, kept, id_frame)
    log.info("keeping %d files of %s that are younger than a day and belong to no commit", len(kept), tables.address(name))
    return [file for file in files if _file_name(file[0]) not in kept]


def _find_uncommitted_files(tables: Tables, files: Sequence[tuple[str, int, int]]) -> set[str]:
    """Return the names of the data files that are younger than a day and that no commit has added or removed."""
    logs = {path: modified for path, _, modified in files if "/_delta_log/" in path}
    now = max(logs.values())
    data = {path: modified for path, _, modified in files if path not in logs and "/_change_data/" not in path}
    young = {_file_name(path) for path, time in data.items() if path.endswith(".parquet") and now - time < _DAY_MS}
    if not young:
        return young
    # The commit that added a young file is young, too. If Delta has already deleted that commit's file, a young checkpoint
    # has its content.
    recent = [
        path for path, modified in logs.items() if now - modified < 2 * _DAY_MS and not _file_name(path).startswith(".")
    ]
    names = F.broadcast(create_frame(tables.spark, [(file,) for file in young], f"{FILE} string"))
    for kind in ("json", "parquet"):
        paths = [escape_pattern(path) for path in recent if path.endswith(f".{kind}")]
        if paths:
            actions = tables.spark.read.schema(_NAMED_FILES).format(kind).load(paths)
            named = actions.select(F.substring_index(F.coalesce("add.path", "remove.path"), "/", -1).alias(FILE))
            young -= {row[FILE] for row in named.join(names, FILE, "left_semi").distinct().collect()}
    return young


def _find_files_with_ids(tables: Tables, name: str, files: set[str], id_frame: DataFrame) -> set[str]:
    """Return the names of those data files in `files` that contain any of the ids in the column doc_id of `id_frame`.

    If the files cannot be read, log a warning, and return an empty set. A file that its writer did not complete counts as
    empty.
    """
    if not files or tables.has_mapped_columns(name):  # the files have other names for the columns, so any may contain an id
        return files
    try:
        rows = read_all_files(tables, name, "doc_id string").where(F.col(FILE).isin(*files))
        found = rows.join(F.broadcast(id_frame), "doc_id", "left_semi").select(FILE).distinct().collect()
    except READ_ERRORS as error:
        kind = type(error).__name__
        log.warning(
            "recent files of %s cannot be read (%s); they may still contain the erased documents", tables.address(name), kind
        )
        return set()
    return {row[FILE] for row in found}


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
