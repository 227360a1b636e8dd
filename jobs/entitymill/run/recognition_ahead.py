"""Find the mentions of the next unit of work while the driver publishes the current unit, so that executors are not idle.

A unit is a set of documents that are published together. Recognition of each unit runs in a separate thread. But all commits
to the output's tables are made in the run's main thread, in the order of the units.
"""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Any, Generic, TypeVar

from pyspark import StorageLevel, inheritable_thread_target
from pyspark.sql import DataFrame, Row, SparkSession

from entitymill.run.summary import count_unit_results
from entitymill.run.work_units import PlannedUnit
from entitymill.spark import spark_connect
from entitymill.tables.publisher import MAX_LISTED_IDS
from entitymill.tables.temporary_tables import TemporaryTable

MAX_HELD_UNITS = 2
"""Maximum number of units whose results are computed or stored at the same time. While the last tasks of one unit run, the
next unit uses the cores that are already free."""
log = logging.getLogger(__name__)
POOL = "recognition"
"""Name of the Spark scheduler pool in which units are recognized. With spark.scheduler.mode=FAIR, short jobs of the main
thread can run meanwhile. In any other mode, these short jobs wait until all tasks of the recognition have started."""
_POOL_PROPERTY = "spark.scheduler.pool"
_CANCEL_SECONDS, _POLL_SECONDS = 60.0, 0.2
T = TypeVar("T")


class UnitInRecognition:
    """A unit of work whose documents are being recognized in the background.

    work: the unit's documents to recognize and to remove.
    recognized: DataFrame of the recognized documents, with the columns schemas.RECOGNIZED, cached or in a temporary table.
        The caller must call `wait` before reading it.
    lists_ids: whether the rows that `wait` returns contain the ids of all recognized documents. They do if the unit has at
        most MAX_LISTED_IDS documents to recognize, and may replace or remove rows of the output. A unit that only appends
        rows needs no ids.
    action: the action in the background that recognizes the documents and stores the results.
    """

    def __init__(self, spark: SparkSession, work: PlannedUnit, recognized: DataFrame, results: TemporaryTable) -> None:
        """Start to compute and store the unit's results in the background.

        Args:
            work: the unit's documents to recognize and to remove.
            recognized: lazy DataFrame of the results. Spark caches its rows.
            results: temporary table, to which the rows are written only if Spark Connect refuses to cache them.
        """
        self.work = work
        self.recognized = recognized
        self._results = results
        self.lists_ids = work.rows <= MAX_LISTED_IDS and (work.in_output or work.removed is not None)
        # Store the results: the counts and all tables are computed from them, and the model must run only once.
        self._cached = spark_connect.try_persist(recognized, StorageLevel.MEMORY_AND_DISK)
        if self._cached:
            count = count_unit_results(recognized, collect_ids=self.lists_ids).collect
        else:
            results.prepare(recognized)
            count = self._write_and_count
        self.action: BackgroundAction[list[Row]] = BackgroundAction(spark, count)

    def _write_and_count(self) -> list[Row]:
        """Write the results to the temporary table, and return the unit's counts, as rows for `Summary.add_counts`."""
        self.recognized = self._results.fill(self.recognized)
        return count_unit_results(self.recognized, collect_ids=self.lists_ids).collect()

    def wait(self) -> list[Row]:
        """Wait until recognition has ended; return the unit's counts, as rows for `Summary.add_counts`.

        If recognition failed, raise its error.
        """
        return self.action.wait()

    def release(self) -> None:
        """Cancel the recognition if it is still running, and remove the stored results from the cache or temporary table."""
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
) -> Generator[PlannedUnit | UnitInRecognition, None, None]:
    """Yield the units in order; while the caller works on one unit, recognize the next one in the background.

    A unit with documents to recognize is yielded as a `UnitInRecognition`, and any other unit as the given `PlannedUnit`.
    The caller must call `UnitInRecognition.wait` before it reads a unit's results. These results are removed when the
    caller asks for the next unit, or closes the generator.

    Args:
        recognize: function that returns a DataFrame of a unit's results, without computing it.
        open_results: function that takes the unit's number, counted from 1, and returns a temporary table for its results.
            The table is created only if Spark Connect refuses to cache the results.
    """
    held: deque[PlannedUnit | UnitInRecognition] = deque()
    numbers = itertools.count(1)
    try:
        while True:
            while len(held) < MAX_HELD_UNITS and (unit := next(units, None)) is not None:
                held.append(
                    UnitInRecognition(spark, unit, recognize(unit), open_results(next(numbers))) if unit.rows else unit
                )
            if not held:
                return
            yield held[0]
            _release(held.popleft())
    finally:
        for left in held:
            _release(left)


