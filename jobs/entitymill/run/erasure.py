"""Erase documents by their ids: from all tables, files of older table versions, and messages and settings in `runs`.

Each erasure is recorded in the table `erasures`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.errors import OutputError, SettingsError, SourceError
from entitymill.run import guards
from entitymill.settings import Settings
from entitymill.settings.sections import SourceSettings
from entitymill.source.reader import open_source
from entitymill.spark.private_session import create_frame, open_private_session
from entitymill.tables import (
    Tables,
    data_files,
    erasure_from_runs,
    maintenance,
    merge_statements,
    table_setup,
    temporary_tables,
)
from entitymill.tables.output_tables import DOCUMENT_TABLES, build_write_confs
from entitymill.tables.runs import Runs

log = logging.getLogger(__name__)
RECORD = "erasures"
"""Table in which each erasure is recorded."""
MAX_IDS = 100_000
"""Maximum number of ids per erasure; the driver and every task hold all ids in memory."""


@dataclass(frozen=True)
class Findings:
    """Where the documents to erase were found.

    rows: for each existing table, a dict from doc_id to the number of the document's rows in the table's current version;
        ids without rows are left out. For `runs`, the dict has the number of rows whose error message or `source.where`
        contains the id.
    in_old_files: whether data files, including files of older versions, contain any of the ids. Also True if there are files
        that may contain ids, but cannot be searched (see `_search_files`). None if this is unknown, because some files
        cannot be read.
    run_is_active: whether a run may be active, and could still publish the documents.
    """

    rows: dict[str, dict[str, int]]
    in_old_files: bool | None
    run_is_active: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing to erase was found; unreadable old files, which might contain the ids, are ignored."""
        return not any(self.rows.values()) and not self.in_old_files

    def totals(self) -> dict[str, int]:
        """Return a dict from table name to number of rows found; each row of `runs` counts once per id in it."""
        return {table: sum(found.values()) for table, found in self.rows.items()}


def find_documents(spark: SparkSession, settings: Settings, ids: Sequence[str]) -> Findings:
    """Return where the documents with these ids occur in the tables and in the tables' old files, without changing anything.

    Raises:
        OutputError: the tables do not exist or cannot be read, or another program or version wrote them.
        SettingsError: the tables belong to another source.
        SourceError: the source cannot be read, or still has some of the documents, perhaps in rows that `source.where`
            excludes.
    """
    with open_private_session(spark, settings.source.time_zone, build_write_confs(settings.output)) as own:
        return _find_documents(own, settings, ids)


def erase(spark: SparkSession, settings: Settings, ids: Sequence[str], findings: Findings | None = None) -> dict[str, int]:
    """Remove documents from all tables and their ids from `runs`, delete files that contained them, and record the erasure.

    The function first waits until no run works on the output, and then takes the lease (the right to write the output). It
    can safely be called again with the same ids, for example to complete and record an erasure that was interrupted.

    The lease is taken even if there is nothing to erase. A run that waits for the lease may have opened the source while the
    source still had these documents. Such a run notices that the lease was taken, and opens the source again.

    Args:
        findings: result of `find_documents` for these ids; if None, this function searches the tables itself. It uses only
            `findings.empty`, and counts the rows again under the lease.

    Returns:
        A dict from table name to number of erased rows, counted as in `Findings.totals`; in `runs`, only texts are replaced.
        The dict is empty if there was nothing to erase; then no erasure is recorded.

    Raises:
        OutputError: as for `find_documents`; or a run still works on the output after `limits.wait_seconds`; or another run
            took over before the erasure was complete.
        SettingsError: the tables belong to another source.
        SourceError: the source cannot be read, or still has some of the documents, perhaps in rows that `source.where`
            excludes.
    """
    with open_private_session(spark, settings.source.time_zone, build_write_confs(settings.output)) as own:
        found = findings or _find_documents(own, settings, ids)
        return _erase(own, settings, ids, found_nothing=found.empty)


