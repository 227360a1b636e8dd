"""Give each commit a transaction number, so that Delta applies it only once, and refuses commits of earlier runs.

The number is Delta's txnVersion. It is computed from the run's epoch (a number that grows with each run) and the number of
the commit in the run. Delta skips a commit whose txnVersion is not greater than the last one in the table. It rejects a
commit if another writer has changed the table's txnVersion since the commit began.
https://docs.delta.io/latest/delta-batch.html#idempotent-writes
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from delta import exceptions as delta_exceptions
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from entitymill.errors import OutputError
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
APPLICATION, RUNS_APPLICATION = "entitymill", "entitymill-runs"
"""Values of txnAppId. `runs` has its own value, because the heartbeat thread may write `runs` during another commit."""
COMMITS_PER_EPOCH = 1_000_000
"""The n-th commit of a run has the txnVersion epoch * COMMITS_PER_EPOCH + n."""
TRIES = 5
PAUSE_SECONDS = 0.5
"""Pause before the second attempt; each later pause is twice as long as the one before."""
RECENT_COMMITS = 10
"""Number of recent commits in which a run looks for its own commit: OPTIMIZE or an idle run may have committed since."""
_SESSION = "spark.databricks.delta."
_TEMPORARY_ERRORS = ("java.io.IOException", "java.net.", "java.nio.file", "DeltaIOException", "UncheckedIOException")
_CONFLICTS = (
    delta_exceptions.ConcurrentAppendException,
    delta_exceptions.ConcurrentDeleteDeleteException,
    delta_exceptions.ConcurrentDeleteReadException,
    delta_exceptions.ConcurrentTransactionException,
    delta_exceptions.ConcurrentWriteException,
    delta_exceptions.DeltaConcurrentModificationException,
)
_PERMANENT_ERRORS = (
    "FileNotFoundException",
    "AccessControlException",
    "AccessDeniedException",
    "PythonException",
    "No space left",
)


class Commits:
    """Makes the Delta commits of one run, with increasing transaction numbers.

    Because of the numbers, Delta skips a repeated commit, and refuses all commits once a later run has taken over.
    """

    def __init__(self, tables: Tables, run_id: str, epoch: int) -> None:
        """Start with the first number of the epoch; `tables` must be in a private session (see `private_session`)."""
        self.epoch = epoch
        self.run_id = run_id
        self.counts: Counter[str] = Counter()
        """Number of commits that raised no error, for each table."""
        self._tables = tables
        self._numbers = itertools.count(epoch * COMMITS_PER_EPOCH + 1)
        self._tries = TRIES
        self._last_numbers: dict[str, int] = {}
        self._open_changes = 0
        self._unit: int | None = None
        self.earlier_runs_settled = False
        """Whether all changes of earlier runs are known to be complete."""

    @property
    def settled(self) -> bool:
        """Whether all changes of this run and of earlier runs are complete, so that the next run has nothing to check."""
        return self.earlier_runs_settled and self._open_changes == 0

    @contextmanager
    def track_change(self, unit: int | None = None) -> Iterator[None]:
        """Treat the commits inside the `with` block as one change; if the block raises, `settled` stays False.

        Args:
            unit: number of the unit of work (documents that are committed together), which Delta's history then records with
                each commit. None keeps the number that an outer block has set.
        """
        self._open_changes += 1
        outer_unit = self._unit
        self._unit = unit or outer_unit
        yield
        self._unit = outer_unit
        self._open_changes -= 1

    def append(self, frame: DataFrame, name: str) -> None:
        """Append rows to a table in one commit."""
        options = self._number_commit(name)
        self._commit(name, lambda: self._tables.append(frame, name, options))

    def replace(self, frame: DataFrame, name: str, condition: str | None = None, *, after_conflict: bool = True) -> None:
        """Replace the rows that meet an SQL condition (None: all rows) in one commit; the new rows need not meet it.

        Args:
            after_conflict: whether to retry if another writer has committed first.
        """
        options = self._number_commit(name)
        self._commit(name, lambda: self._tables.replace(frame, name, condition, options), after_conflict=after_conflict)

    def execute(self, name: str, statement: Callable[..., object]) -> None:
        """Call a function that runs an SQL statement, and give it the next transaction number as Spark properties.

        Args:
            name: name of the table that the statement changes.
            statement: function that makes at most one commit, with the Spark properties in its argument `confs` (see
                `private_session.run_statement`). After an error that may be temporary, it is called again.
        """
        options = self._number_commit(name)
        confs = {
            f"{_SESSION}write.txnAppId": options["txnAppId"],
            f"{_SESSION}write.txnVersion": options["txnVersion"],
            f"{_SESSION}commitInfo.userMetadata": options["userMetadata"],
        }
        self._commit(name, lambda: statement(confs=confs))

    def fence(self, name: str) -> None:
        """Make an empty commit to a table, after which Delta accepts no commit of a run with an older epoch.

        Raise OutputError if a later run has written to the table.
        """
        self.append(self._tables.read(name).limit(0), name)
        self.check_committed(name)

    def check_committed(self, name: str) -> None:
        """Raise OutputError if Delta skipped this run's latest commit to a table, because a later run has written to it.

        Delta skips a commit without an error if its transaction number is not greater than the table's last one.
        """
        if not self.has_committed(name):
            raise OutputError(
                f"output: a later run has written to {self._tables.address(name)}, so this run stops; "
                "the later run continues."
            )

    def has_committed(self, name: str) -> bool:
        """Return whether Delta accepted this run's latest commit to a table.

        Call this only after a commit to the table; only the newest RECENT_COMMITS commits are searched.
        """
        # Two runs that read the same state of `runs` use the same transaction numbers, so the run id is compared, too.
        own = {"entitymill": self.run_id, "number": self._last_numbers[name]}
        return any(own.items() <= about.items() for about in read_notes(self._tables, name))

    def stop_retrying(self) -> None:
        """Try each later commit only once, because the run is failing with a storage error."""
        self._tries = 1

    def _commit(self, name: str, commit: Callable[[], object], *, after_conflict: bool = True) -> None:
        """Call a function that commits to a table, retry it after temporary errors, and count the commit."""
        # Commits to `runs` change no documents, and the heartbeat thread may make one at any time: they do not count.
        with nullcontext() if name == "runs" else self.track_change():
            retry(name, commit, self._tries, after_conflict=after_conflict)
            self.counts[name] += 1

    def _number_commit(self, name: str) -> dict[str, str]:
        """Return options for Delta's writer: the next transaction number, and JSON for the table's history."""
        number = self._last_numbers[name] = next(self._numbers)
        about: dict[str, object] = {"entitymill": self.run_id, "epoch": self.epoch, "number": number}
        if self._unit is not None:
            about["unit"] = self._unit
        application = RUNS_APPLICATION if name == "runs" else APPLICATION
        return {"txnAppId": application, "txnVersion": str(number), "userMetadata": json.dumps(about)}


def read_notes(tables: Tables, name: str) -> list[dict[str, Any]]:
    """Return the notes (JSON objects in userMetadata) that this program wrote in a table's recent commits, newest first.

    The keys are entitymill (the run id), epoch, number (the transaction number) and, for documents, unit (the number of the
    unit of work). Idle runs write only entitymill.
    """
    notes = []
    for row in tables.history(name, RECENT_COMMITS).collect():
        with suppress(ValueError, TypeError):
            about = json.loads(row["userMetadata"] or "")
            notes += [about] if isinstance(about, dict) and "entitymill" in about else []
    return notes


def retry(what: str, change: Callable[[], object], tries: int = TRIES, *, after_conflict: bool = True) -> None:
    """Call a function that changes a table, and call it again after errors that may be temporary.

    Raise any other error immediately, and the error of the last attempt.

    Args:
        what: what the function changes, for log messages.
        change: must be safe to call again after a failure.
        tries: maximum number of attempts.
        after_conflict: whether to retry if another writer has committed first.
    """
    for attempt in range(tries):
        try:
            change()
        except Exception as error:
            lost = not after_conflict and is_concurrent_write(error)
            if attempt == tries - 1 or lost or not is_retryable(error):
                raise
            log.warning("attempt %d to change %s failed with %s; retrying", attempt + 1, what, type(error).__name__)
            time.sleep(PAUSE_SECONDS * 2**attempt)
        else:
            return


def is_concurrent_write(error: Exception) -> bool:
    """Return whether a commit failed because another writer committed first."""
    return isinstance(error, _CONFLICTS) or "Concurrent" in _join_java_classes(error)


def is_retryable(error: Exception) -> bool:
    """Return whether a retry may succeed: another writer committed first, or the storage failed temporarily."""
    classes = _join_java_classes(error)
    if any(name in classes for name in _PERMANENT_ERRORS):
        return False
    return is_concurrent_write(error) or any(name in classes for name in _TEMPORARY_ERRORS)


def _join_java_classes(error: Exception) -> str:
    """Return the Java classes and messages of an error and its causes in one string, each cut to 300 characters.

    For an error of PySpark, return the first 2,000 characters of its message; for any other error, return its class name.
    """
    if isinstance(error, Py4JJavaError):
        named, cause = [], error.java_exception
        while cause is not None:
            named.append(str(cause.toString())[:300])
            cause = cause.getCause()
        return " ".join(named)
    return str(error)[:2000] if isinstance(error, PySparkException) else type(error).__name__
