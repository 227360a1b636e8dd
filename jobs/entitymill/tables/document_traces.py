"""Find what is left of erased documents: their ids in the `runs` table, and their rows in data files of older versions.

In `runs`, ids may be in the `error` column, and in `source.where` of the `settings` column. Data files are read directly
from the storage, including those of failed commits.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.errors import StorageError
from entitymill.spark import spark_connect, storage
from entitymill.spark.private_session import create_frame
from entitymill.tables import sql_changes
from entitymill.tables.numbered_commits import retry
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
FILE = "file"
_READER_OPTIONS = {"recursiveFileLookup": "true", "ignoreMissingFiles": "true", "ignoreCorruptFiles": "true"}
"""Spark options for reading all subdirectories, and for skipping files that are deleted during the read or incomplete."""
READ_ERRORS = (PySparkException, Py4JJavaError, OSError, StorageError)
"""Errors that `read_all_files`, or an action on its result, may raise: some catalogs give no access to files of tables."""
_NAMED_FILES = "add struct<path: string>, remove struct<path: string>"
"""The parts of a Delta log that name data files, as a schema."""
_DAY_MS = timedelta(days=1) / timedelta(milliseconds=1)
ERASED = "erased: the message named an erased document."
ERASED_CONDITION = "erased: the condition named an erased document."
_COLUMNS = "run_id string, error string, settings string"


class IdFinder:
    """Finds document ids in texts: verbatim, or escaped as in Python messages and JSON, but not as part of a longer word."""

    def __init__(self, ids: Iterable[str]) -> None:
        """Prepare the verbatim and escaped forms of the document ids to find."""
        self._forms = [(id_, form) for id_ in ids for form in {id_, repr(id_)[1:-1], json.dumps(id_)[1:-1]}]

    def narrow_to(self, texts: Iterable[str | None]) -> IdFinder:
        """Return a faster finder that searches only for those document ids that occur in any of the texts.

        This ignores word boundaries, so the new finder may have ids that `find` finds in none of the texts.
        """
        everything = "\0".join(text for text in texts if text)
        found = IdFinder(())
        found._forms = [(id_, form) for id_, form in self._forms if form in everything]
        return found

    def find(self, text: str | None) -> set[str]:
        """Return the document ids that occur in a text, but not as part of a longer word; an empty set for None."""
        if not text:
            return set()
        return {id_ for id_, form in self._forms if form in text and _compile_word(form).search(text)}


def _compile_word(form: str) -> re.Pattern[str]:
    """Return a pattern that matches a form of an id, but not as part of a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", form) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", form) else ""
    return re.compile(before + re.escape(form) + after)


def count_rows_by_id(tables: Tables, ids: Sequence[str]) -> dict[str, int]:
    """Return doc_id -> number of rows of `runs` with the id in `error` or `source.where`, for ids that occur there."""
    return dict(Counter(id_ for _, found in _find_rows(tables.read_latest("runs"), ids) for id_ in found))


def find_stale_files(tables: Tables, ids: Sequence[str]) -> set[str]:
    """Return the names of the data files of older versions of `runs` that contain any of the document ids.

    Files of failed commits are included; files of the current version are not.
    """
    if tables.has_mapped_columns("runs"):  # the files have other names for the columns, so any of them may contain an id
        found = {name for name in list_files(tables) if name.endswith(".parquet")}
    else:
        rows = _find_rows(read_all_files(tables, "runs", _COLUMNS), ids)
        found = {row[FILE] for row, _ in rows}
    # The current files are listed last, so that a file that another run has just committed does not count as stale.
    return found - list_current_files(tables, "runs")


def list_files(tables: Tables) -> set[str]:
    """Return the names of all files of `runs`; an empty set, with a warning in the log, if they cannot be listed."""
    try:
        return _list_table_files(tables, "runs")
    except READ_ERRORS as error:
        _warn_about_old_files(tables, error)
        return set()


