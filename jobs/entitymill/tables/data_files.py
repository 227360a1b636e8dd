"""Read and list a table's data files in the storage, including files of older table versions and of failed commits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from entitymill.errors import OutputError, StorageError
from entitymill.spark import spark_connect, storage
from entitymill.spark.private_session import create_frame
from entitymill.spark.sql_text import escape_pattern
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
FILE = "file"
Found = TypeVar("Found")
"""Type of the result of a search."""
_READER_OPTIONS = {"recursiveFileLookup": "true", "ignoreMissingFiles": "true", "pathGlobFilter": "*.parquet"}
"""Spark options: read all subdirectories, without deletion vectors (.bin); skip files that are deleted during the read."""
READ_ERRORS = (PySparkException, Py4JJavaError, OSError, StorageError)
"""Errors that `read_all_files`, or an action on the DataFrame that it returns, raises if the files cannot be read.

For example, some catalogs give programs no access to the files of tables.
"""
_NAMED_FILES = "add struct<path: string>, remove struct<path: string>"
"""DDL schema for reading the files of a Delta log: the paths of the data files that a commit adds or removes."""
_DAY_MS = timedelta(days=1) / timedelta(milliseconds=1)
_LOG_MS = timedelta(days=30) / timedelta(milliseconds=1)
"""Default of `delta.logRetentionDuration`: for how long the Delta log names a data file that a commit has removed."""


def is_in_log(path: str) -> bool:
    """Return whether the file with this path, in a table's directory, belongs to the table's Delta log."""
    return "/_delta_log/" in path


def read_all_files(tables: Tables, name: str, schema: str, *, skip_unreadable: bool) -> DataFrame:
    """Return the rows of all data files in a table's directory, including rows that the table no longer contains.

    The DDL string `schema` names the columns to read; a column that a file lacks is null. A further column, named by the
    constant FILE, has the name of the file that contains the row. If `name` is entities and `output.format` is parquet, the
    files of the Parquet export (the copy of `entities` for readers without Delta) are read, too.

    Some files may be incomplete, because a run was killed, or because another program is still writing them. The storage may
    also fail to return a file. With `skip_unreadable`, Spark skips such files; without it, an action on the DataFrame raises
    one of READ_ERRORS.
    """
    directories = [tables.location(name)]
    if name == "entities" and tables.exported and storage.exists(tables.spark, f"{tables.root}/{name}"):
        directories.append(f"{tables.root}/{name}")
    reader = tables.spark.read.options(**_READER_OPTIONS, ignoreCorruptFiles=skip_unreadable).schema(schema)
    return reader.parquet(*map(escape_pattern, directories)).withColumn(
        FILE, F.substring_index("_metadata.file_path", "/", -1)
    )


def search_with_fallback(tables: Tables, search: Callable[..., Found]) -> tuple[Found, bool]:
    """Call a function that searches data files; return its result, and whether all files could be read.

    If the call raises one of READ_ERRORS, log a warning, and call the function again, so that it skips unreadable files. If
    the second call fails, too, raise its error.

    Args:
        search: function that reads files by `read_all_files`. It passes on its keyword argument `skip_unreadable`.
    """
    try:
        return search(skip_unreadable=False), True
    except READ_ERRORS as error:
        log.warning(
            "some data files of %s cannot be read (%s); they may contain erased documents",
            tables.output,
            type(error).__name__,
        )
    return search(skip_unreadable=True), False


def list_files(tables: Tables, name: str) -> list[tuple[str, int, int]] | None:
    """Return the path, size in bytes and modification time in ms of each file in a table's directory and its subdirectories.

    The files of the Delta log are included. Return None on Spark Connect, and if a catalog does not let the program list the
    files. For a table outside a catalog, raise OSError or StorageError if its directory cannot be listed.
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
    """Return how many data files VACUUM left in a table's directory although the table's current version does not use them.

    VACUUM may keep such a file if the clock of the machine that wrote or removed it is ahead of this machine's clock. The
    result is the number of .parquet files that count and still exist, minus the current version's numFiles, and at least 0.

    Args:
        files: path, size in bytes and modification time in ms of each file that may count, listed before VACUUM. A file does
            not count if its name, or that of a directory between the table's directory and the file, begins with an
            underscore or a full stop. The directory _change_data is an exception.

    Raise OutputError if the table cannot be read, or if `list_files` returns None.
    """
    root = tables.location(name).rstrip("/")
    listed = {path for path, *_ in files if path.endswith(".parquet")}
    now_there = list_files(tables, name)
    remaining = {path for path, *_ in now_there or () if path in listed}
    parts = (path.rpartition(root)[2].strip("/").removeprefix("_change_data/").split("/") for path in remaining)
    visible = sum(not any(part.startswith(("_", ".")) for part in found) for found in parts)
    tables.forget(name)
    current = tables.detail(name)
    if current is None or now_there is None:
        raise OutputError(f"output: {tables.address(name)} cannot be read any more; run again when it can be read.")
    return max(0, visible - int(current["numFiles"]))


