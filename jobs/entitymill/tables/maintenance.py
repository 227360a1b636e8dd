"""Compact the tables' files, and delete files that are no longer needed: OPTIMIZE, VACUUM, purge."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from entitymill.errors import SettingsError, StorageError
from entitymill.settings import Settings
from entitymill.spark import spark_connect, storage
from entitymill.spark.session import override_conf
from entitymill.tables import NAMES, Tables, heartbeats, parquet_export, recovery
from entitymill.tables.commits import retry
from entitymill.tables.layout import PUBLISHED_TABLES
from entitymill.tables.lease import Lease
from entitymill.tables.runs import IDLE, MAINTENANCE

log = logging.getLogger(__name__)
WEEK_HOURS, DAY_HOURS = 168, 24
IDLE_DAYS = 30
"""`optimize` deletes rows of `runs` that are older than this, if the run had nothing to do; it keeps all others."""
_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_LISTING_TASKS_PER_CORE = 4
"""VACUUM lists directories in this many tasks per core; Spark's default is 10,000 tasks in all."""
_DELETING = "spark.databricks.delta.vacuum.parallelDelete.enabled"
MIN_FILE, MAX_FILE = "spark.databricks.delta.optimize.minFileSize", "spark.databricks.delta.optimize.maxFileSize"
ENTITIES_PARTITIONS = 4
"""Assumed number of partitions of `entities`, one per label."""
MOST_FILES = 200
"""If a table has more files than this, and they are small on average, a run compacts them at its end."""
SMALL_SHARE, SMALL_PART = 16, 8
"""A file is small if it is less than a 16th of the target size and an 8th of its partition. So a row is rewritten only a few
times, and files that a full run wrote in order of doc_id stay, because compaction would lose the order."""
DOCUMENT_TABLES = ("entities", "documents", "annotations", "rejects")


@dataclass(frozen=True)
class TableChange:
    """How maintenance changed one table.

    before, after: files of the current version, their megabytes, and files on the disk (None if they cannot be listed).
    """

    name: str
    before: tuple[int, float, int | None]
    after: tuple[int, float, int | None]


def optimize(tables: Tables, *, sort: bool = False) -> list[TableChange]:
    """Compact small files to about `output.target_file_mb`, and delete rows of old runs that had nothing to do.

    A job may run at the same time.

    Args:
        tables: of the output.
        sort: whether to rewrite all files in order of doc_id (ZORDER), so that changing a few documents rewrites few files.
    """

    def optimize_table(name: str) -> None:
        order = " ZORDER BY (doc_id)" if sort and name in PUBLISHED_TABLES else ""
        tables.spark.sql(f"OPTIMIZE {tables.sql_name(name)}{order}")

    old = f"mode = '{IDLE}' AND started_at < current_timestamp() - INTERVAL {IDLE_DAYS} DAYS"
    with override_conf(tables.spark, {MAX_FILE: str(tables.settings.target_file_mb * 1024 * 1024)}):
        retry("runs", lambda: tables.delete("runs", old))
        return _apply_to_tables(tables, optimize_table)


