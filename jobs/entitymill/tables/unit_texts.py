"""Store rows that a run reads more than once in hidden tables next to the output's tables.

These are the texts of a run that has several units of work (documents that are published together), partitioned by unit, so
that each unit reads only its own texts; and, if the session does not cache rows, the results of each unit. A table's name
contains the run's epoch, so no two runs share a table. The run removes its tables. If a run dies, the next run that repairs
the tables removes them.
"""

from __future__ import annotations

import logging
import re

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

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
        self._written = False

    def write(self, documents: DataFrame) -> DataFrame:
        """Write documents, partitioned by their column UNIT if they have it, and return the written rows."""
        self._tables.drop(self._name)
        self._written = True
        by = [UNIT] if UNIT in documents.columns else []
        if self._tables.root is not None:
            writer = documents.write.format("delta").partitionBy(*by).option(*_NO_STATISTICS)
            writer.save(self._tables.address(self._name))
        else:
            table = documents.writeTo(self._tables.sql_name(self._name)).using("delta").tableProperty(*_NO_STATISTICS)
            (table.partitionedBy(F.col(UNIT)) if by else table).create()
        return self._tables.read(self._name)

    def close(self) -> None:
        """Remove the table if it was written; errors are only logged, so that they do not hide why the run failed."""
        if not self._written:
            return
        self._written = False
        try:
            self._tables.drop(self._name)
        except Exception:
            log.exception(
                "the hidden table %s could not be removed; a later run that repairs the tables removes it", self._name
            )


def remove_leftovers(tables: Tables, epoch: int) -> None:
    """Remove the hidden tables of runs whose epoch is less than `epoch`."""
    for name in tables.hidden_tables(_PREFIX):
        number = re.fullmatch(rf"{_PREFIX}(\d+)({_RESULTS}\d+)?", name)
        if number and int(number[1]) < epoch:
            tables.drop(name)
