"""Write and read heartbeats: small files next to the tables, which each run rewrites while it is alive.

Writing a heartbeat needs no Spark job, so a busy cluster does not delay it. The storage's own clock tells the age of a
heartbeat.

On most storage, heartbeats only avoid wasted work; the tables are correct without them. On storage where one Delta commit
may overwrite another (S3 without a commit service), heartbeats are necessary. Each run first writes its own file, then lists
all files, and waits if it sees a file of another run. S3 lists every file that was written before the listing began. So of
several runs that start together, at most one sees no other file and continues.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from entitymill.errors import StorageError
from entitymill.run_row import RunRow
from entitymill.spark import session, storage
from entitymill.spark.files_on_this_machine import open_private_directory
from entitymill.tables.output_tables import Tables
from entitymill.tables.runs import Runs

log = logging.getLogger(__name__)
DIRECTORY = "heartbeats"
_S3_SCHEMES, _SAFE_LOG_STORES = ("s3:", "s3a:", "s3n:"), ("S3DynamoDBLogStore",)


class Heartbeat:
    """Writes the heartbeat of one run, and reads the heartbeats of other runs."""

    def __init__(self, tables: Tables, run_id: str, lease_seconds: float) -> None:
        """Choose the path of the heartbeat file; nothing is written yet.

        `tables` must be in a directory, not in a catalog. Another run counts as dead when its heartbeat is `lease_seconds`
        old, or as old as the other run's own lease if that is longer.
        """
        self._spark = tables.spark
        self._directory = tables.address(DIRECTORY)
        self._own = f"{self._directory}/{run_id}"
        self._milliseconds = 1000 * lease_seconds
        self._seen: dict[str, tuple[int, float]] = {}
        """For each file that was newer than the current time: its modification time, in milliseconds since 1970, and when
        this process first saw that time. The latter is in seconds of `time.monotonic`."""
        self.dead: dict[str, RunRow] = {}
        """Dead runs whose heartbeat files `read_other_runs` has deleted: a dict from run id to the run's last row."""

    def beat(self, row: RunRow) -> None:
        """Write or rewrite the heartbeat file; the file's new modification time shows that the run is alive.

        `row` is the run's current row of the `runs` table. `entitymill runs` reads the run's progress from the file.
        """
        try:
            storage.write(self._spark, self._own, row.to_json())
        except OSError:  # a run that has just ended may have removed the empty directory
            storage.write(self._spark, self._own, row.to_json())

    def read_other_runs(self) -> list[RunRow]:
        """Return the row of `runs` from the heartbeat file of each other live run, and delete the files of dead runs.

        A run counts as dead if its file is at least as old as `limits.lease_seconds` of this run or of the other run,
        whichever is longer. Rows of dead runs are stored in the attribute `dead`. Call `beat` first: the modification time
        of this run's own file serves as the current time.
        """
        found = {address: modified for address, _, modified in storage.list_files(self._spark, self._directory)}
        now = found.pop(self._own, max(found.values(), default=0))
        alive = []
        for address, modified in found.items():
            row = _read_file(self._spark, address)
            if self._measure_age(address, modified, now) < max(self._milliseconds, 1000 * row.lease_seconds):
                alive.append(row)
            else:
                self.dead[row.run_id] = row
                storage.remove(self._spark, address)
        return alive

    def _measure_age(self, address: str, modified: int, now: int) -> float:
        """Return the age of a heartbeat file in milliseconds.

        A file may be newer than `now`: its run has just rewritten it, or the storage's clock was ahead when it was written.
        Its age is then how long this process has seen it unchanged.

        Args:
            modified, now: modification time of the file, and current time, in milliseconds since 1970.
        """
        if modified <= now:
            return now - modified
        before, since = self._seen.get(address, (None, 0.0))
        if before != modified:
            since = time.monotonic()
            self._seen[address] = (modified, since)
        return 1000 * (time.monotonic() - since)

    def stop(self) -> None:
        """Delete the heartbeat file, and its directory if no other file is there; log errors of the storage, raise none."""
        try:
            storage.remove(self._spark, self._own)
            storage.remove_empty(self._spark, self._directory)
        except (OSError, StorageError):
            log.exception(
                "the heartbeat file %s could not be deleted; other runs wait until it is limits.lease_seconds old", self._own
            )


def read_all(tables: Tables) -> list[RunRow]:
    """Read all heartbeat files, including files of dead runs, and return the row of `runs` that each file contains.

    In a catalog, where runs write no heartbeat files, the list is empty.
    """
    if tables.root is None:
        return []
    try:
        addresses = [address for address, *_ in storage.list_files(tables.spark, tables.address(DIRECTORY))]
    except OSError:  # no run has written here
        return []
    return [_read_file(tables.spark, address) for address in addresses]


def may_have_frozen_run(tables: Tables, longest: timedelta) -> bool:
    """Return whether a frozen (suspended) run may wake up and commit files that it wrote more than `longest` ago.

    The result is False in only two cases:

    - The latest run has ended, and all changes of that run and earlier runs are known to be complete. Delta then refuses
      commits of earlier runs.
    - The latest run is still running, and its last heartbeat is at most `longest` old. If it has no heartbeat file, the end
      of its lease counts as the time of its last heartbeat.
    """
    record = Runs(tables).read_record()
    if record.latest is None or record.lease_until is None:
        return not record.settled
    try:
        files = list(storage.list_files(tables.spark, tables.address(DIRECTORY))) if tables.root is not None else []
    except OSError:  # no run has written a heartbeat here
        files = []
    times = [modified for address, _, modified in files if address.endswith(f"/{record.latest.run_id}")]
    alive = datetime.fromtimestamp(times[0] / 1000, timezone.utc) if times else record.lease_until
    return datetime.now(timezone.utc) - alive > longest


def commits_may_collide(tables: Tables) -> bool:
    """Return whether the output's storage lets two writers commit the same table version, so that one commit is lost.

    This is true only for S3 without Delta's log store on DynamoDB. There, Delta 3.3 on Hadoop 3.3 writes the file of a
    commit without checking whether this file exists. For a catalog and on Databricks, the result is False.
    https://docs.delta.io/latest/delta-storage.html#amazon-s3
    """
    if tables.root is None or session.on_databricks():  # the program does not know where a catalog stores tables
        return False
    scheme = tables.root.partition(":")[0]
    configured = str(tables.spark.conf.get(f"spark.delta.logStore.{scheme}.impl", "") or "")
    return tables.root.startswith(_S3_SCHEMES) and not configured.endswith(_SAFE_LOG_STORES)


def parse(run_id: str, content: str | None) -> RunRow:
    """Return the row of `runs` that a heartbeat file contains; `run_id` is the file's name, `content` its text.

    `content` may be None or incomplete, because the run has just deleted the file or is writing it. In this case,
    return a row in which only the run id is set.
    """
    try:
        return RunRow.from_values({**json.loads(content or ""), "run_id": run_id})
    except (AttributeError, OverflowError, TypeError, ValueError):
        return RunRow(run_id)


def _read_file(spark: Any, address: str) -> RunRow:
    """Return the row of `runs` in the heartbeat file at `address`; only its run id is set if the file cannot be read."""
    with tempfile.TemporaryDirectory(dir=open_private_directory()) as scratch:
        copy = Path(scratch) / "row"
        try:
            storage.fetch(spark, address, copy)
            content = copy.read_text(encoding="utf8")
        except (OSError, ValueError):
            content = None
    return parse(address.rpartition("/")[2], content)
