"""How a run ends: stopped by Ctrl-C or SIGTERM, or by itself; for those outside a sentence, an exit code, and JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from entitymill import errors
from entitymill.errors import DriftError, EntityMillError, SessionError, SourceError
from entitymill.spark import requirements

if TYPE_CHECKING:
    from entitymill.run.summary import Summary

log = logging.getLogger("entitymill")
_FROM_WORKER = re.compile(rf"entitymill\.errors\.(\w+): \[{errors.SIGNATURE}\] (.+)")
_FIRST_CAUSE = re.compile(r"\(TID \d+\) \([^()\n]*\): (?P<cause>[^\n]*)")
"""Where Spark says what happened to a failed task; what comes after that line may quote a text."""
_READING = re.compile(
    r"org\.apache\.spark\.SparkException: "
    r"(?:\[FAILED_READ_FILE|Encountered error while reading file|Could not read footer|Exception thrown in awaitResult)"
)
_UNREADABLE = re.compile(r"(?:reading file|footer for file:) (\S+?)\.(?:\s|$)")
STDOUT = "-"
"""In the place of a file's path."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SIGNALLED = 128


class Stopped(KeyboardInterrupt):
    """The run was told to end: Ctrl-C, or SIGTERM as Kubernetes, YARN and Airflow send it."""

    def __init__(self, exit_code: int, signal_name: str) -> None:
        """Of which signal; its exit code is 128 and the signal's number."""
        super().__init__(signal_name)
        self.exit_code = exit_code
        self.signal_name = signal_name


def classify_error(error: BaseException) -> EntityMillError:
    """An error as this program's own kind, whose message is one sentence without text of a document."""
    if isinstance(error, EntityMillError):
        return error
    if isinstance(error, ModuleNotFoundError):
        said = requirements.explain_missing_package(error)
        return SessionError(said) if said else EntityMillError(f"{error}; install this program anew.")
    text = str(error)
    raised = _FROM_WORKER.search(text)
    if raised:
        kind: type[EntityMillError] = getattr(errors, raised[1], EntityMillError)
        return kind(raised[2])
    text = errors.strip_quoted_values(text)
    fault = _storage_fault(text)
    if fault:
        return fault
    cause = _FIRST_CAUSE.search(text)
    damaged = _UNREADABLE.search(text if cause is None else cause["cause"])
    if damaged and (cause is None or _READING.match(cause["cause"])):
        return SourceError(f"source.path: {damaged[1]} is damaged, or not of the format that source.format names.")
    return EntityMillError(f"{type(error).__name__}; the log has the details.")


def _storage_fault(text: str) -> EntityMillError | None:
    try:
        from entitymill.spark.storage import storage_fault  # noqa: PLC0415  # brings PySpark
    except ModuleNotFoundError:  # of a command that does without
        return None
    return storage_fault(text)


def describe_error(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code of what ended a run."""
    if isinstance(error, KeyboardInterrupt):
        name = getattr(error, "signal_name", "Ctrl-C")
        code = int(getattr(error, "exit_code", 130))
        return f"stopped by {name}; the units that were finished stay, run again to go on.", code
    said = classify_error(error)
    return str(said), said.exit_code


def write_result(path: str, summary: Summary | None, error: BaseException | None, log: str | None) -> None:
    """Write how a run ended, as one JSON object.

    Args:
        path: of the file, or STDOUT.
        summary: of the run; none where it did not come so far.
        error: that ended it; none: it came to its end.
        log: path of its log.
    """
    found: dict[str, Any] = {"status": "done" if error is None else "failed", "exit_code": 0, "error": None, "log": log}
    if error is not None:
        found["error"], found["exit_code"] = describe_error(error)
        if isinstance(error, KeyboardInterrupt):
            found["status"] = "stopped"
        elif isinstance(error, DriftError):  # everything was published
            found["status"] = "done"
    if summary is not None:
        found |= {name: value for name, value in asdict(summary).items() if name not in found}
        found["sentences_per_second"] = summary.sentences_per_second
        found["started_at"] = summary.started_at.isoformat()
    content = json.dumps(found, default=str)
    if path == STDOUT:
        sys.stdout.write(content + "\n")
    else:
        Path(path).write_text(content + "\n", encoding="utf8")


@contextmanager
def stop_on_signals() -> Iterator[None]:
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
