"""Find the mentions of the next unit (see `units`) while the driver publishes this one, so that executors have work.

All commits to the output's tables stay in the run's own thread, in the order of the units.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

from pyspark import StorageLevel
from pyspark.sql import DataFrame, Row, SparkSession

from entitymill.run.summary import count_by_label
from entitymill.run.units import PlannedUnit
from entitymill.spark import spark_connect
from entitymill.spark.background_action import BackgroundAction
from entitymill.tables.publisher import MAX_LISTED_IDS
from entitymill.tables.temporary_tables import TemporaryTable

MAX_HELD_UNITS = 2
"""Maximum number of units whose results are computed or stored at the same time. The second unit uses the cores for which
the first unit has no more tasks."""


class RecognizedUnit:
    """A unit of work whose documents are being recognized in the background.

    work: the unit's documents to recognize and to remove.
    recognized: frame of the recognized documents, with the columns schemas.RECOGNIZED, cached or in a temporary table; read
        it only after `wait`.
    lists_ids: whether the rows that `wait` returns contain all ids of the unit: only if the unit is small and replaces rows.
    action: Spark action that recognizes the documents.
    """

    def __init__(self, spark: SparkSession, work: PlannedUnit, recognized: DataFrame, results: TemporaryTable) -> None:
        """Start to compute and store the unit's results in the background.

        Args:
            spark: the run's session.
            work: the unit's documents to recognize and to remove.
            recognized: frame of the recognized documents, not yet computed.
            results: temporary table of the run, to which the results are written if the session does not cache rows.
        """
        self.work = work
        self.recognized = recognized
        self._results = results
        self.lists_ids = work.rows <= MAX_LISTED_IDS and (work.in_output or work.removed is not None)
        # Store the results: the counts and all tables are computed from them, and the model must run only once.
        self._cached = spark_connect.try_persist(recognized, StorageLevel.MEMORY_AND_DISK)
        if self._cached:
            count = count_by_label(recognized, collect_ids=self.lists_ids).collect
        else:
            results.create(recognized)
            count = self._write_and_count
        self.action: BackgroundAction[list[Row]] = BackgroundAction(spark, count)

    def _write_and_count(self) -> list[Row]:
        """Write the results to the temporary table, and return the rows of `count_by_label`."""
        self.recognized = self._results.fill(self.recognized)
        return count_by_label(self.recognized, collect_ids=self.lists_ids).collect()

    def wait(self) -> list[Row]:
        """Wait until all documents are recognized, then return the rows of `count_by_label`, or raise the error."""
        return self.action.wait()

    def release(self) -> None:
        """Stop the recognition if it has not ended, and remove the stored results."""
        self.action.cancel()
        self._results.close()
        if self._cached:
            with suppress(Exception):  # Spark may have been stopped
                self.recognized.unpersist()


def recognize_ahead(
    spark: SparkSession,
    units: Iterator[PlannedUnit],
    recognize: Callable[[PlannedUnit], DataFrame],
    open_results: Callable[[int], TemporaryTable],
) -> Generator[PlannedUnit | RecognizedUnit, None, None]:
    """Yield the units in order, as `RecognizedUnit` if they have documents to recognize, and as `PlannedUnit` otherwise.

    The caller must call `RecognizedUnit.wait`. While the caller works on a unit, the next unit is recognized. The stored
    results of a unit are removed when the caller asks for the next unit, or closes the iterator.

    Args:
        spark: the run's session.
        units: units of the run.
        recognize: function that returns the frame of a unit's results, without computing it.
        open_results: function that returns the temporary table for the results of a unit, from the unit's number; the table
            is written only if the session does not cache rows.
    """
    held: deque[PlannedUnit | RecognizedUnit] = deque()
    numbers = itertools.count(1)
    try:
        while True:
            while len(held) < MAX_HELD_UNITS and (unit := next(units, None)) is not None:
                held.append(RecognizedUnit(spark, unit, recognize(unit), open_results(next(numbers))) if unit.rows else unit)
            if not held:
                return
            yield held[0]
            _release(held.popleft())
    finally:
        for left in held:
            _release(left)


def _release(unit: PlannedUnit | RecognizedUnit) -> None:
    """Remove the stored results of a unit, if it has any."""
    if isinstance(unit, RecognizedUnit):
        unit.release()


class BusySeconds:
    """Adds up the wall-clock seconds in which at least one unit was being recognized."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = 0.0
        self._until = 0.0

    def add(self, action: BackgroundAction[list[Row]]) -> None:
        """Add the seconds of an action that has ended, without the time that overlaps with actions added before."""
        ended = action.ended or action.began
        self.seconds += max(0.0, ended - max(action.began, self._until))
        self._until = max(self._until, ended)