def _find_documents(spark: SparkSession, settings: Settings, ids: Sequence[str]) -> Findings:
    """Check the tables and the source, then return where the documents occur; raise the errors of `find_documents`."""
    tables = Tables(spark, settings.output)
    if not tables.exists("documents"):
        raise OutputError(f"output: no entity tables at {tables.output}; check output.path or output.schema.")
    table_setup.check_tables_to_write(tables)
    _check_owner(settings, tables, guards.read_runs_record(tables, Runs(tables)).owner)
    id_frame = _create_id_frame(spark, ids)
    _check_absent_from_source(spark, settings, id_frame)
    rows, in_old_files = _count_rows(tables, ids, id_frame), _occurs_in_old_files(tables, ids, id_frame)
    # Read `runs` last, so that a run that began during this search is seen, too.
    return Findings(rows, in_old_files, Runs(tables).read_record().running)


def _erase(spark: SparkSession, settings: Settings, ids: Sequence[str], *, found_nothing: bool) -> dict[str, int]:
    """Take the lease, erase the documents, record the erasure, and return the number of erased rows of each table.

    Under the lease, check the owner and the source again. Raise SettingsError or SourceError as `find_documents` does.

    `found_nothing` says whether an earlier search found nothing to erase. In this case, search again, because a run may
    have changed the tables since. If this search finds nothing either, erase and record nothing, and return an empty dict.
    But if an earlier erasure of the same ids was interrupted, complete that erasure in any case.
    """
    tables = Tables(spark, settings.output)
    digests = {doc_id: hashlib.sha256(doc_id.encode()).hexdigest() for doc_id in ids}
    id_frame = _create_id_frame(spark, ids)
    name = f"erasure-{uuid.uuid4().hex[:6]}"
    # The digests of the ids identify the erasure in `runs`, without naming a document.
    note = json.dumps({"erasure": hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()})
    files_of_runs = erasure_from_runs.list_files(tables)
    with maintenance.exclusive_access(tables, settings, name, note) as lease:
        commits = lease.commits
        # Check again: while this command waited, a run may have given the output to another source, or a document may have
        # been added to the source again.
        _check_owner(settings, tables, lease.earlier_runs.owner)
        _check_absent_from_source(spark, settings, id_frame)
        rows = _count_rows(tables, ids, id_frame)
        nothing = found_nothing and Findings(rows, _occurs_in_old_files(tables, ids, id_frame)).empty
        if nothing and not Runs(tables).was_interrupted(note, lease.epoch):
            return {}
        with commits.track_change():
            for table in DOCUMENT_TABLES:
                if rows.get(table):
                    no_rows = tables.read(table).limit(0)
                    commits.execute(table, partial(merge_statements.replace_documents, tables, table, id_frame, no_rows))
                    commits.check_committed(table)
        maintenance.purge_tables(tables, lease.check_now, 0, id_frame)
        erasure_from_runs.erase_ids(tables, ids, files_of_runs)
        table_setup.create_table(tables, RECORD, schemas.ERASURES)
        now = datetime.now(timezone.utc)
        record = [
            (name, now, digest, table, found.get(doc_id, 0))
            for table, found in rows.items()
            for doc_id, digest in digests.items()
        ]
        commits.append(create_frame(spark, record, schemas.ERASURES).coalesce(1), RECORD)
        commits.check_committed(RECORD)
    return Findings(rows, None).totals()


def _create_id_frame(spark: SparkSession, ids: Sequence[str]) -> DataFrame:
    """Return a DataFrame with each of the ids once, in the column doc_id."""
    return create_frame(spark, [(doc_id,) for doc_id in dict.fromkeys(ids)], "doc_id string")


def _check_owner(settings: Settings, tables: Tables, owner: str | None) -> None:
    """Raise SettingsError if the output belongs to another source than source.path, unless output.adopt_source is set.

    `owner` is the source from which the output was written; None if there has been no run.
    """
    here = guards.locate_source(tables.spark, settings.source)
    if guards.is_another_source(settings, here, owner):
        raise SettingsError(
            f"source.path: the output {tables.output} belongs to {owner}, but the settings name {here}. Only {owner} "
            f"can show whether the next run would bring the documents back: set source.path to {owner}, or "
            f"output.adopt_source=true if {here} has replaced it."
        )


