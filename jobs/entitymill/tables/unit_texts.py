"""Store the texts of a run that has several units of work, partitioned by unit, so that each unit reads only its own texts.

A unit of work is a set of documents that are published together. The texts are in a hidden table next to the output's
tables. Its name contains the run's epoch (see `lease`), so no two runs share a table. The run removes the table at its end.
If a run dies, the next run that repairs the tables removes it.
"""

from __future__ import annotations

import logging
import re

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
UNIT = "unit"
_PREFIX = "units_"
_NO_STATISTICS = ("delta.dataSkippingNumIndexedCols", "0")
"""Table property that turns statistics off, because they would copy texts into the Delta log."""


class UnitTable:
    """Writes and removes the hidden table with the texts of one run."""

    def __init__(self, tables: Tables, epoch: int) -> None:
        """Choose the table's name; nothing is written yet."""
        self._tables = tables
        self._name = f"{_PREFIX}{epoch}"
        self._written = False

    def write(self, documents: DataFrame) -> DataFrame:
        """Write documents, partitioned by the column UNIT of the frame, and return a frame of the written rows."""
        self._tables.drop(self._name)
        self._written = True
        if self._tables.root is not None:
            writer = documents.write.format("delta").partitionBy(UNIT).option(*_NO_STATISTICS)
            writer.save(self._tables.address(self._name))
        else:
            table = documents.writeTo(self._tables.sql_name(self._name)).using("delta").partitionedBy(F.col(UNIT))
            table.tableProperty(*_NO_STATISTICS).create()
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
        number = re.fullmatch(rf"{_PREFIX}(\d+)", name)
        if number and int(number[1]) < epoch:
            tables.drop(name)
