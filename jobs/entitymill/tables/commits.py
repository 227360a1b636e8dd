"""Numbered commits: Delta skips or refuses what a run of an older epoch writes, and repeats no commit.

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
"""Delta's applications: of all tables, and of `runs`, which a second thread may write while a statement runs."""
COMMITS_PER_EPOCH = 1_000_000
TRIES = 5
PAUSE_SECONDS = 0.5
"""Before the second try; doubled before each further one."""
RECENT_COMMITS = 10
"""Commits of a table among which a run looks for its own: OPTIMIZE and runs with nothing to do may have come after it."""
_SESSION = "spark.databricks.delta."
_STORAGE_FAULTS = ("java.io.IOException", "java.net.", "java.nio.file", "DeltaIOException", "UncheckedIOException")
_FINAL = ("FileNotFoundException", "AccessControlException", "AccessDeniedException", "PythonException", "No space left")


class Commits:
    """The commits of one run."""

    def __init__(self, tables: Tables, run_id: str, epoch: int) -> None:
        """Start counting.

        Args:
            tables: in the run's private session.
            run_id: of the run.
            epoch: of the run.
        """
        self.epoch = epoch
        self._tables = tables
        self._run_id = run_id
        self._numbers = itertools.count(epoch * COMMITS_PER_EPOCH + 1)
        self._tries = TRIES
        self._last_numbers: dict[str, int] = {}
        self._open_changes = 0
        self._unit: int | None = None
        self.earlier_runs_settled = False
        """Whether the tables are settled from before: set when nothing of earlier runs is left to check."""

    @property
    def settled(self) -> bool:
        """Whether all changes of this run and of earlier ones are known to be whole: the next run has nothing to check."""
        return self.earlier_runs_settled and self._open_changes == 0

    @contextmanager
    def track_change(self, unit: int | None = None) -> Iterator[None]:
        """Mark what happens inside as one change: if it does not come to its end, the run is not settled.

        Args:
            unit: number that stands in Delta's record of the commits inside.
        """
        self._open_changes += 1
        outer, self._unit = self._unit, unit or self._unit
        yield
        self._unit = outer
        self._open_changes -= 1

    def append(self, frame: DataFrame, name: str) -> None:
        """Add rows to a table in one commit."""
        options = self._options(name)
        self._commit(name, lambda: self._tables.append(frame, name, options))

    def replace(self, frame: DataFrame, name: str, condition: str | None = None) -> None:
        """Replace the rows that meet an SQL condition, or all, in one commit; the new rows need not meet it."""
        options = self._options(name)
        self._commit(name, lambda: self._tables.replace(frame, name, condition, options))

    def execute(self, name: str, statement: Callable[[], object]) -> None:
        """Run an SQL statement that changes a table; its number stands in the private session meanwhile.

        Args:
            name: of the table.
            statement: makes at most one commit, and is safe to run again if it made none.
        """
        options = self._options(name)
        confs = {
            f"{_SESSION}write.txnAppId": options["txnAppId"],
            f"{_SESSION}write.txnVersion": options["txnVersion"],
            f"{_SESSION}commitInfo.userMetadata": options["userMetadata"],
        }

        def numbered() -> None:
            with override_conf(self._tables.spark, confs):
                statement()

        self._commit(name, numbered)

    def fence(self, name: str) -> None:
        """Commit nothing to a table, so that from now on Delta takes no commit of an older epoch.

        Raises:
            OutputError: a run of a greater epoch was there before.
        """
        self.append(self._tables.read(name).limit(0), name)
        self.check_committed(name)

    def check_committed(self, name: str) -> None:
        """Make sure that Delta took this run's latest commit to a table: it skips those of older epochs without a word.

        Raises:
            OutputError: a run of a greater epoch was there before.
        """
        if not self.has_committed(name):
            raise OutputError(
                f"output: a later run has written {self._tables.address(name)}; this run stops, that one continues."
            )

    def has_committed(self, name: str) -> bool:
        """Whether this run's latest commit to a table is among the table's latest."""
        # Two runs that looked at the same `runs` have the same numbers: only the run's id tells them apart.
        own = {"entitymill": self._run_id, "number": self._last_numbers[name]}
        return any(own.items() <= about.items() for about in read_notes(self._tables, name))

    def stop_retrying(self) -> None:
        """Stop repeating commits: for a run that fails because its storage is down."""
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
    """Return what this program noted in Delta's record of a table's latest commits: entitymill (run id), epoch, number."""
    notes = []
    for row in tables.history(name, RECENT_COMMITS).collect():
        with suppress(ValueError, TypeError):
            about = json.loads(row["userMetadata"] or "")
            notes += [about] if isinstance(about, dict) and "entitymill" in about else []
    return notes


def retry(what: str, change: Callable[[], object], tries: int = TRIES) -> None:
    """Repeat something that failed for as long as that may help.

    Args:
        what: for the log.
        change: is safe to run again if it failed.
        tries: at most.
    """
    for attempt in range(tries):
        try:
            change()
        except Exception as error:
            if attempt == tries - 1 or not is_retryable(error):
                raise
            log.warning("%s: try %d failed with %s; trying again", what, attempt + 1, type(error).__name__)
            time.sleep(PAUSE_SECONDS * 2**attempt)
        else:
            return


def is_concurrent_write(error: Exception) -> bool:
    """Whether another writer's commit came between."""
    return isinstance(error, DeltaConcurrentModificationException) or "Concurrent" in _classes(error)


def is_retryable(error: Exception) -> bool:
    """Whether the same change may succeed now: another writer came between, or storage failed."""
    classes = _classes(error)
    if any(name in classes for name in _FINAL):
        return False
    return is_concurrent_write(error) or any(name in classes for name in _STORAGE_FAULTS)


def _classes(error: Exception) -> str:
    """Return the Java classes and first lines of an error and its causes, in one string."""
    if isinstance(error, Py4JJavaError):
        named, cause = [], error.java_exception
        while cause is not None:
            named.append(str(cause.toString())[:300])
            cause = cause.getCause()
        return " ".join(named)
    return str(error)[:2000] if isinstance(error, PySparkException) else type(error).__name__