def compact_small_files(tables: Tables) -> None:
    """Compact the small files of tables that have too many of them, according to the cached details."""
    target = tables.settings.target_file_mb * 1024 * 1024
    for name in NAMES:
        found = tables.detail(name)
        if found is None or found["numFiles"] <= MOST_FILES:
            continue
        partitions = ENTITIES_PARTITIONS if name == "entities" else 1
        small = min(target // SMALL_SHARE, found["sizeInBytes"] // partitions // SMALL_PART)
        if found["sizeInBytes"] > found["numFiles"] * small:
            continue
        with override_conf(tables.spark, {MIN_FILE: str(small), MAX_FILE: str(target)}):
            tables.spark.sql(f"OPTIMIZE {tables.sql_name(name)}")
        tables.forget(name)


def read_versions(tables: Tables, names: Sequence[str]) -> dict[str, int]:
    """Return the current version of each table."""
    return {name: tables.version(name) for name in names}


def vacuum(tables: Tables, hours: float) -> list[TableChange]:
    """Delete files that no version of the last `hours` refers to; a job may run at the same time.

    Raises:
        SettingsError: `hours` is less than a day, so files of a running job might be deleted.
    """
    if hours < DAY_HOURS:
        raise SettingsError(
            f"--retain-hours {hours:g}: vacuum must retain at least {DAY_HOURS} hours; to delete younger files, use purge, "
            "which waits for a running job."
        )
    return _apply_to_tables(tables, lambda name: _vacuum(tables, name, hours))


def purge(tables: Tables, settings: Settings, hours: float = 0) -> list[TableChange]:
    """Delete removed rows physically: from data files, old versions and leftovers of runs; waits for a running job.

    Args:
        tables: in a private session.
        settings: of the job.
        hours: versions younger than this stay readable, and so do the rows that were removed since.

    Raises:
        OutputError: a job runs for longer than `limits.wait_seconds`.
    """
    with exclusive_access(tables, settings, f"purge-{uuid.uuid4().hex[:6]}"):
        return purge_tables(tables, hours)


@contextmanager
def exclusive_access(tables: Tables, settings: Settings, name: str) -> Iterator[Lease]:
    """Hold the lease, after settling what dead runs left; renew the Parquet export at the end.

    Args:
        tables: in a private session.
        settings: of the job.
        name: run id of the maintenance.

    Raises:
        OutputError: a job runs for longer than `limits.wait_seconds`.
    """
    row: dict[str, Any] = {"mode": MAINTENANCE}
    with Lease(tables, settings.limits, name, lambda: row) as lease:
        known = [name for name in DOCUMENT_TABLES if tables.exists(name)]
        if tables.is_complete():
            recovery.settle(tables, lease.commits)
        try:
            yield lease
            if tables.exported and not parquet_export.is_current(tables):
                parquet_export.export(tables, lease.epoch, lease.check_now)
        finally:
            with suppress(Exception):  # without versions, the next run checks the tables
                row["output_versions"] = read_versions(tables, known)


def shared_access(tables: Tables, settings: Settings) -> AbstractContextManager[object]:
    """Let a job work at the same time, except on storage where commits of two writers may collide: wait for it there."""
    if heartbeats.commits_may_collide(tables):
        return exclusive_access(tables, settings, f"maintenance-{uuid.uuid4().hex[:6]}")
    return nullcontext()


def purge_tables(tables: Tables, hours: float) -> list[TableChange]:
    """Purge the tables that contain documents; needs `exclusive_access`."""

    def purge_table(name: str) -> None:
        tables.spark.sql(f"REORG TABLE {tables.sql_name(name)} APPLY (PURGE)")
        _vacuum(tables, name, hours)

    # Not `runs`: it contains no document, and runs with nothing to do may write it meanwhile.
    return _apply_to_tables(tables, purge_table, DOCUMENT_TABLES)


def _apply_to_tables(tables: Tables, change: Callable[[str], object], names: Sequence[str] = NAMES) -> list[TableChange]:
    done = []
    for name in names:
        if not tables.exists(name):
            continue
        before = _count_files(tables, name)
        retry(name, lambda name=name: change(name))  # type: ignore[misc]
        done.append(TableChange(name, before, _count_files(tables, name)))
    return done


def _vacuum(tables: Tables, name: str, hours: float) -> None:
    spark = tables.spark
    tasks = _LISTING_TASKS_PER_CORE * spark_connect.count_cores(spark)
    chosen = {_RETENTION_CHECK: "false", _LISTING: str(tasks), _DELETING: "true"}
    with override_conf(spark, chosen):
        spark.sql(f"VACUUM {tables.sql_name(name)} RETAIN {hours:f} HOURS")


def _count_files(tables: Tables, name: str) -> tuple[int, float, int | None]:
    detail = tables.spark.sql(f"DESCRIBE DETAIL {tables.sql_name(name)}").collect()[0]
    on_disk: int | None
    try:
        on_disk = sum("/_delta_log/" not in address for address, *_ in storage.list_files(tables.spark, detail["location"]))
    except (OSError, StorageError):
        # Unity Catalog gives credentials for tables, but not for listing their directories.
        log.info("the files of %s cannot be counted", name)
        on_disk = None
    return detail["numFiles"], detail["sizeInBytes"] / 1e6, on_disk
