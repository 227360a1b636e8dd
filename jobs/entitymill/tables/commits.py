"""One change of a table at a time: fenced against a run that lost its lease, and tried again where trying again is safe.

Every commit carries Delta's own (txnAppId, txnVersion), the version growing with the lease's epoch. So a commit that took
effect although the storage layer said that it failed is skipped when it is tried again, and a run that was taken for dead
and wakes up finds its versions too old: Delta skips what it writes, or refuses it as concurrent.
https://docs.delta.io/latest/delta-batch.html#idempotent-writes
"""

from __future__ import annotations

import itertools
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from delta.exceptions import DeltaConcurrentModificationException
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from entitymill.platform import session, storage
from entitymill.platform.session import configured
from entitymill.settings.sections import OutputSettings
from entitymill.tables.layout import NAMES, Tables

log = logging.getLogger(__name__)
APPLICATION, OF_RUNS = "entitymill", "entitymill-runs"
"""Delta's applications. That of `runs` is another one: the lease is renewed while a statement runs, whose number the session
holds, and which Delta adds to the renewal's own."""
COMMITS_PER_EPOCH = 1_000_000
TRIES = 5
PAUSE_SECONDS = 0.5
"""Before the second try; doubled before each further one."""
_SESSION = "spark.databricks.delta."
_STORAGE_FAULTS = ("java.io.IOException", "java.net.", "java.nio.file", "DeltaIOException", "UncheckedIOException")
_FINAL = ("FileNotFoundException", "AccessControlException", "AccessDeniedException", "PythonException", "No space left")
_SCHEMES = ("s3:", "s3a:", "s3n:")
_ARBITERS = ("S3DynamoDBLogStore",)


class Commits:
    """The commits of one holder of the lease."""

    def __init__(self, tables: Tables, run_id: str, epoch: int) -> None:
        """Start counting.

        Args:
            run_id: of the holder.
            epoch: of the lease.
        """
        self._tables = tables
        self._run_id = run_id
        self._epoch = epoch
        self._versions = itertools.count(epoch * COMMITS_PER_EPOCH + 1)
        self._tries = TRIES

    def append(self, frame: DataFrame, name: str, unit: int | None = None, *, to: Tables | None = None) -> None:
        """Add rows.

        Args:
            frame: the rows.
            name: of the table.
            unit: that they are of: stands in Delta's record of the commit.
            to: other tables than the output's.
        """
        options = self._options(name, unit)
        retried(name, lambda: (to or self._tables).append(frame, name, options), self._tries)

    def replace(
        self, frame: DataFrame, name: str, condition: str | None = None, unit: int | None = None, *, to: Tables | None = None
    ) -> None:
        """Put rows in the place of those that meet a condition, or of all; the rest is as for `append`."""
        options = self._options(name, unit)
        retried(name, lambda: (to or self._tables).replace(frame, name, condition, options), self._tries)

    def change(self, name: str, statement: Callable[[], object], unit: int | None = None) -> None:
        """Run a statement of SQL, which finds in the session's confs what a writer has as options.

        Args:
            name: of the table, for the log.
            statement: makes at most one commit, and is safe to run again if it made none.
            unit: as for `append`.
        """
        options = self._options(name, unit)
        confs = {
            f"{_SESSION}write.txnAppId": options["txnAppId"],
            f"{_SESSION}write.txnVersion": options["txnVersion"],
            f"{_SESSION}commitInfo.userMetadata": options["userMetadata"],
        }

        def fenced() -> None:
            with configured(self._tables.spark, confs):
                statement()

        retried(name, fenced, self._tries)

    def try_once(self) -> None:
        """From now on: for a run that broke off since its storage is down, and has waited for it long enough."""
        self._tries = 1

    def fence(self, *places: Tables) -> None:
        """Commit nothing to every Delta table that is there: from now on no commit of an older epoch is taken."""
        for tables in places:
            for name in NAMES:
                if name != "runs" and tables.is_delta(name) and tables.exists(name):
                    self.append(tables.read(name).limit(0), name, to=tables)

    def _options(self, name: str, unit: int | None) -> dict[str, str]:
        told = {"entitymill": self._run_id, "epoch": self._epoch, **({} if unit is None else {"unit": unit})}
        application = OF_RUNS if name == "runs" else APPLICATION
        return {"txnAppId": application, "txnVersion": str(next(self._versions)), "userMetadata": json.dumps(told)}