def _release(unit: PlannedUnit | UnitInRecognition) -> None:
    """Cancel a unit's recognition and remove its stored results; do nothing if it has no documents to recognize."""
    if isinstance(unit, UnitInRecognition):
        unit.release()


class BusySeconds:
    """Adds up the wall-clock seconds in which at least one unit was being recognized; `seconds` is the sum so far."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._until = 0.0

    def add(self, action: BackgroundAction[list[Row]]) -> None:
        """Add how long an action ran, without the time in which an earlier action also ran; the action must have ended.

        The caller must add the actions in the order in which they began.
        """
        ended = action.ended or action.began
        self.seconds += max(0.0, ended - max(action.began, self._until))
        self._until = max(self._until, ended)


class BackgroundAction(Generic[T]):
    """An action, such as `DataFrame.collect`, that runs in a thread of its own.

    began, ended: value of `time.perf_counter()` when the action began and ended; `ended` is None while it runs.
    """

    def __init__(self, spark: SparkSession, action: Callable[[], T]) -> None:
        """Start to call `action` in a new thread.

        `action` is a function that runs Spark jobs and returns a result. `cancel` may stop it at any moment, so it must not
        change a table that other code reads.
        """
        self._spark = spark
        self._action = action
        self._tag = f"entitymill-{uuid.uuid4()}"
        self._result: Future[T] = Future()
        self.began = perf_counter()
        self.ended: float | None = None
        call: Callable[[], T] = self._call
        if not spark_connect.is_remote(spark):
            # A session of Spark Connect has no thread in the JVM whose properties could be inherited.
            with warnings.catch_warnings():  # PySpark 4 warns that it copies no tags, which are not needed here
                warnings.filterwarnings("ignore", message="Spark session is not provided")
                call = inheritable_thread_target(call)
        self._thread = threading.Thread(target=self._run, args=(call,), name=POOL, daemon=True)
        self._thread.start()

    def wait(self) -> T:
        """Wait until the action has ended, and return its result or raise its error."""
        return self._result.result()

    def cancel(self) -> None:
        """Cancel the action's Spark jobs, and wait at most 60 seconds until the action has ended.

        If the action is still running after this time, log a warning. If it had already ended, do nothing.
        """
        deadline = monotonic() + _CANCEL_SECONDS
        # The thread may not have submitted its job yet, so cancel more than once.
        while self._thread.is_alive() and monotonic() < deadline:
            with suppress(Exception):  # Spark may have been stopped
                _cancel_tagged(self._spark, self._tag)
            self._thread.join(_POLL_SECONDS)
        if self._thread.is_alive():
            log.warning(
                "a canceled Spark action has not stopped within %.0f s; its tasks may still be running", _CANCEL_SECONDS
            )

    def _call(self) -> T:
        """Tag this thread, so that `cancel` finds the action's Spark jobs; then run the action and return its result."""
        _tag_thread(self._spark, self._tag)
        return self._action()

    def _run(self, call: Callable[[], T]) -> None:
        """Call a function; store its result or error, which `wait` returns or raises, and the time at which it ended."""
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - `wait` raises it, in the thread that needs the result
            self.ended = perf_counter()
            self._result.set_exception(error)
        else:
            self.ended = perf_counter()
            self._result.set_result(result)


def _tag_thread(spark: Any, tag: str) -> None:
    """Give `tag` to each Spark job that this thread will start, so that `_cancel_tagged` can cancel the job.

    Without Spark Connect, also make these jobs run in the scheduler pool POOL.
    """
    if spark_connect.is_remote(spark):
        spark.addTag(tag)
    else:
        spark.sparkContext.addJobTag(tag)
        spark.sparkContext.setLocalProperty(_POOL_PROPERTY, POOL)


def _cancel_tagged(spark: Any, tag: str) -> None:
    """Cancel the Spark jobs that carry `tag` and are running now; jobs that start later are not affected."""
    if spark_connect.is_remote(spark):
        spark.interruptTag(tag)
    else:
        spark.sparkContext.cancelJobsWithTag(tag)
