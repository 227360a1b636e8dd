"""Number each commit, so that Delta skips or refuses what a run of an older epoch writes, and applies no commit twice.

Every commit carries Delta's (txnAppId, txnVersion). The version grows with the run's epoch and with each commit. Delta
skips a commit whose version is not above the table's last one, and refuses one whose table got another version
meanwhile. https://docs.delta.io/latest/delta-batch.html#idempotent-writes
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from delta.exceptions import DeltaConcurrentModificationException
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from entitymill.errors import OutputError
from entitymill.spark.session import override_conf
from entitymill.tables.layout import Tables

log = logging.getLogger(__name__)
APPLICATION, RUNS_APPLICATION = "entitymill", "entitymill-runs"
"""Application ids for Delta. `runs` has its own, because a second thread may write it while a statement runs."""
COMMITS_PER_EPOCH = 1_000_000
TRIES = 5
PAUSE_SECONDS = 0.5
"""Pause before the second attempt; doubled before each further one."""
RECENT_COMMITS = 10
"""A run looks for its own commit among this many: OPTIMIZE and runs with nothing to do may have committed after it."""
_SESSION = "spark.databricks.delta."
_STORAGE_FAULTS = ("java.io.IOException", "java.net.", "java.nio.file", "DeltaIOException", "UncheckedIOException")
_FINAL = ("FileNotFoundException", "AccessControlException", "AccessDeniedException", "PythonException", "No space left")


class Commits:
    """The numbered commits of one run."""

    def __init__(self, tables: Tables, run_id: str, epoch: int) -> None:
        """Start numbering; `tables` must use the run's private session."""
        self.epoch = epoch
        self._tables = tables
        self._run_id = run_id
        self._numbers = itertools.count(epoch * COMMITS_PER_EPOCH + 1)
        self._tries = TRIES
        self._last_numbers: dict[str, int] = {}
        self._open_changes = 0
        self._unit: int | None = None
        self.earlier_runs_settled = False
        """Whether nothing that earlier runs wrote is left to check."""

    @property
    def settled(self) -> bool:
        """Whether all changes of this run and of earlier ones are complete, so that the next run has nothing to check."""
        return self.earlier_runs_settled and self._open_changes == 0

    @contextmanager
    def track_change(self, unit: int | None = None) -> Iterator[None]:
        """Treat the commits inside the context as one change; if it raises, the run does not end settled.

        Args:
            unit: number of the unit, which Delta's history records for each of these commits.
        """
        self._open_changes += 1
        outer_unit = self._unit
        self._unit = unit or outer_unit
        yield
        self._unit = outer_unit
        self._open_changes -= 1

    def append(self, frame: DataFrame, name: str) -> None:
        """Append rows to a table in one commit."""
        options = self._options(name)
        self._commit(name, lambda: self._tables.append(frame, name, options))

    def replace(self, frame: DataFrame, name: str, condition: str | None = None) -> None:
        """Replace the rows that meet an SQL condition (None: all rows) in one commit; the new rows need not meet it."""
        options = self._options(name)
        self._commit(name, lambda: self._tables.replace(frame, name, condition, options))

    def execute(self, name: str, statement: Callable[[], object]) -> None:
        """Run an SQL statement that changes a table; meanwhile the private session's properties contain its number.

        Args:
            name: of the table.
            statement: makes at most one commit; may run again if it made none.
        """
        options = self._options(name)
        confs = {
            f"{_SESSION}write.txnAppId": options["txnAppId"],
            f"{_SESSION}write.txnVersion": options["txnVersion"],
            f"{_SESSION}commitInfo.userMetadata": options["userMetadata"],
        }

        def execute_numbered() -> None:
            with override_conf(self._tables.spark, confs):
                statement()

        self._commit(name, execute_numbered)

    def fence(self, name: str) -> None:
        """Make an empty commit to a table, so that Delta accepts no more commits of older epochs.

        Raises:
            OutputError: a run with a greater epoch has written the table.
        """
        self.append(self._tables.read(name).limit(0), name)
        self.check_committed(name)

    def check_committed(self, name: str) -> None:
        """Check that Delta accepted this run's latest commit to a table: it skips those of older epochs silently.

        Raises:
            OutputError: a run with a greater epoch has written the table.
        """
        if not self.has_committed(name):
            raise OutputError(
                f"output: a later run has written {self._tables.address(name)}; this run stops, that one continues."
            )

    def has_committed(self, name: str) -> bool:
        """Return whether this run's latest commit to a table is in the table's recent history."""
        # Two runs that read the same state of `runs` have the same numbers: only the run's id distinguishes them.
        own = {"entitymill": self._run_id, "number": self._last_numbers[name]}
        return any(own.items() <= about.items() for about in read_notes(self._tables, name))

    def stop_retrying(self) -> None:
        """Try further commits only once: for a run that fails because its storage is down."""
        self._tries = 1

    def _commit(self, name: str, commit: Callable[[], object]) -> None:
        with self.track_change():
            retry(name, commit, self._tries)

    def _options(self, name: str) -> dict[str, str]:
        number = self._last_numbers[name] = next(self._numbers)
        about: dict[str, object] = {"entitymill": self._run_id, "epoch": self.epoch, "number": number}
        if self._unit is not None:
            about["unit"] = self._unit
        application = RUNS_APPLICATION if name == "runs" else APPLICATION
        return {"txnAppId": application, "txnVersion": str(number), "userMetadata": json.dumps(about)}


def read_notes(tables: Tables, name: str) -> list[dict[str, Any]]:
    """Return what this program noted in a table's recent commits: entitymill (the run id), epoch, number, perhaps unit."""
    notes = []
    for row in tables.history(name, RECENT_COMMITS).collect():
        with suppress(ValueError, TypeError):
            about = json.loads(row["userMetadata"] or "")
            notes += [about] if isinstance(about, dict) and "entitymill" in about else []
    return notes


def retry(what: str, change: Callable[[], object], tries: int = TRIES) -> None:
    """Run a change, and retry it after errors that may be temporary.

    Args:
        what: name of the change in the log.
        change: may run again if it failed.
        tries: greatest number of attempts.
    """
    for attempt in range(tries):
        try:
            change()
        except Exception as error:
            if attempt == tries - 1 or not is_retryable(error):
                raise
            log.warning("%s: attempt %d failed with %s; retrying", what, attempt + 1, type(error).__name__)
            time.sleep(PAUSE_SECONDS * 2**attempt)
        else:
            return


def is_concurrent_write(error: Exception) -> bool:
    """Return whether a commit failed because another writer committed first."""
    return isinstance(error, DeltaConcurrentModificationException) or "Concurrent" in _join_java_classes(error)


def is_retryable(error: Exception) -> bool:
    """Return whether the same change may succeed on a retry: another writer committed first, or the storage failed."""
    classes = _join_java_classes(error)
    if any(name in classes for name in _FINAL):
        return False
    return is_concurrent_write(error) or any(name in classes for name in _STORAGE_FAULTS)


def _join_java_classes(error: Exception) -> str:
    """Return the Java classes and messages of an error and its causes, in one string."""
    if isinstance(error, Py4JJavaError):
        named, cause = [], error.java_exception
        while cause is not None:
            named.append(str(cause.toString())[:300])
            cause = cause.getCause()
        return " ".join(named)
    return str(error)[:2000] if isinstance(error, PySparkException) else type(error).__name__
