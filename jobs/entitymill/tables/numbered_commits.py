"""Give each commit a transaction number, so that Delta applies it only once, and refuses commits of earlier runs.

A transaction number (Delta's txnVersion) is computed from the run's epoch, a number that grows with each run, and the
commit's number in the run. Delta skips a commit, without an error, if its txnVersion is not greater than the table's last
one. Delta raises an error if another writer has changed the table's txnVersion since the commit began.
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
"""Values of Delta's txnAppId; transaction numbers of different values are independent. `runs` has its own value, because
the heartbeat thread may write `runs` during a commit to another table."""
COMMITS_PER_EPOCH = 1_000_000
"""The n-th commit of a run has the txnVersion epoch * COMMITS_PER_EPOCH + n. `epoch` is the run's number, greater than those
of all earlier runs."""
TRIES = 5
PAUSE_SECONDS = 0.5
"""Pause before the second attempt; each later pause is twice as long as the one before."""
RECENT_COMMITS = 10
"""Number of recent commits in which a run looks for its own commit; OPTIMIZE or idle runs may have added newer ones."""
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

    Because of these numbers, Delta skips a repeated commit, and refuses the run's commits after a later run has taken over.
    """

    def __init__(self, tables: Tables, run_id: str, epoch: int) -> None:
        """Start the transaction numbers (Delta's txnVersion) at the first one of this run's epoch.

        `epoch` is the number that the run got with its lease. It grows with each run, and COMMITS_PER_EPOCH transaction
        numbers belong to each epoch. The Spark session of `tables` must come from `open_private_session`.
        """
        self.epoch = epoch
        self.run_id = run_id
        self.counts: Counter[str] = Counter()
        """Number of commits that raised no error, by table name; commits that Delta skipped are included."""
        self._tables = tables
        self._numbers = itertools.count(epoch * COMMITS_PER_EPOCH + 1)
        self._tries = TRIES
        self._last_numbers: dict[str, int] = {}
        self._open_changes = 0
        self._unit: int | None = None
        self.earlier_runs_settled = False
        """Whether all changes of earlier runs are known to be complete."""
        self.found_later_run = False
        """Whether `check_committed` found that Delta skipped a commit, usually because a later run has written there."""

    @property
    def settled(self) -> bool:
        """Whether all changes of this run and of earlier runs are complete, so that the next run has nothing to check."""
        return self.earlier_runs_settled and self._open_changes == 0

    @contextmanager
    def track_change(self, unit: int | None = None) -> Iterator[None]:
        """Treat the commits inside the `with` block as one change, which is complete when the block ends without an error.

        Until then, `settled` is False; if the block raises, `settled` is False for the rest of the run.

        Args:
            unit: number of the unit of work (documents that are committed together), which Delta's history records with
                each commit in the block. None keeps the number that an outer block has set.
        """
        self._open_changes += 1
        outer_unit = self._unit
        self._unit = unit or outer_unit
        yield
        self._unit = outer_unit
        self._open_changes -= 1

    def append(self, frame: DataFrame, name: str) -> None:
        """Append rows to a table in one commit."""
        options = self._take_commit_number(name)
        self._commit(name, lambda: self._tables.append(frame, name, options))

    def replace(self, frame: DataFrame, name: str, condition: str | None = None, *, after_conflict: bool = True) -> None:
        """Replace the rows of a table that meet an SQL condition (None: all rows) by the rows of `frame`, in one commit.

        The new rows need not meet the condition. `after_conflict` says whether to retry if another writer committed first.
        """
        options = self._take_commit_number(name)
        self._commit(name, lambda: self._tables.replace(frame, name, condition, options), after_conflict=after_conflict)

    def execute(self, name: str, statement: Callable[..., object]) -> None:
        """Make one commit with an SQL statement, which gets the next transaction number as Spark properties.

        Args:
            name: name of the table that the statement changes.
            statement: function that runs the SQL statement, and makes at most one commit. It must use the Spark properties
                that it gets as `confs`. It is called again after an error that may be temporary.
        """
        options = self._take_commit_number(name)
        confs = {
            f"{_SESSION}write.txnAppId": options["txnAppId"],
            f"{_SESSION}write.txnVersion": options["txnVersion"],
            f"{_SESSION}commitInfo.userMetadata": options["userMetadata"],
        }
        self._commit(name, lambda: statement(confs=confs))

    def fence(self, name: str) -> None:
        """Make an empty commit to a table, after which Delta accepts no commit of an earlier run.

        Earlier runs are those with a smaller epoch (number of a run). Raise OutputError if a later run has written to the
        table.
        """
        self.append(self._tables.read(name).limit(0), name)
        self.check_committed(name)

    def check_committed(self, name: str) -> None:
        """Raise OutputError if Delta skipped this run's latest commit to a table, because a later run has written there.

        Delta skips a commit without an error if its transaction number is not greater than the table's last one. Before the
        error is raised, `found_later_run` becomes True.
        """
        if not self.has_committed(name):
            self.found_later_run = True
            raise OutputError(
                f"output: a later run has written to {self._tables.address(name)}, so this run stops; the later run "
                "continues. If there is no later run, somebody has restored an old version of the table `runs`: run again."
            )

    def has_committed(self, name: str) -> bool:
        """Return whether Delta accepted this run's latest commit to a table, instead of skipping it.

        This run must have tried a commit to the table. Only the table's newest RECENT_COMMITS commits are searched.
        """
        # Two runs that read the same state of `runs` use the same transaction numbers, so the run id is compared, too.
        own = {"entitymill": self.run_id, "number": self._last_numbers[name]}
        return any(own.items() <= about.items() for about in read_notes(self._tables, name))

    def stop_retrying(self) -> None:
        """Try each later commit of the run only once. Call this if the run is failing with a storage error."""
        self._tries = 1

    def _commit(self, name: str, commit: Callable[[], object], *, after_conflict: bool = True) -> None:
        """Call `commit`, which commits to the table `name`; retry it after temporary errors, and count the commit.

        If the last attempt fails, `settled` is False for the rest of the run, except if the table is `runs`.
        """
        # Commits to `runs` change no documents, and the heartbeat thread may make one at any time: `settled` ignores them.
        with nullcontext() if name == "runs" else self.track_change():
            retry(name, commit, self._tries, after_conflict=after_conflict)
            self.counts[name] += 1

    def _take_commit_number(self, name: str) -> dict[str, str]:
        """Take the next transaction number for a commit to a table, and return options for Delta's writer.

        The options contain the number, and a JSON object for the table's history (see `read_notes`). The number is also
        stored, so that `has_committed` can look for it.
        """
        number = self._last_numbers[name] = next(self._numbers)
        about: dict[str, object] = {"entitymill": self.run_id, "epoch": self.epoch, "number": number}
        if self._unit is not None:
            about["unit"] = self._unit
        application = RUNS_APPLICATION if name == "runs" else APPLICATION
        return {"txnAppId": application, "txnVersion": str(number), "userMetadata": json.dumps(about)}


