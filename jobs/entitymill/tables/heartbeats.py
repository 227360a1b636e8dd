"""Signs of life of the runs of one output: a small file for each run beside the tables, written again while it works.

No Spark job is needed to write one, so a busy cluster delays none. Their age is measured by the storage's own clock.
They save work and decide nothing, except on storage where Delta's commits are not told apart (S3 without a commit
service): there the order "first put your own, then list all" lets at most one of several runs that start at once go on,
since S3 lists what was put before. https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entitymill.spark import session, storage
from entitymill.tables.layout import Tables

log = logging.getLogger(__name__)
DIRECTORY = "heartbeats"
_SCHEMES, _ARBITERS = ("s3:", "s3a:", "s3n:"), ("S3DynamoDBLogStore",)


class Heartbeat:
    """The sign of life of one run, and a look at those of others."""

    def __init__(self, tables: Tables, run_id: str, lease_seconds: float) -> None:
        """Name the file; nothing is written yet.

        Args:
            tables: of the output, which must have a path.
            run_id: of the run; the name of its file.
            lease_seconds: age above which a sign of life counts no more.
        """
        self._spark = tables.spark
        self._directory = tables.address(DIRECTORY)
        self._own = f"{self._directory}/{run_id}"
        self._milliseconds = 1000 * lease_seconds

    def beat(self, row: Mapping[str, Any]) -> None:
        """Write the sign of life.

        Args:
            row: of the run, as it stands by now; for `entitymill runs`.
        """
        storage.write(self._spark, self._own, json.dumps(row, default=str))

    def read_other_runs(self) -> list[dict[str, Any]]:
        """Return the rows of all other runs that are alive, and delete what dead ones left; the own file must be there."""
        found = {address: modified for address, _, modified in storage.list_files(self._spark, self._directory)}
        now = found.pop(self._own, max(found.values(), default=0))
        alive = []
        for address, modified in found.items():
            if now - modified < self._milliseconds:
                alive.append(_read(self._spark, address))
            else:
                storage.remove(self._spark, address)
        return alive

    def stop(self) -> None:
        """Delete the sign of life."""
        try:
            storage.remove(self._spark, self._own)
            storage.remove_empty(self._spark, self._directory)
        except OSError:
            log.exception("the heartbeat could not be deleted: other runs wait until it is outdated")


def read_all(tables: Tables) -> dict[str, dict[str, Any]]:
    """Return the row of each run that left a sign of life, by run id."""
    if tables.root is None:
        return {}
    try:
        addresses = [address for address, *_ in storage.list_files(tables.spark, tables.address(DIRECTORY))]
    except OSError:  # no run has been here
        return {}
    return {address.rpartition("/")[2]: _read(tables.spark, address) for address in addresses}


def commits_may_collide(tables: Tables) -> bool:
    """Whether the storage lets two writers each believe that they committed one version of a Delta table.

    Delta's store of commits for S3 (3.3, on Hadoop 3.3) puts them without a condition, unless DynamoDB arbitrates.
    https://docs.delta.io/latest/delta-storage.html#amazon-s3
    """
    if tables.root is None or session.on_databricks():  # a catalog's locations are not known here
        return False
    scheme = tables.root.partition(":")[0]
    configured = str(tables.spark.conf.get(f"spark.delta.logStore.{scheme}.impl", "") or "")
    return tables.root.startswith(_SCHEMES) and not configured.endswith(_ARBITERS)


def _read(spark: Any, address: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "row"
        try:
            storage.fetch(spark, address, copy)
            return dict(json.loads(copy.read_text(encoding="utf8")))
        except (OSError, ValueError):  # deleted, or being written, meanwhile
            return {}
