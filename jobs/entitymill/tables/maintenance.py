"""Compact the tables' files, and delete files that are no longer needed (OPTIMIZE, VACUUM, purge)."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from pyspark.errors import ParseException
from pyspark.sql import DataFrame

from entitymill.errors import OutputError, SettingsError, StorageError
from entitymill.run_row import RunRow
from entitymill.settings import Settings
from entitymill.spark import spark_connect, storage
from entitymill.spark.private_session import create_frame, override_conf
from entitymill.tables import (
    NAMES,
    Tables,
    data_files,
    heartbeats,
    merge_statements,
    parquet_export,
    recovery,
    temporary_tables,
)
from entitymill.tables.lease import Lease
from entitymill.tables.numbered_commits import retry
from entitymill.tables.output_tables import DOCUMENT_TABLES, PUBLISHED_TABLES
from entitymill.tables.runs import IDLE, MAINTENANCE

log = logging.getLogger(__name__)
WEEK_HOURS, DAY_HOURS = 168, 24
IDLE_DAYS = 30
"""`optimize` deletes the rows of idle runs (runs that had nothing to do) from `runs` after this many days."""
_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_IGNORED_HOURS = "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled"
"""From Delta 4.1 on, VACUUM ignores RETAIN unless this property is false."""
_LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_LISTING_TASKS_PER_CORE = 4
"""Number of tasks per core with which VACUUM lists directories; Spark's default is 10,000 tasks in total."""
_DELETING = "spark.databricks.delta.vacuum.parallelDelete.enabled"
MIN_FILE, MAX_FILE = "spark.databricks.delta.optimize.minFileSize", "spark.databricks.delta.optimize.maxFileSize"
ENTITIES_PARTITIONS = 4
"""Assumed number of partitions of `entities`, one per label."""
MAX_FILES = 200
"""If a table has more files than this, and the files are small on average, a run compacts them before it ends."""
SMALL_SHARE, SMALL_PART = 16, 8
"""A file is small if it is smaller than both 1/SMALL_SHARE of `output.target_file_mb` and 1/SMALL_PART of its partition.
With these limits, each row is rewritten only a few times, and files that a run with --full wrote are not rewritten."""


@dataclass(frozen=True)
class TableChange:
    """How maintenance changed the files of one table.

    before, after: three numbers, before and after maintenance: data files in the table's current version; their total size
        in MB; all files in the table's directory except the Delta log (None if the directory cannot be listed).
    """

    name: str
    before: tuple[int, float, int | None]
    after: tuple[int, float, int | None]


def optimize(tables: Tables, *, sort: bool = False) -> list[TableChange]:
    """Compact small files of all tables into files of `output.target_file_mb`; return how each table's files changed.

    Also delete rows of idle runs (runs that had nothing to do) from `runs` after IDLE_DAYS. Call this in `shared_access`.

    With `sort`, rewrite all files of PUBLISHED_TABLES in order of doc_id (ZORDER). A later change of a few documents with
    neighboring ids then rewrites only a few files.
    """

    def optimize_table(name: str) -> None:
        order = " ZORDER BY (doc_id)" if sort and name in PUBLISHED_TABLES else ""
        tables.spark.sql(f"OPTIMIZE {tables.sql_name(name)}{order}")

    old = f"mode = '{IDLE}' AND started_at < current_timestamp() - INTERVAL {IDLE_DAYS} DAYS"
    with override_conf(tables.spark, {MAX_FILE: str(tables.settings.target_file_mb * 1024 * 1024)}):
        if tables.exists("runs"):
            retry("runs", lambda: tables.delete("runs", old))
        return _apply_to_tables(tables, optimize_table)


