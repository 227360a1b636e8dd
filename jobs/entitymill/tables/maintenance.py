"""Entity tables -> the same rows in fewer files, and nothing else on the disk: OPTIMIZE, VACUUM, purge."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from entitymill.errors import SettingsError, StorageError
from entitymill.platform import spark_connect, storage
from entitymill.platform.session import configured, in_turn
from entitymill.settings import Settings
from entitymill.tables import NAMES, Tables, commits, publisher
from entitymill.tables.commits import Commits, retried
from entitymill.tables.layout import MAX_FILE, OF_UNITS
from entitymill.tables.lease import Lease
from entitymill.tables.runs import IDLE
from entitymill.tables.staging import Staging
from entitymill.tables.temporary_tables import Kept

log = logging.getLogger(__name__)
WEEK_HOURS, DAY_HOURS = 168, 24
IDLE_DAYS = 30
"""So long `runs` remembers a run that had nothing to do; of the others it remembers all."""
_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_LISTING_TASKS_PER_CORE = 4
"""VACUUM lists directories in so many tasks; Spark's own default is ten thousand."""
_DELETING = "spark.databricks.delta.vacuum.parallelDelete.enabled"
OF_DOCUMENTS = ("entities", "documents", "annotations", "rejects")


@dataclass(frozen=True)
class Done:
    """What became of one table.

    before, after: files of its present version, megabytes of these, files on the disk; none: a catalog does not let see.
    """

    name: str
    before: tuple[int, float, int | None]
    after: tuple[int, float, int | None]


def optimize(tables: Tables, *, sort: bool = False) -> list[Done]:
    """Join small files to ones of about `output.target_file_mb`, and forget old runs with nothing to do.

    A job may run at the same time.

    Args:
        sort: whether to write all files anew, in order of doc_id (ZORDER), so that changes of a few documents touch few.
    """

    def change(name: str) -> None:
        order = " ZORDER BY (doc_id)" if sort and name in OF_UNITS else ""
        tables.spark.sql(f"OPTIMIZE {tables.reference(name)}{order}")

    old = f"mode = '{IDLE}' AND started_at < current_timestamp() - INTERVAL {IDLE_DAYS} DAYS"
    with in_turn(tables.spark), configured(tables.spark, {MAX_FILE: str(tables.settings.target_file_mb * 1024 * 1024)}):
        retried("runs", lambda: tables.delete("runs", old))
        return _each(tables, change)


def vacuum(tables: Tables, hours: float) -> list[Done]:
    """Delete files that no version of the last hours refers to; a job may run at the same time.

    Raises:
        SettingsError: less than a day: a running job's own files might be among them.
    """
    if hours < DAY_HOURS:
        raise SettingsError(
            f"--retain-hours {hours:g}: vacuum keeps at least {DAY_HOURS}; use purge, which waits for a job."
        )
    with in_turn(tables.spark):
        return _each(tables, lambda name: _vacuum(tables, name, hours))


def purge(tables: Tables, settings: Settings, hours: float = 0) -> list[Done]:
    """Make removed rows physically gone: from data files, old versions and what runs left behind; no job runs meanwhile.

    Args:
        hours: versions younger than this stay readable, and so do rows that were removed since.

    Raises:
        OutputError: a job runs, for longer than `limits.wait_seconds`.
    """
    with alone(tables, settings, f"purge-{uuid.uuid4().hex[:6]}"):
        return purge_all(tables, hours)


@contextmanager
def alone(tables: Tables, settings: Settings, name: str) -> Iterator[Commits]:
    """No job runs as long as the context lasts, and what dead ones left is settled; gives the commits to make.

    Args:
        name: of the holder of the lease.

    Raises:
        OutputError: a job runs, for longer than `limits.wait_seconds`.
    """
    with in_turn(tables.spark), configured(tables.spark, tables.confs()), Lease(tables, settings.limits, name) as lease:
        Staging(tables, lease).discard()
        publisher.take_back(tables, lease.commits, lease.before.last, lease.before.done)
        Kept(tables).drop()
        yield lease.commits


def purge_all(tables: Tables, hours: float) -> list[Done]:
    """As `purge`, for who is `alone`."""

    def change(name: str) -> None:
        tables.spark.sql(f"REORG TABLE {tables.reference(name)} APPLY (PURGE)")
        _vacuum(tables, name, hours)

    # `runs` holds no document, and may be written meanwhile: by renewals of the lease, by runs with nothing to do.
    return _each(tables, change, OF_DOCUMENTS)


def beside(tables: Tables, settings: Settings) -> AbstractContextManager[object]:
    """Beside a job, unless the storage may take two writers' commits for one: then as a job, which waits for the other."""
    if commits.claim_needed(tables.spark, tables.settings):
        return Lease(tables, settings.limits, f"maintenance-{uuid.uuid4().hex[:6]}")
    return nullcontext()


def _each(tables: Tables, change: Callable[[str], object], names: Sequence[str] = NAMES) -> list[Done]:
    done = []
    for name in names:
        if not (tables.is_delta(name) and tables.exists(name)):
            continue
        before = _state(tables, name)
        retried(name, lambda name=name: change(name))  # type: ignore[misc]
        done.append(Done(name, before, _state(tables, name)))
    return done


def _vacuum(tables: Tables, name: str, hours: float) -> None:
    spark = tables.spark
    tasks = _LISTING_TASKS_PER_CORE * spark_connect.cores(spark)
    chosen = {_RETENTION_CHECK: "false", _LISTING: str(tasks), _DELETING: "true"}
    with configured(spark, chosen):
        spark.sql(f"VACUUM {tables.reference(name)} RETAIN {hours:f} HOURS")


def _state(tables: Tables, name: str) -> tuple[int, float, int | None]:
    detail = tables.spark.sql(f"DESCRIBE DETAIL {tables.reference(name)}").collect()[0]
    on_disk: int | None
    try:
        on_disk = sum("/_delta_log/" not in address for address, *_ in storage.files(tables.spark, detail["location"]))
    except (OSError, StorageError):
        # Unity Catalog gives its credentials to tables, not to those who list directories.
        log.info("the files of %s cannot be counted", name)
        on_disk = None
    return detail["numFiles"], detail["sizeInBytes"] / 1e6, on_disk