def retried(what: str, change: Callable[[], object], tries: int = TRIES) -> None:
    """Do something again for as long as that may help.

    Args:
        what: for the log.
        change: is safe to run again if it failed.
        tries: at most.
    """
    for attempt in range(tries):
        try:
            change()
        except Exception as error:
            if attempt == tries - 1 or not worth_another_try(error):
                raise
            log.warning("%s: try %d failed with %s; trying again", what, attempt + 1, type(error).__name__)
            time.sleep(PAUSE_SECONDS * 2**attempt)
        else:
            return


def concurrent(error: Exception) -> bool:
    """Whether another writer's commit came between."""
    return isinstance(error, DeltaConcurrentModificationException) or "Concurrent" in _classes(error)


def worth_another_try(error: Exception) -> bool:
    """Whether the same change may succeed now: another writer came between, or storage failed."""
    classes = _classes(error)
    if any(name in classes for name in _FINAL):
        return False
    return concurrent(error) or any(name in classes for name in _STORAGE_FAULTS)


def _classes(error: Exception) -> str:
    """Java classes and first lines of an error and its causes, in one string."""
    if isinstance(error, Py4JJavaError):
        named, cause = [], error.java_exception
        while cause is not None:
            named.append(str(cause.toString())[:300])
            cause = cause.getCause()
        return " ".join(named)
    return str(error)[:2000] if isinstance(error, PySparkException) else type(error).__name__


class Claims:
    """One run's claim on an output, where the storage cannot put an object only if it is absent: s3a of Hadoop 3.3.

    There two drivers may both believe that they committed one version of a Delta table, and the lease is a row of such a
    table. So a run first puts an object of its own and then lists all; whoever sees another's withdraws and tries again. S3
    lists what was put before, so of two runs at least one sees the other, and never do both go on.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel
    """

    def __init__(
        self, spark: SparkSession, directory: str, name: str, process: str, dead: Callable[[str], bool], seconds: float
    ) -> None:
        """Nothing is put yet.

        Args:
            directory: of all claims on the output.
            name: of this claim; unique.
            process: that makes it, for others to tell whether it still lives.
            dead: whether such a process is known to be gone.
            seconds: after which a claim that was not renewed counts no more.
        """
        self._spark = spark
        self._directory = directory
        self._own = f"{directory}/{name}"
        self._process = process
        self._dead = dead
        self._milliseconds = 1000 * seconds

    def take(self) -> bool:
        """Claim the output, unless another claim stands; then this one is withdrawn."""
        self.renew()
        found = {address: modified for address, _, modified in storage.files(self._spark, self._directory)}
        now = found.pop(self._own)  # by the storage's clock, as all of them
        if not any(self._stands(address, now - modified) for address, modified in found.items()):
            return True
        self.release()
        return False

    def renew(self) -> None:
        """Put it, or put it anew."""
        storage.write(self._spark, self._own, self._process)

    def release(self) -> None:
        """Withdraw it."""
        storage.remove(self._spark, self._own)

    def _stands(self, address: str, age: int) -> bool:
        if age < self._milliseconds and not self._dead(self._read(address)):
            return True
        log.info("the claim %s is of a run that is gone", address.rpartition("/")[2])
        storage.remove(self._spark, address)
        return False

    def _read(self, address: str) -> str:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "claim"
            try:
                storage.fetch(self._spark, address, copy)
                return copy.read_text(encoding="utf8")
            except OSError:  # withdrawn meanwhile: it stood when it was listed, and one more try is cheap
                return ""


def claim_needed(spark: SparkSession, settings: OutputSettings) -> bool:
    """Whether commits to an output are not told apart by the storage, nor by anything before it."""
    if settings.path is None or session.on_databricks():  # a catalog's locations are not known here
        return False
    address = storage.qualify(spark, settings.path)
    scheme = address.partition(":")[0]
    configured = str(spark.conf.get(f"spark.delta.logStore.{scheme}.impl", "") or "")
    return address.startswith(_SCHEMES) and not configured.endswith(_ARBITERS)
