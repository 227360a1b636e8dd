"""Find and erase document ids in the `runs` table: in the `error` column, and in `source.where` of the `settings` column."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.spark import spark_connect, storage
from entitymill.spark.private_session import create_frame
from entitymill.tables import merge_rows
from entitymill.tables.data_files import FILE, READ_ERRORS, read_all_files
from entitymill.tables.numbered_commits import retry
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
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
    """Return a dict from each id that occurs in `error` or `source.where` of `runs` to the number of rows with this id."""
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
    return found - _list_current_files(tables)


def list_files(tables: Tables) -> set[str]:
    """Return the names of all files of `runs`; an empty set on Spark Connect, or with a warning if they cannot be listed."""
    if spark_connect.is_remote(tables.spark):
        return set()
    try:
        return {path.rpartition("/")[2] for path, *_ in storage.list_files(tables.spark, tables.location("runs"))}
    except READ_ERRORS as error:
        _warn_about_old_files(tables, error)
        return set()


def erase_ids(tables: Tables, ids: Sequence[str], older_files: set[str]) -> None:
    """Erase document ids from `runs`: overwrite the messages that contain one, then delete the data files with the old rows.

    A message is the column `error`, which becomes ERASED, or `source.where` in the column `settings`, which becomes
    ERASED_CONDITION.

    Args:
        older_files: result of `list_files` before this erasure took its lease. A newer file is deleted only if this function
            has replaced it: another run may be about to commit it.
    """
    current = _list_current_files(tables)
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

        retry("runs", lambda: merge_rows.run_with_view(tables, frame, build_statement))
    # VACUUM would be unsafe: other runs may be writing `runs`, and VACUUM would delete their uncommitted files.
    try:
        _delete_files(tables, find_stale_files(tables, ids) & (older_files | current))
    except READ_ERRORS as error:
        _warn_about_old_files(tables, error)


def _warn_about_old_files(tables: Tables, error: Exception) -> None:
    """Log a warning that old data files of `runs` may still contain erased ids."""
    log.warning(
        "old files of `runs` of %s cannot be deleted (%s); they may still contain ids of erased documents",
        tables.output,
        type(error).__name__,
    )


def _find_rows(runs: DataFrame, ids: Sequence[str]) -> list[tuple[dict[str, str], set[str]]]:
    """Return each distinct row whose `error` or `source.where` contains any of the ids, together with these ids."""
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


def _list_current_files(tables: Tables) -> set[str]:
    """Return the names of the data files of the current version of `runs`."""
    rows = tables.read("runs").select(F.substring_index("_metadata.file_path", "/", -1).alias(FILE)).distinct().collect()
    return {row[FILE] for row in rows}


def _delete_files(tables: Tables, files: set[str]) -> None:
    """Delete data files of `runs`, given by name; versions of the table that refer to them become unreadable.

    On Spark Connect, which gives no access to files, do nothing. Raise OSError if a file cannot be deleted.
    """
    if not files or spark_connect.is_remote(tables.spark):
        return
    for path, _, _ in list(storage.list_files(tables.spark, tables.location("runs"))):
        if path.rpartition("/")[2] in files:
            storage.remove(tables.spark, path)
