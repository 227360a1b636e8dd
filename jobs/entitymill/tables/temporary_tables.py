"""Rows that a run writes down to look at them several times: what a stream brings, and the texts of its units.

They lie beside the output's tables under hidden names, hold texts of the source, and go when the run ends; what a death
leaves of them goes with the next run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.platform import session
from entitymill.tables.layout import Tables

log = logging.getLogger(__name__)
UNIT = "unit"
_ARRIVED, _UNITS = "arrived", "units"
_NO_STATISTICS = ("delta.dataSkippingNumIndexedCols", "0")
"""They would be texts, in a log."""


class Kept:
    """The hidden tables of one run."""

    def __init__(self, tables: Tables) -> None:
        """Nothing is read yet."""
        self._tables = tables
        self._written: list[str] = []

    def arrived(self, stream: DataFrame) -> DataFrame:
        """Write a stream's rows down until no more are there, and return them."""
        self._begin(_ARRIVED)
        # How far the stream is matters to this run alone.
        checkpoint = session.scratch("entitymill-stream-").as_uri()
        writer = stream.writeStream.format("delta").outputMode("append").trigger(availableNow=True)
        writer = writer.option("checkpointLocation", checkpoint)
        in_directory = self._tables.settings.path is not None
        address, reference = self._tables.address(_ARRIVED), self._tables.reference(_ARRIVED)
        query = writer.start(address) if in_directory else writer.toTable(reference)
        query.awaitTermination()
        return self._tables.read(_ARRIVED)

    def units(self, documents: DataFrame) -> DataFrame:
        """Write documents down by their UNIT, so that each is read alone, and return them."""
        self._begin(_UNITS)
        if self._tables.settings.path is not None:
            writer = documents.write.format("delta").partitionBy(UNIT).option(*_NO_STATISTICS)
            writer.save(self._tables.address(_UNITS))
        else:
            table = documents.writeTo(self._tables.reference(_UNITS)).using("delta").partitionedBy(F.col(UNIT))
            table.tableProperty(*_NO_STATISTICS).create()
        return self._tables.read(_UNITS)

    def close(self) -> None:
        """Remove what this run wrote."""
        while self._written:
            self._tables.drop(self._written.pop())

    def drop(self) -> None:
        """Remove what any run wrote."""
        for name in (_ARRIVED, _UNITS):
            self._tables.drop(name)

    def _begin(self, name: str) -> None:
        self._tables.drop(name)
        self._written.append(name)


@contextmanager
def given_back(*closes: Callable[[], object]) -> Iterator[None]:
    """Give back what a run wrote down for itself; that this fails does not hide why the run did."""
    try:
        yield
    except BaseException:
        for close in closes:
            try:
                close()
            except Exception:
                log.exception("left behind: the next run clears it away")
        raise
    for close in closes:
        close()
