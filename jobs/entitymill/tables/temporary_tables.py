"""Write a run's temporary tables, which store rows that the run reads more than once.

A run splits its work into units (documents that are published together). One table stores all texts, partitioned by unit.
The run needs it if there are several units, or if Spark may have to read the source again after it changed. If Spark Connect
refuses to cache rows, each unit also gets a table for its results.

These Delta tables are next to the output's tables. Their names begin with an underscore or, in a catalog, with
`entitymill_`, and contain the run's epoch (a number that no other run has). The run removes its temporary tables; if it
dies, the next run removes them.
"""

from __future__ import annotations

import logging
import re

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.spark import spark_connect, storage
from entitymill.tables.numbered_commits import retry
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
UNIT = "unit"
_PREFIX, _RESULTS = "units_", "_results_"
_NO_STATISTICS = ("delta.dataSkippingNumIndexedCols", "0")
"""Table property that turns off Delta's column statistics, because they would copy parts of texts into the Delta log."""


class TemporaryTable:
    """Writes and removes a temporary table of one run, with the texts of all its units, or with the results of one unit."""

    def __init__(self, tables: Tables, epoch: int, results_of: int | None = None) -> None:
        """Choose the table's name; this writes nothing.

        Args:
            epoch: epoch of the run (`Lease.epoch`, a number that no other run has), which becomes part of the name.
            results_of: number of the unit whose results will be in the table; None for a table of the texts of all units.
        """
        self._tables = tables
        self._name = f"{_PREFIX}{epoch}" if results_of is None else f"{_PREFIX}{epoch}{_RESULTS}{results_of}"
        self._created = False
        self._directory: str | None = None

    def write(self, documents: DataFrame) -> DataFrame:
        """Create the table, write documents to it, and return a DataFrame of the written rows."""
        self.prepare(documents)
        return self.fill(documents)

    def prepare(self, documents: DataFrame) -> None:
        """Drop any table with this table's name and, in a catalog, create an empty table with the columns of `documents`.

        Outside a catalog, `fill` creates the table. Call this method in the thread that makes the run's commits. Otherwise,
        the session could have the transaction number of a commit at that moment, and Delta would use this number here.
        """
        self._tables.drop(self._name)
        self._created = True
        if self._tables.root is None:
            # In a catalog, a failed write would otherwise leave files that belong to no table.
            table = documents.limit(0).writeTo(self._tables.sql_name(self._name)).using("delta")
            table = table.tableProperty(*_NO_STATISTICS)
            (table.partitionedBy(F.col(UNIT)) if UNIT in documents.columns else table).create()
            detail = self._tables.detail(self._name)
            self._directory = None if detail is None else str(detail["location"])

    def fill(self, documents: DataFrame) -> DataFrame:
        """Write documents in one commit, partitioned by the column UNIT if there is one; return the table as a DataFrame.

        The caller must have called `prepare`.
        """
        if self._tables.root is not None:
            writer = documents.write.format("delta").option(*_NO_STATISTICS)
            if UNIT in documents.columns:
                writer = writer.partitionBy(UNIT)
            writer.save(self._tables.address(self._name))
        else:
            # Without an explicit number, Delta would use one that another thread may have set in the session.
            number = {"txnAppId": self._name, "txnVersion": "1"}
            retry(self._name, lambda: self._tables.append(documents, self._name, number))
        return self._tables.read(self._name)

    def close(self) -> None:
        """Remove the table if it was created; log errors and raise none, so that they do not hide why the run failed."""
        if not self._created:
            return
        self._created = False
        try:
            if self._was_dropped() and self._directory is not None:
                storage.remove(self._tables.spark, self._directory)
            self._tables.drop(self._name)
        except Exception:
            log.exception("the temporary table %s could not be removed; the next run will remove it", self._name)

    def _was_dropped(self) -> bool:
        """Return whether a later run has dropped the table from the catalog, because this run was frozen.

        If so, tasks of this run may have written texts into the table's directory since. No other run would delete these
        texts. Outside a catalog, and with Spark Connect, which gives no access to files, the result is False.
        """
        tables = self._tables
        if tables.root is not None or spark_connect.is_remote(tables.spark):
            return False
        return not tables.spark.catalog.tableExists(tables.catalog_name(self._name))


def find_temporary_tables(tables: Tables) -> list[str]:
    """Return the names of the temporary tables of all runs, active or dead, in the form that `list_temporary` returns."""
    return tables.list_temporary(_PREFIX)


def remove_leftovers(tables: Tables, epoch: int) -> None:
    """Remove the temporary tables of earlier runs: those whose epoch (number of a run) is less than `epoch`."""
    for name in find_temporary_tables(tables):
        number = re.fullmatch(rf"{_PREFIX}(\d+)({_RESULTS}\d+)?", name)
        if number and int(number[1]) < epoch:
            tables.drop(name)