def _check_absent_from_source(spark: SparkSession, settings: Settings, id_frame: DataFrame) -> None:
    """Raise SourceError if the source still contains any of the ids, even in rows that `source.where` excludes.

    A later run could read these rows and publish the documents again.
    """
    found = _find_ids_in_source(spark, settings.source.model_copy(update={"where": None}), id_frame)
    if not found:
        return
    excluded = set() if settings.source.where is None else found - _find_ids_in_source(spark, settings.source, id_frame)
    where = f", {len(excluded)} of them in rows that source.where excludes," if excluded else ""
    raise SourceError(
        f"{settings.source.path} still has {len(found)} of the documents (for example {min(found)!r}){where} and the next "
        "run would publish them again: delete them in the source first, including its old files and versions."
    )


def _find_ids_in_source(spark: SparkSession, source: SourceSettings, id_frame: DataFrame) -> set[str]:
    """Return the ids of `id_frame` that occur in the source, in rows that the condition `source.where` selects."""
    rows = open_source(spark, source).rows.select("doc_id")
    left = rows.join(F.broadcast(id_frame), "doc_id", "left_semi").distinct()
    return {row["doc_id"] for row in left.collect()}


def _count_rows(tables: Tables, ids: Sequence[str], id_frame: DataFrame) -> dict[str, dict[str, int]]:
    """Return a dict from the name of each existing table to a dict from doc_id to number of rows, as in `Findings.rows`.

    `id_frame` has the same ids as `ids`, in the column doc_id.
    """
    rows = {name: _count_table(tables, name, id_frame) for name in DOCUMENT_TABLES if tables.exists(name)}
    if tables.exists("runs"):
        rows["runs"] = erasure_from_runs.count_rows_by_id(tables, ids)
    return rows


def _count_table(tables: Tables, name: str, id_frame: DataFrame) -> dict[str, int]:
    """Return a dict from doc_id to the number of its rows in a table; ids of `id_frame` without rows are left out."""
    found = tables.read_latest(name).join(F.broadcast(id_frame), "doc_id", "left_semi").groupBy("doc_id").count().collect()
    return {row["doc_id"]: row["count"] for row in found}


def _occurs_in_old_files(tables: Tables, ids: Sequence[str], id_frame: DataFrame) -> bool | None:
    """Return whether any data file contains one of the ids; None, with a warning in the log, if this cannot be known.

    The result is None if some files cannot be read, and no readable file contains an id. It is also True if a table cannot
    be searched, or if a run's temporary table exists (see `_search_files`).
    """
    try:
        found, complete = data_files.search_with_fallback(tables, partial(_search_files, tables, ids, id_frame))
    except data_files.READ_ERRORS:
        return None
    return found or (False if complete else None)


def _search_files(tables: Tables, ids: Sequence[str], id_frame: DataFrame, *, skip_unreadable: bool) -> bool:
    """Return whether any data file contains one of the ids; raise one of READ_ERRORS if the files cannot be read.

    With `skip_unreadable`, unreadable files are skipped.

    Data files keep the rows of removed documents until the files are deleted. Files of the current version are also
    searched, except current files of `runs`. Two things are not searched, although they may contain ids: a temporary table
    of a run, and a table whose files have other column names than the table. If either exists, return True.
    """
    if temporary_tables.find_temporary_tables(tables):
        return True
    for name in DOCUMENT_TABLES:
        if tables.exists(name):
            if tables.has_mapped_columns(name):
                return True  # the files have other names for the columns
            files = data_files.read_all_files(tables, name, "doc_id string", skip_unreadable=skip_unreadable)
            if files.join(F.broadcast(id_frame), "doc_id", "left_semi").take(1):
                return True
    return tables.exists("runs") and bool(
        erasure_from_runs.find_old_files_with_ids(tables, ids, skip_unreadable=skip_unreadable)
    )
