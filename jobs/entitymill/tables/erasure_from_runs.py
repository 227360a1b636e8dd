"""Find and erase document ids in the `runs` table: in the `error` column, and in `source.where` of the `settings` column."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.spark import spark_connect, storage
from entitymill.spark.private_session import create_frame
from entitymill.tables import merge_statements
from entitymill.tables.data_files import FILE, READ_ERRORS, is_in_log, read_all_files, search_with_fallback
from entitymill.tables.numbered_commits import retry
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
ERASED = "erased: the message named an erased document."
ERASED_CONDITION = "erased: the condition named an erased document."
_WORD = re.compile(r"\w+")
_COLUMNS = "run_id string, error string, settings string"


class IdFinder:
    """Finds document ids in texts: verbatim, or escaped as in Python messages and JSON, but not as part of a longer word."""

    def __init__(self, ids: Iterable[str]) -> None:
        """Prepare the verbatim and escaped forms of the document ids to find."""
        self._forms = [(id_, form) for id_ in ids for form in {id_, repr(id_)[1:-1], json.dumps(id_)[1:-1]}]

    def narrow_to(self, texts: Iterable[str | None]) -> IdFinder:
        """Return a finder that is faster, because it searches only for ids that occur in at least one of the given texts.

        In these texts, the new finder finds the same ids as this one. A text that is None is ignored.
        """
        everything = "\0".join({text for text in texts if text})
        # First check that the texts have all words of an id, since this takes far less time than a search for the id itself.
        # The words of an id that is not part of a longer word are words of the text.
        words = set(_WORD.findall(everything))
        found = IdFinder(())
        found._forms = [
            (id_, form) for id_, form in self._forms if words.issuperset(_WORD.findall(form)) and form in everything
        ]
        return found

    def find(self, text: str | None) -> set[str]:
        """Return the document ids that occur in a text, but not as part of a longer word; an empty set for None."""
        if not text:
            return set()
        return {id_ for id_, form in self._forms if form in text and _compile_word(form).search(text)}


def _compile_word(form: str) -> re.Pattern[str]:
    """Return a pattern that matches `form` (an id, verbatim or escaped) in a text, but not as part of a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", form) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", form) else ""
    return re.compile(before + re.escape(form) + after)


def count_rows_by_id(tables: Tables, ids: Sequence[str]) -> dict[str, int]:
    """Return a dict from document id to the number of rows of `runs` in which the id occurs.

    The column `error`, and `source.where` in the column `settings`, are searched. Ids that occur nowhere are left out.
    """
    return dict(Counter(id_ for _, found in _find_rows(tables.read_latest("runs"), ids) for id_ in found))


def find_old_files_with_ids(tables: Tables, ids: Sequence[str], *, skip_unreadable: bool) -> set[str]:
    """Return the names of old data files of the table `runs`: those in which any of the document ids occurs.

    Old files are data files that do not belong to the current version of `runs`, but to an older version or a failed commit.
    If `runs` has column mapping, the files cannot be searched by column name; then return the names of all old files.
    With `skip_unreadable`, files that cannot be read are ignored; without it, one of READ_ERRORS is raised.
    """
    if tables.has_mapped_columns("runs"):  # the ids cannot be looked up by column name
        found = {name for name in list_files(tables) if name.endswith(".parquet")}
    else:
        rows = _find_rows(read_all_files(tables, "runs", _COLUMNS, skip_unreadable=skip_unreadable), ids)
        found = {row[FILE] for row, _ in rows}
    # The current files are listed last, so that a file that another run has just committed does not count as stale.
    return found - _list_current_files(tables)


def list_files(tables: Tables) -> set[str]:
    """Return the names of all files of `runs`, except those of its Delta log; an empty set on Spark Connect.

    A checkpoint in the log is a Parquet file, too, but must never be deleted here. If the files cannot be listed, log a
    warning, and return an empty set.
    """
    if spark_connect.is_remote(tables.spark):
        return set()
    try:
        paths = (path for path, *_ in storage.list_files(tables.spark, tables.location("runs")))
        return {path.rpartition("/")[2] for path in paths if not is_in_log(path)}
    except READ_ERRORS as error:
        _warn_about_old_files(tables, error)
        return set()


def erase_ids(tables: Tables, ids: Sequence[str], older_files: set[str]) -> None:
    """Erase document ids from `runs`: overwrite texts that contain an id, then delete old data files that contain an id.

    The overwritten texts are the column `error`, which becomes ERASED, and `source.where` in the column `settings`, which
    becomes ERASED_CONDITION. If the data files cannot be deleted, log a warning.

    Args:
        older_files: names that `list_files` returned before the caller took the lease. An old data file is deleted only if
            it is among them, or was in the current version of `runs` when this function began. Another run may be about to
            commit any other file.
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

        retry("runs", lambda: merge_statements.run_with_view(tables, frame, build_statement))
    # VACUUM would be unsafe: other runs may be writing `runs`, and VACUUM would delete their uncommitted files.
    try:
        stale, _ = search_with_fallback(tables, partial(find_old_files_with_ids, tables, ids))
        _delete_files(tables, stale & (older_files | current))
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
    """Return each distinct row of `runs` whose `error` or `source.where` contains any of `ids`, and which ids it contains.

    A row is a dict with the keys run_id, error, settings, where (the value of `source.where` from the column `settings`)
    and, if `runs` has this column, FILE (the name of the data file that contains the row).
    """
    rows = runs.withColumn("where", F.get_json_object("settings", "$.source.where"))
    rows = rows.where(F.col("error").isNotNull() | F.col("where").isNotNull())
    chosen = [name for name in ("run_id", "error", "settings", "where", FILE) if name in rows.columns]
    held = [row.asDict() for row in rows.select(*chosen).distinct().collect()]
    finder = IdFinder(ids).narrow_to(text for row in held for text in (row["error"], row["where"]))
    named = [(row, finder.find(row["error"]) | finder.find(row["where"])) for row in held]
    return [(row, found) for row, found in named if found]


def _erase_condition(settings: str | None, finder: IdFinder) -> str | None:
    """Return a run's settings (JSON), in which ERASED_CONDITION replaces a `source.where` that contains an id to erase.

    `finder` finds the ids to erase in a text. If `settings` is None, return None.
    """
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
    """Delete the data files of `runs` with the given names; older versions of `runs` that need them become unreadable.

    On Spark Connect, which gives no access to files, do nothing. Raise OSError if a file cannot be deleted.
    """
    if not files or spark_connect.is_remote(tables.spark):
        return
    for path, _, _ in list(storage.list_files(tables.spark, tables.location("runs"))):
        if path.rpartition("/")[2] in files:
            storage.remove(tables.spark, path)