def compact_small_files(tables: Tables) -> None:
    """Compact the small files of each table that has more than MAX_FILES files, and whose files are small on average.

    SMALL_SHARE and SMALL_PART define which size is small. The number and size of the files come from `Tables.detail`, whose
    cached result may be outdated.
    """
    target = tables.settings.target_file_mb * 1024 * 1024
    for name in NAMES:
        found = tables.detail(name)
        if found is None or found["numFiles"] <= MAX_FILES:
            continue
        partitions = ENTITIES_PARTITIONS if name == "entities" else 1
        small = min(target // SMALL_SHARE, found["sizeInBytes"] // partitions // SMALL_PART)
        if found["sizeInBytes"] > found["numFiles"] * small:
            continue
        with override_conf(tables.spark, {MIN_FILE: str(small), MAX_FILE: str(target)}):
            tables.spark.sql(f"OPTIMIZE {tables.sql_name(name)}")
        tables.forget(name)


def vacuum(tables: Tables, settings: Settings, hours: float) -> list[TableChange]:
    """Delete the files that no table version of the last `hours` hours refers to, and return how each table's files changed.

    In `runs`, files that are in no commit are kept for 30 days, if files can be listed (`data_files.select_files_in_log`).

    Call this in `shared_access`. A job may run at the same time, but a frozen (suspended) run could wake up and commit files
    that are deleted now. If a run may be frozen, this function first takes the lease like a new run, so that Delta
    refuses the frozen run's commits. A run may be frozen if it left changes incomplete or sent no heartbeat for `hours` / 2.

    Raises:
        SettingsError: `hours` is less than 24, so files of a running job might be deleted.
        OutputError: the lease is needed, but another run holds it for longer than `limits.wait_seconds`.
    """
    if hours < DAY_HOURS:
        raise SettingsError(
            f"--retain-hours: {hours:g} is less than {DAY_HOURS}, the minimum for `vacuum`: a running job may need younger "
            "files. Use `purge` to delete them: it waits until no job is running."
        )
    if heartbeats.may_have_frozen_run(tables, timedelta(hours=hours / 2)):
        with exclusive_access(tables, settings, f"vacuum-{uuid.uuid4().hex[:6]}"):
            pass  # entering the context has made Delta refuse the commits of all earlier runs

    def vacuum_table(name: str) -> None:
        # A run that has not begun, and an idle one, have no epoch: Delta would accept their commits to `runs`, even if the
        # files of these commits were deleted.
        files = None
        if name == "runs":
            with suppress(OSError, StorageError):  # if files cannot be listed, VACUUM lists them itself
                files = data_files.list_files(tables, name)
        _vacuum(tables, name, hours, None if files is None else data_files.select_files_in_log(tables, name, files))

    return _apply_to_tables(tables, vacuum_table)


def purge(tables: Tables, settings: Settings, hours: float = 0) -> list[TableChange]:
    """Wait until no job is running, then delete removed rows from the storage; return how each table's files changed.

    Only DOCUMENT_TABLES are purged. Files that contain removed rows are rewritten without them, and files of old table
    versions are deleted. A file that a dead run wrote but did not commit is deleted if it is at least a day old. The Spark
    session of `tables` must come from `open_private_session`.

    Args:
        hours: keep the files of the table versions of the last `hours` hours, even if they contain removed rows.

    Raises:
        OutputError: a job is still running after `limits.wait_seconds`; another run took over; or `hours` is 0, but VACUUM
            has kept files with removed rows.
    """
    with exclusive_access(tables, settings, f"purge-{uuid.uuid4().hex[:6]}") as lease:
        return purge_tables(tables, lease.check_now, hours)


@contextmanager
def exclusive_access(tables: Tables, settings: Settings, run_id: str, note: str | None = None) -> Iterator[Lease]:
    """Hold the lease (the right to write the output) inside the context, so that no job runs, and yield the lease.

    On entry, make Delta refuse later commits of earlier runs, and remove their temporary tables. If dead runs published
    documents only partially, mark them, so that the next job recomputes them (`recovery.settle`). On exit, update the
    Parquet export, unless the `with` block raised an error.

    The lease writes a row with the mode MAINTENANCE to `runs`. This row contains the tables' versions only if earlier runs
    left no change incomplete and no other program has changed rows. Without versions, the next run compares all documents.

    Args:
        tables: tables of the output; their Spark session must come from `open_private_session`.
        run_id: run id for the row in `runs`.
        note: value for the column `settings` of this row.

    Raises:
        OutputError: a job is still running after `limits.wait_seconds`, or another run took over meanwhile.
    """
    row = RunRow(run_id, mode=MAINTENANCE, settings=note)
    with Lease(tables, settings.limits, run_id, lambda: row) as lease:
        temporary_tables.remove_leftovers(tables, lease.epoch)
        before = recovery.read_versions(tables, [name for name in DOCUMENT_TABLES if tables.exists(name)])
        earlier = lease.earlier_runs
        trusted = earlier.settled and recovery.tables_unchanged_since(tables, earlier.latest)
        if tables.is_complete():
            trusted = recovery.settle(tables, lease.commits) == 0 and trusted
        else:
            recovery.block_earlier_runs(tables, lease.commits)
        try:
            yield lease
            if tables.exported and not parquet_export.is_current(tables):
                parquet_export.export(tables, lease.epoch, lease.check_now)
        finally:
            if trusted:
                with suppress(Exception):
                    row = replace(row, output_versions=recovery.read_versions_if_undisturbed(tables, before, lease.commits))
        lease.end("done")


def shared_access(tables: Tables, settings: Settings) -> AbstractContextManager[object]:
    """Return a context manager for maintenance, inside which the caller may change the tables.

    A job may usually run at the same time. But on storage where one of two simultaneous commits may be lost, the context
    manager is `exclusive_access`, which waits until no job is running.
    """
    if heartbeats.commits_may_collide(tables):
        return exclusive_access(tables, settings, f"maintenance-{uuid.uuid4().hex[:6]}")
    return nullcontext()


def purge_tables(
    tables: Tables, check_now: Callable[[], None], hours: float, id_frame: DataFrame | None = None
) -> list[TableChange]:
    """Delete removed rows of DOCUMENT_TABLES from the storage, as `purge` does; return how each table's files changed.

    The caller must hold the lease. If this process is suspended for a while, another run may take over and write new files.
    So this function lists the files before it calls `check_now`, and deletes only files in this list. Where files cannot be
    listed, this protection is missing: on Spark Connect, and in catalogs that give no access to files.

    Args:
        check_now: `Lease.check_now`, which raises OutputError if another run took over.
        hours: keep the files of the table versions of the last `hours` hours, even if they contain removed rows.
        id_frame: DataFrame with the ids of erased documents in the column doc_id; None if none were erased.

    Raises:
        OutputError: another run took over; or `hours` is 0, but VACUUM has kept files with removed rows.
    """
    kept: dict[str, str] = {}

    def purge_table(name: str) -> None:
        tables.spark.sql(f"REORG TABLE {tables.sql_name(name)} APPLY (PURGE)")
        files = data_files.list_files(tables, name)
        if files is not None:
            files = data_files.select_deletable_files(tables, name, files, id_frame)
        check_now()
        _vacuum(tables, name, hours, files)
        if files is not None and hours == 0 and (left := data_files.count_old_files(tables, name, files)):
            kept[name] = f"{left} old files of {tables.address(name)}"

    # `runs` is not purged: it contains no documents, and idle runs may write it at the same time.
    changes = _apply_to_tables(tables, purge_table, DOCUMENT_TABLES)
    if kept:
        raise OutputError(
            f"output: {', '.join(kept.values())} could not be deleted yet, because clocks of machines differ, or another "
            "program is changing the table: run this command again later."
        )
    return changes


def _apply_to_tables(tables: Tables, change: Callable[[str], object], names: Sequence[str] = NAMES) -> list[TableChange]:
    """Call `change` with the name of each existing table in `names`; return how each table's files changed.

    If a call fails with an error that may be temporary, it is repeated.
    """
    done = []
    for name in names:
        if not tables.exists(name):
            continue
        before = _measure_files(tables, name)
        retry(name, lambda name=name: change(name))  # type: ignore[misc]
        done.append(TableChange(name, before, _measure_files(tables, name)))
    return done


def _vacuum(tables: Tables, name: str, hours: float, files: Sequence[tuple[str, int, int]] | None = None) -> None:
    """Delete the files of a table that no table version of the last `hours` hours refers to.

    `files` has path, size in bytes and modification time in ms of each file that may be deleted; None allows all files. If
    the Delta of a platform does not accept such a list, all files are allowed, too. `hours` is rounded up, and files of the
    Delta log in `files` are ignored.
    """
    spark = tables.spark
    tasks = _LISTING_TASKS_PER_CORE * spark_connect.count_cores(spark)
    chosen = {_RETENTION_CHECK: "false", _IGNORED_HOURS: "false", _LISTING: str(tasks), _DELETING: "true"}
    with override_conf(spark, chosen):
        retained = f"RETAIN {math.ceil(hours)} HOURS"  # Delta would round to the nearest hour
        if files is None:
            spark.sql(f"VACUUM {tables.sql_name(name)} {retained}")
            return
        rows = [(path, size, False, modified) for path, size, modified in files if not data_files.is_in_log(path)]
        inventory = create_frame(spark, rows, "path string, length long, isDir boolean, modificationTime long")
        try:
            merge_statements.run_with_view(
                tables,
                inventory,
                lambda view: f"VACUUM {tables.sql_name(name)} USING INVENTORY (TABLE {view}) {retained}",
            )
        except ParseException:  # the Delta of a platform may not know inventories
            spark.sql(f"VACUUM {tables.sql_name(name)} {retained}")


def _measure_files(tables: Tables, name: str) -> tuple[int, float, int | None]:
    """Return the number of data files of a table's current version, their size in MB, and the number of files in storage.

    Files in storage are all files in the table's directory, also of older versions, but not the Delta log. Their number is
    None if they cannot be listed.
    """
    detail = tables.spark.sql(f"DESCRIBE DETAIL {tables.sql_name(name)}").collect()[0]
    on_disk: int | None
    try:
        listed = storage.list_files(tables.spark, detail["location"])
        on_disk = sum(not data_files.is_in_log(path) for path, *_ in listed)
    except (OSError, StorageError):
        # Unity Catalog gives credentials for tables, but not for listing their directories.
        log.info("cannot count the files of table %s in storage, because its directory cannot be listed", name)
        on_disk = None
    return detail["numFiles"], detail["sizeInBytes"] / 1e6, on_disk
