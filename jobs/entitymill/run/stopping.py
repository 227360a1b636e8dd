"""Ctrl-C and SIGTERM: Spark's jobs are cancelled, and the run ends as any other that breaks off, its lease given back."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from entitymill.run.outcome import Stopped

log = logging.getLogger("entitymill")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SIGNALLED = 128


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped inside where one of SIGNALS arrives; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if arrived:
            os._exit(_SIGNALLED + number)
        arrived.append(number)
        # What py4j says of a call that was broken off is a stack trace, partly by the root logger itself.
        logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
        logging.getLogger().addFilter(quiet)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        log.warning("stopped by %s", name)
        _cancel_jobs()
        raise Stopped(_SIGNALLED + number, name)

    def quiet(record: logging.LogRecord) -> bool:
        return "py4j" not in record.pathname

    spoken = logging.getLogger("py4j").level
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        logging.getLogger("py4j").setLevel(spoken)
        logging.getLogger().removeFilter(quiet)
        for number, handler in before.items():
            signal.signal(number, handler)


def _cancel_jobs() -> None:
    """From a thread of its own, since the main one may be in the middle of a call of Spark's."""
    from pyspark import SparkContext  # noqa: PLC0415  # a command without Spark does without

    context = SparkContext._active_spark_context
    if context is None:
        return

    def cancel() -> None:
        try:
            context.setLogLevel("OFF")  # each task would say that it was killed
            context.cancelAllJobs()
        except Exception:
            # The signal went to Spark's own process as well: its jobs end with it.
            log.exception("Spark's jobs could not be cancelled")

    threading.Thread(target=cancel, daemon=True).start()