def select_deletable_files(
    tables: Tables, name: str, files: Sequence[tuple[str, int, int]], id_frame: DataFrame | None
) -> list[tuple[str, int, int]]:
    """Return those of the given files that VACUUM may delete even while another program is working on the table.

    Two kinds of files are left out if they are younger than a day: data files that no commit has added or removed, and all
    files of deletion vectors. Another program may be about to commit such a file, for example by OPTIMIZE or DELETE. Delta
    would accept this commit even if VACUUM deleted the file. Files of the Delta log and of change data are never left out.

    Args:
        files: path, size in bytes and modification time in ms of each file in the table's directory. The caller must have
            listed the files just after a commit, because the time of the Delta log's newest file serves as the current time.
        id_frame: DataFrame with the ids of erased documents in the column doc_id; None if none were erased. A data file
            that contains one of these ids is never left out, because it must be deleted. This is safe: Delta refuses the
            commit of an OPTIMIZE that has read rows of documents which were erased meanwhile.
    """
    kept = _find_uncommitted_files(tables, files)
    if id_frame is not None:
        kept -= _find_files_with_ids(tables, name, kept, id_frame)
    log.info("keeping %d data files of %s that are less than a day old and in no commit", len(kept), tables.address(name))
    kept |= _select_young(files, ".bin")  # deletion vectors, which contain numbers of rows, and no text
    return [file for file in files if _file_name(file[0]) not in kept]


def select_files_in_log(tables: Tables, name: str, files: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Return the given files that a commit in the Delta log adds or removes, or that are older than 30 days (_LOG_MS).

    Files of the Delta log itself are never returned. A younger data file that is in no commit is left out, because another
    program may be about to commit the file. For an older file, the log may no longer contain the commit that removed it.
    Files of change data and of deletion vectors are not looked up in the log: only those older than 30 days are returned.

    `files` has the path, size in bytes and modification time in ms of each file in the table's directory. The time of the
    Delta log's newest file serves as the current time.
    """
    named = set()
    log_directory = f"{tables.location(name)}/_delta_log"
    for kind in ("json", "parquet"):
        if any(is_in_log(path) and path.endswith(f".{kind}") for path, *_ in files):
            # Another program may delete old files of the log meanwhile. No version of the table needs a data file that only
            # these deleted files name.
            reader = tables.spark.read.option("ignoreMissingFiles", "true").schema(_NAMED_FILES)
            names = _select_names(reader.format(kind).load(f"{escape_pattern(log_directory)}/*.{kind}"))
            named |= {row[FILE] for row in names.dropna().distinct().collect()}
    now = max((modified for path, _, modified in files if is_in_log(path)), default=0)
    data = (file for file in files if not is_in_log(file[0]))
    return [file for file in data if _file_name(file[0]) in named or now - file[2] > _LOG_MS]


def _find_uncommitted_files(tables: Tables, files: Sequence[tuple[str, int, int]]) -> set[str]:
    """Return the names of the data files that are younger than a day and that no commit has added or removed.

    `files` has the path, size in bytes and modification time in ms of each file in the table's directory, including the
    Delta log. The time of the newest file of the Delta log serves as the current time.
    """
    young = _select_young(files, ".parquet")
    if not young:
        return young
    logs = {path: modified for path, _, modified in files if is_in_log(path)}
    now = max(logs.values())
    # The commit that added a young data file is young, too. If Delta has already deleted the commit's file from the log, a
    # young checkpoint contains the commit.
    recent = [
        path for path, modified in logs.items() if now - modified < 2 * _DAY_MS and not _file_name(path).startswith(".")
    ]
    names = F.broadcast(create_frame(tables.spark, [(file,) for file in young], f"{FILE} string"))
    for kind in ("json", "parquet"):
        paths = [escape_pattern(path) for path in recent if path.endswith(f".{kind}")]
        if paths:
            actions = tables.spark.read.schema(_NAMED_FILES).format(kind).load(paths)
            young -= {row[FILE] for row in _select_names(actions).join(names, FILE, "left_semi").distinct().collect()}
    return young


def _select_young(files: Sequence[tuple[str, int, int]], ending: str) -> set[str]:
    """Return the names of the files with this ending that are younger than a day, without log files and change data.

    `files` is as in `select_deletable_files`.
    """
    now = max(modified for path, _, modified in files if is_in_log(path))
    others = {path: modified for path, _, modified in files if not is_in_log(path) and "/_change_data/" not in path}
    return {_file_name(path) for path, time in others.items() if path.endswith(ending) and now - time < _DAY_MS}


def _find_files_with_ids(tables: Tables, name: str, files: set[str], id_frame: DataFrame) -> set[str]:
    """Search the data files named in `files` for the ids in `id_frame`; return the names of the files that contain any.

    `id_frame` has the ids in the column doc_id. If the table has column mapping, the files name this column differently. In
    this case, return all of `files`. A file that cannot be read, perhaps because it is incomplete, counts as empty, and a
    warning is logged. If no file can be read, return an empty set.
    """
    if not files or tables.has_mapped_columns(name):  # the ids cannot be looked up by column name
        return files

    def find(*, skip_unreadable: bool) -> list[Row]:
        rows = read_all_files(tables, name, "doc_id string", skip_unreadable=skip_unreadable).where(F.col(FILE).isin(*files))
        return rows.join(F.broadcast(id_frame), "doc_id", "left_semi").select(FILE).distinct().collect()

    try:
        return {row[FILE] for row in search_with_fallback(tables, find)[0]}
    except READ_ERRORS:
        return set()


def _select_names(actions: DataFrame) -> DataFrame:
    """Return a DataFrame with the column FILE: the name of the data file that each Delta log entry adds or removes, or null.

    `actions` has one row per entry, with the schema _NAMED_FILES.
    """
    return actions.select(F.substring_index(F.coalesce("add.path", "remove.path"), "/", -1).alias(FILE))


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
