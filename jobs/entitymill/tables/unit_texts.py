"""Store rows that a run reads more than once in hidden tables next to the output's tables.

These are the texts of a run that has several units of work (documents that are published together), partitioned by unit, so
that each unit reads only its own texts; and, if the session does not cache rows, the results of each unit. A table's name
contains the run's epoch (see `lease`), so no two runs share a table. The run removes its tables. If a run dies, the next
run removes them.
"""

from __future__ import annotations

import logging
import re

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.tables.numbered_commits import retry
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
UNIT = "unit"
_PREFIX, _RESULTS = "units_", "_results_"
_NO_STATISTICS = ("delta.dataSkippingNumIndexedCols", "0")
"""Table property that turns statistics off, because they would copy texts into the Delta log."""


class UnitTable:
    """Writes and removes a hidden table of one run, with the texts of all its units, or with the results of one unit."""

    def __init__(self, tables: Tables, epoch: int, results_of: int | None = None) -> None:
        """Choose the table's name; nothing is written yet.

        Args:
            tables: tables of the output.
            epoch: epoch of the run.
            results_of: number of the unit whose results the table gets; None if it gets the texts of all units.
        """
        self._tables = tables
        self._name = f"{_PREFIX}{epoch}" if results_of is None else f"{_PREFIX}{epoch}{_RESULTS}{results_of}"
        self._created = False

    def write(self, documents: DataFrame) -> DataFrame:
        """Create the table, write documents to it, partitioned by their column UNIT, and return the written rows."""
        self.create(documents)
        return self.fill(documents)

    def create(self, documents: DataFrame) -> None:
        """Create the table without rows, with the columns of `documents`; a table with a path is created by `fill`.

        In a catalog, a table must be there before rows are written: a write that fails would leave files that no name leads
        to. Call this in the thread that makes the run's commits, because Delta reads transaction numbers from the session.
        """
        self._tables.drop(self._name)
        self._created = True
        if self._tables.root is None:
            table = documents.limit(0).writeTo(self._tables.sql_name(self._name)).using("delta")
            table = table.tableProperty(*_NO_STATISTICS)
            (table.partitionedBy(F.col(UNIT)) if UNIT in documents.columns else table).create()

    def fill(self, documents: DataFrame) -> DataFrame:
        """Write documents to the table that `create` created, in one commit, and return a frame of the written rows."""
        if self._tables.root is not None:
            writer = documents.write.format("delta").option(*_NO_STATISTICS)
            if UNIT in documents.columns:
                writer = writer.partitionBy(UNIT)
            writer.save(self._tables.address(self._name))
        else:
            # A number of its own: otherwise Delta would take one from the session, where another thread may just set it.
            number = {"txnAppId": self._name, "txnVersion": "1"}
            retry(self._name, lambda: self._tables.append(documents, self._name, number))
        return self._tables.read(self._name)

    def close(self) -> None:
        """Remove the table if it was created; errors are only logged, so that they do not hide why the run failed."""
        if not self._created:
            return
        self._created = False
        try:
            self._tables.drop(self._name)
        except Exception:
            log.exception("the hidden table %s could not be removed; the next run removes it", self._name)


def find_hidden_tables(tables: Tables) -> list[str]:
    """Return the names of all hidden tables of runs, at work or dead."""
    return tables.hidden_tables(_PREFIX)


def remove_leftovers(tables: Tables, epoch: int) -> None:
    """Remove the hidden tables of runs whose epoch is less than `epoch`."""
    for name in find_hidden_tables(tables):
        number = re.fullmatch(rf"{_PREFIX}(\d+)({_RESULTS}\d+)?", name)
        if number and int(number[1]) < epoch:
            tables.drop(name)
