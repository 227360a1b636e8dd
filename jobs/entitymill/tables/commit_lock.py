"""Who may commit at all, where the storage cannot put an object only if it is absent: s3a of Hadoop 3.3.

There two drivers may both believe that they committed one version of a Delta table, and the lease is a row of such a table.
So before it stands something that needs no more than S3 has: a run puts an object of its own and then lists all. Whoever
sees another's withdraws and tries again. S3 lists what was put before, so of two runs at least one sees the other, and
never do both go on. https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import SparkSession

from entitymill.platform import session, storage
from entitymill.settings.sections import OutputSettings

log = logging.getLogger(__name__)
_SCHEMES = ("s3:", "s3a:", "s3n:")
_ARBITERS = ("S3DynamoDBLogStore",)


class Claims:
    """One run's claim on an output."""

    def __init__(
        self, spark: SparkSession, directory: str, name: str, process: str, dead: Callable[[str], bool], seconds: float
    ) -> None:
        """Nothing is put yet.

        Args:
            spark: the session.
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


def needed(spark: SparkSession, settings: OutputSettings) -> bool:
    """Whether commits to an output are not told apart by the storage, nor by anything before it."""
    if settings.path is None or session.on_databricks():  # a catalog's locations are not known here
        return False
    address = storage.qualify(spark, settings.path)
    scheme = address.partition(":")[0]
    configured = str(spark.conf.get(f"spark.delta.logStore.{scheme}.impl", "") or "")
    return address.startswith(_SCHEMES) and not configured.endswith(_ARBITERS)
