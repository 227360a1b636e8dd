"""Run a Spark action in a separate thread, so that the caller can wait for it later, or cancel it."""

from __future__ import annotations

import logging
import threading
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Any, Generic, TypeVar

from pyspark import inheritable_thread_target
from pyspark.sql import SparkSession

from entitymill.spark import spark_connect

log = logging.getLogger(__name__)
POOL = "recognition"
"""Scheduler pool of background actions. With spark.scheduler.mode=FAIR, short jobs of the main thread can run at the same
time. Without it, they would wait until all tasks of a background action have started."""
_POOL_PROPERTY = "spark.scheduler.pool"
_CANCEL_SECONDS, _POLL_SECONDS = 60.0, 0.2
T = TypeVar("T")


class BackgroundAction(Generic[T]):
    """An action, such as `DataFrame.collect`, that runs in a thread.

    began, ended: value of `time.perf_counter()` when the action began and ended; `ended` is None while it runs.
    """

    def __init__(self, spark: SparkSession, action: Callable[[], T]) -> None:
        """Start the action in a new thread.

        `action` may be cancelled at any moment, so it must not change a table that others read.
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
        """Cancel the action, if it has not ended, and wait at most 60 seconds for the end of its thread.

        If the thread is still running then, log a warning.
        """
        deadline = monotonic() + _CANCEL_SECONDS
        # The thread may not have submitted its job yet, so cancel more than once.
        while self._thread.is_alive() and monotonic() < deadline:
            with suppress(Exception):  # Spark may have been stopped
                _cancel_tagged(self._spark, self._tag)
            self._thread.join(_POLL_SECONDS)
        if self._thread.is_alive():
            log.warning(
                "a cancelled Spark action has not stopped within %.0f s; its tasks may still be running", _CANCEL_SECONDS
            )

    def _call(self) -> T:
        """Run the action in this thread, with a tag by which `cancel` finds its jobs, and return its result."""
        _tag_thread(self._spark, self._tag)
        return self._action()

    def _run(self, call: Callable[[], T]) -> None:
        """Call a function; store its result or error for `wait`, and the time at which it ended."""
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - `wait` raises it, in the thread that needs the result
            self.ended = perf_counter()
            self._result.set_exception(error)
        else:
            self.ended = perf_counter()
            self._result.set_result(result)


def _tag_thread(spark: Any, tag: str) -> None:
    """Tag the Spark jobs that this thread will start, for `_cancel_tagged`; outside Spark Connect, also use POOL."""
    if spark_connect.is_remote(spark):
        spark.addTag(tag)
    else:
        spark.sparkContext.addJobTag(tag)
        spark.sparkContext.setLocalProperty(_POOL_PROPERTY, POOL)


def _cancel_tagged(spark: Any, tag: str) -> None:
    """Cancel the Spark jobs with a tag that are running now; jobs that start later are not cancelled."""
    if spark_connect.is_remote(spark):
        spark.interruptTag(tag)
    else:
        spark.sparkContext.cancelJobsWithTag(tag)