def erase_ids(tables: Tables, ids: Sequence[str], older_files: set[str]) -> None:
    """Erase document ids from `runs`: overwrite the messages that contain one, then delete the data files with the old rows.

    A message is the `error` column, replaced by ERASED, or `source.where` in the settings, replaced by ERASED_CONDITION.

    Args:
        older_files: result of `list_files` before this erasure took its lease. A newer file is deleted only if this function
            has replaced it: another run may be about to commit it.
    """
    current = list_current_files(tables, "runs")
    changed = {}
    for row, found in _find_rows(tables.read_latest("runs"), ids):
        finder = IdFinder(found)
        error = ERASED if finder.find(row["error"]) else row["error"]
        changed[row["run_id"]] = (row["run_id"], error, _erase_condition(row["settings"], finder))
    if changed:
        frame = create_frame(tables.spark, list(changed.values()), _COLUMNS)

        def build_statement(view: str) -> str:
            return (
                f"MERGE INTO {tables.sql_name('runs')} AS t USING {view} AS s ON t.run_id = s.run_id "
                "WHEN MATCHED THEN UPDATE SET t.error = s.error, t.settings = s.settings"
            )

        retry("runs", lambda: sql_changes.run_with_view(tables, frame, build_statement))
    # VACUUM would be unsafe: other runs may be writing `runs`, and VACUUM would delete their uncommitted files.
    try:
        delete_files(tables, "runs", find_stale_files(tables, ids) & (older_files | current))
    except READ_ERRORS as error:
        _warn_about_old_files(tables, error)


def _warn_about_old_files(tables: Tables, error: Exception) -> None:
    log.warning(
        "old files of `runs` of %s cannot be deleted (%s); they may contain ids of erased documents",
        tables.output,
        type(error).__name__,
    )


def _find_rows(runs: DataFrame, ids: Sequence[str]) -> list[tuple[dict[str, str], set[str]]]:
    """Return (row, ids in it) for each distinct row whose `error` or `source.where` contains any of the ids."""
    rows = runs.withColumn("where", F.get_json_object("settings", "$.source.where"))
    rows = rows.where(F.col("error").isNotNull() | F.col("where").isNotNull())
    chosen = [name for name in ("run_id", "error", "settings", "where", FILE) if name in rows.columns]
    held = [row.asDict() for row in rows.select(*chosen).distinct().collect()]
    finder = IdFinder(ids).narrow_to(text for row in held for text in (row["error"], row["where"]))
    named = [(row, finder.find(row["error"]) | finder.find(row["where"])) for row in held]
    return [(row, found) for row, found in named if found]


def _erase_condition(settings: str | None, finder: IdFinder) -> str | None:
    """Return a run's settings (JSON), with ERASED_CONDITION in place of a `source.where` that contains an id."""
    if settings is None:
        return None
    loaded = json.loads(settings)
    if not finder.find(loaded.get("source", {}).get("where")):
        return settings
    loaded["source"]["where"] = ERASED_CONDITION
    return json.dumps(loaded)


def read_all_files(tables: Tables, name: str, schema: str) -> DataFrame:
    """Return the rows of all data files in a table's directory, including deleted rows; the column FILE names their file.

    `schema` lists the columns to read as a DDL string; columns that a file lacks are null. With `output.format: parquet`,
    the Parquet export of `entities` is also read.
    """
    directories = [tables.location(name)]
    if name == "entities" and tables.exported and storage.exists(tables.spark, f"{tables.root}/{name}"):
        directories.append(f"{tables.root}/{name}")
    reader = tables.spark.read.options(**_READER_OPTIONS).schema(schema)
    return reader.parquet(*directories).withColumn(FILE, F.substring_index("_metadata.file_path", "/", -1))


def _list_table_files(tables: Tables, name: str) -> set[str]:
    """Return the names of all files in a table's directory; on Spark Connect, which cannot list them, an empty set."""
    if spark_connect.is_remote(tables.spark):
        return set()
    return {address.rpartition("/")[2] for address, _, _ in storage.list_files(tables.spark, tables.location(name))}