def read_notes(tables: Tables, name: str) -> list[dict[str, Any]]:
    """Return the notes that this program wrote in the newest RECENT_COMMITS commits of a table, newest first.

    A note is the JSON object in a commit's userMetadata. Its keys are entitymill (the run id), epoch (the run's number,
    greater than those of all earlier runs), number (the transaction number) and, if documents were committed, unit (the
    number of the unit of work). A note of an idle run has only the key entitymill.
    """
    notes = []
    for row in tables.history(name, RECENT_COMMITS).collect():
        with suppress(ValueError, TypeError):
            about = json.loads(row["userMetadata"] or "")
            notes += [about] if isinstance(about, dict) and "entitymill" in about else []
    return notes


def retry(what: str, change: Callable[[], object], tries: int = TRIES, *, after_conflict: bool = True) -> None:
    """Call a function that changes a table, and call it again after errors that may be temporary.

    Before each retry, log a warning and pause (see PAUSE_SECONDS). Raise any other error at once. If all attempts fail,
    raise the last error.

    Args:
        what: name of the table or files that the function changes, for log messages.
        change: the function; it must be safe to call it again after it failed.
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
    """Return whether an error means that a commit failed because another writer committed first."""
    return isinstance(error, _CONFLICTS) or "Concurrent" in _describe_java_causes(error)


def is_retryable(error: Exception) -> bool:
    """Return whether a retry may succeed: another writer committed first, or the storage failed temporarily.

    Return False if the error names one of _PERMANENT_ERRORS, even if another writer committed first. Errors that are
    neither Py4JJavaError nor PySparkException, such as OSError and StorageError, are never retryable.
    """
    classes = _describe_java_causes(error)
    if any(name in classes for name in _PERMANENT_ERRORS):
        return False
    return is_concurrent_write(error) or any(name in classes for name in _TEMPORARY_ERRORS)


def _describe_java_causes(error: Exception) -> str:
    """Return a text in which callers look for class names of Java exceptions; its content depends on the error's type.

    - Py4JJavaError: Java class and message of the exception and of each of its causes, each cut to 300 characters, joined by
      spaces.
    - PySparkException: the first 2,000 characters of its message. Its causes are not walked.
    - Any other error: only the name of its Python class, without message and causes.
    """
    if isinstance(error, Py4JJavaError):
        named, cause = [], error.java_exception
        while cause is not None:
            named.append(str(cause.toString())[:300])
            cause = cause.getCause()
        return " ".join(named)
    return str(error)[:2000] if isinstance(error, PySparkException) else type(error).__name__