def list_files_with_times(tables: Tables, name: str) -> list[tuple[str, int, int]] | None:
    """Return (path, size in bytes, modification time in ms) of a table's files.

    Return None on Spark Connect, and if a catalog does not let the program list the files. If the output is a directory that
    cannot be listed, raise the error.
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
    """Return how many of the listed data files remain in addition to those of the current version.

    VACUUM keeps a file that a machine whose clock is ahead wrote or removed. Files in hidden directories do not count.
    """
    root = tables.location(name).rstrip("/")
    listed = {path for path, *_ in files if path.endswith(".parquet")}
    remaining = {path for path, *_ in list_files_with_times(tables, name) or () if path in listed}
    parts = (path.rpartition(root)[2].strip("/").removeprefix("_change_data/").split("/") for path in remaining)
    visible = sum(not any(part.startswith(("_", ".")) for part in found) for found in parts)
    tables.forget(name)
    current = tables.detail(name)
    return 0 if current is None else max(0, visible - int(current["numFiles"]))


def find_uncommitted_files(tables: Tables, files: Sequence[tuple[str, int, int]]) -> set[str]:
    """Return the names of those data files of a table that are younger than a day, and that no commit has added or removed.

    Another program may be about to commit such a file: Delta lets an OPTIMIZE commit its files even if VACUUM has just
    deleted them. Or a run that died has left it, or it is the empty file that Delta writes with an empty commit.

    Args:
        files: path, size in bytes and modification time in ms of each file in the table's directory; this must include
            the file of a commit that was made just now, because its modification time serves as the current time.
    """
    logs = {path: modified for path, _, modified in files if "/_delta_log/" in path}
    now = max(logs.values())
    data = {path: modified for path, _, modified in files if path not in logs and "/_change_data/" not in path}
    young = {_file_name(path) for path, time in data.items() if path.endswith(".parquet") and now - time < _DAY_MS}
    # The commit that added a young file is young, too. If Delta has already deleted it, a young checkpoint has its content.
    recent = [
        path for path, modified in logs.items() if now - modified < 2 * _DAY_MS and not _file_name(path).startswith(".")
    ]
    names = create_frame(tables.spark, [(file,) for file in young], f"{FILE} string")
    for kind in ("json", "parquet") if young else ():
        paths = [storage.escape_pattern(path) for path in recent if path.endswith(f".{kind}")]
        if paths:
            actions = tables.spark.read.schema(_NAMED_FILES).format(kind).load(paths)
            named = actions.select(F.substring_index(F.coalesce("add.path", "remove.path"), "/", -1).alias(FILE))
            young -= {row[FILE] for row in names.join(named, FILE, "left_semi").collect()}
    return young


def find_files_with_ids(tables: Tables, name: str, files: set[str], id_frame: DataFrame) -> set[str]:
    """Return those of the data files, given by name, that contain any of the ids in the column doc_id of `id_frame`.

    If the files cannot be read, log a warning, and return an empty set. A file that its writer did not complete counts as
    empty.
    """
    if not files or tables.has_mapped_columns(name):  # the files have other names for the columns, so any may contain an id
        return files
    rows = read_all_files(tables, name, "doc_id string").where(F.col(FILE).isin(*files))
    try:
        found = rows.join(F.broadcast(id_frame), "doc_id", "left_semi").select(FILE).distinct().collect()
    except READ_ERRORS as error:
        kind = type(error).__name__
        log.warning("young files of %s cannot be read (%s); they may contain the documents", tables.address(name), kind)
        return set()
    return {row[FILE] for row in found}


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def list_current_files(tables: Tables, name: str) -> set[str]:
    """Return the names of the data files of a table's current version."""
    rows = tables.read(name).select(F.substring_index("_metadata.file_path", "/", -1).alias(FILE)).distinct().collect()
    return {row[FILE] for row in rows}


def delete_files(tables: Tables, name: str, files: set[str]) -> None:
    """Delete data files of a table by file name; table versions that refer to them become unreadable.

    On Spark Connect, which gives no access to files, do nothing. Raise OSError if a file cannot be deleted.
    """
    if not files or spark_connect.is_remote(tables.spark):
        return
    for address, _, _ in list(storage.list_files(tables.spark, tables.location(name))):
        if address.rpartition("/")[2] in files:
            storage.remove(tables.spark, address)
