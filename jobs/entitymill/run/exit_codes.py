"""Convert the outcome of a run to an exit code, a message and JSON; stop the run on Ctrl-C or SIGTERM."""

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
from entitymill.errors import DriftError, EntityMillError, LimitError, SessionError, SourceError
from entitymill.settings.secret_masking import mask_text
from entitymill.spark import files_on_this_machine, installation

if TYPE_CHECKING:
    from entitymill.run.summary import Summary

log = logging.getLogger("entitymill")
_FROM_WORKER = re.compile(rf"entitymill\.errors\.(\w+): \[{errors.SIGNATURE}\] (.+)")
_FIRST_CAUSE = re.compile(r"\(TID \d+\) \([^()\n]*\): (?P<cause>[^\n]*)")
"""Matches the line in which Spark says why a task failed; later lines may quote a document's text."""
_READING = re.compile(
    r"org\.apache\.spark\.SparkException: "
    r"(?:\[FAILED_READ_FILE|Encountered error while reading file|Could not read footer|Exception thrown in awaitResult)"
)
_UNREADABLE = re.compile(r"(?:reading file|footer for file:) (\S+?)\.(?:\s|$)")
STDOUT = "-"
"""Path that stands for standard output."""
RUN_FAILED = "run %s failed: %s"
"""Log message of a failed run, with two placeholders: the run id and the error. If the run could not write its error to the
`runs` table, the command `entitymill runs` searches the run's log file for this message."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SIGNAL_EXIT_BASE = 128


class Stopped(KeyboardInterrupt):
    """Raised when a signal stops the run: SIGINT (Ctrl-C), or SIGTERM, which Kubernetes, YARN and Airflow send."""

    def __init__(self, exit_code: int, signal_name: str) -> None:
        """Create the exception for a signal, such as SIGTERM; `exit_code` is 128 plus the signal's number."""
        super().__init__(signal_name)
        self.exit_code = exit_code
        self.signal_name = signal_name


def convert_error(error: BaseException) -> EntityMillError:
    """Convert any error to an EntityMillError, whose message is one sentence and contains no document text.

    An EntityMillError is returned unchanged. If a Python worker raised an EntityMillError, it is rebuilt from the text of
    Spark's error. Full disks, missing packages, storage faults and damaged source files are recognized, and get messages
    that say what to do. For any other error, the result names only the type of the error, and refers to the log.
    """
    known = error if isinstance(error, EntityMillError) else files_on_this_machine.detect_full_disk(error)
    if known is not None:
        return known
    if isinstance(error, ModuleNotFoundError):
        said = installation.explain_missing_package(error)
        return SessionError(said) if said else EntityMillError(f"{error}; reinstall this program.")
    text = str(error)
    raised = _FROM_WORKER.search(text)
    if raised:
        kind: type[EntityMillError] = getattr(errors, raised[1], EntityMillError)
        return kind(raised[2])
    text = errors.strip_quoted_values(text)
    fault = _find_storage_fault(text)
    if fault:
        return fault
    cause = _FIRST_CAUSE.search(text)
    damaged = _UNREADABLE.search(text if cause is None else cause["cause"])
    if damaged and (cause is None or _READING.match(cause["cause"])):
        return SourceError(
            f"source.path: {damaged[1]} is damaged, or not of the format that source.format names. Write the file again, or "
            "correct source.format."
        )
    return EntityMillError(f"{type(error).__name__}; the log has the details.")


def _find_storage_fault(text: str) -> EntityMillError | None:
    """Return a StorageError if the text of an error shows that the storage failed; otherwise None.

    Also return None if PySpark is not installed.
    """
    try:
        from entitymill.spark.storage import find_storage_fault  # noqa: PLC0415  # imports PySpark
    except ModuleNotFoundError:  # PySpark is not installed
        return None
    return find_storage_fault(text)


def describe_error(error: BaseException) -> tuple[str, int]:
    """Return a message for the user, and the exit code of the program, for a run that ended with `error`.

    Credentials in addresses are masked in the message, because it is printed, and stored in `runs`. A KeyboardInterrupt
    means that the run was stopped by Ctrl-C or by another signal (see `Stopped`).
    """
    if isinstance(error, KeyboardInterrupt):
        name = getattr(error, "signal_name", "Ctrl-C")
        code = int(getattr(error, "exit_code", 130))
        return f"stopped by {name}; finished units are kept, run again to continue.", code
    said = convert_error(error)
    return mask_text(str(said)), said.exit_code


def write_result(path: str, summary: Summary | None, error: BaseException | None, log: str | None) -> None:
    """Write the outcome of a run as a JSON object: status, exit_code, error, log, and the fields of the summary.

    The status is done, failed, or stopped (by a signal or limits.max_core_hours). After a DriftError, the status is done,
    because the run has published all documents.

    Args:
        path: path of the file to write, or STDOUT.
        summary: summary of the run; None if the run ended before the summary was created.
        error: error that ended the run; None if the run succeeded.
        log: path of the run's log file; None if there is none.
    """
    found: dict[str, Any] = {"status": "done" if error is None else "failed", "exit_code": 0, "error": None, "log": log}
    if error is not None:
        found["error"], found["exit_code"] = describe_error(error)
        if isinstance(error, KeyboardInterrupt | LimitError):
            found["status"] = "stopped"
        elif isinstance(error, DriftError):
            found["status"] = "done"
    if summary is not None:
        found |= {name: value for name, value in asdict(summary).items() if name not in found}
        found["sentences_per_second"] = summary.sentences_per_second
        found["core_hours"] = summary.core_hours
        found["started_at"] = summary.started_at.isoformat()
    content = json.dumps(found, default=str)
    if path == STDOUT:
        sys.stdout.write(content + "\n")
    else:
        Path(path).write_text(content + "\n", encoding="utf8")


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Stopped inside the context when one of SIGNALS arrives; a second signal ends the process immediately.

    The first signal also cancels Spark's jobs. In a thread other than the main thread, this context does nothing, because
    Python allows signal handlers only in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        """Handle a signal: cancel Spark's jobs and raise Stopped; if it is the second signal, end the process."""
        if arrived:
            os._exit(_SIGNAL_EXIT_BASE + number)
        arrived.append(number)
        # py4j logs a stack trace for the interrupted call, partly through the root logger.
        logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
        logging.getLogger().addFilter(is_not_from_py4j)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        log.warning("stopped by %s", name)
        _cancel_jobs()
        raise Stopped(_SIGNAL_EXIT_BASE + number, name)

    def is_not_from_py4j(record: logging.LogRecord) -> bool:
        return "py4j" not in record.pathname

    py4j_level = logging.getLogger("py4j").level
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        logging.getLogger("py4j").setLevel(py4j_level)
        logging.getLogger().removeFilter(is_not_from_py4j)
        for number, handler in before.items():
            signal.signal(number, handler)


def _cancel_jobs() -> None:
    """Start a thread that turns off Spark's log and cancels Spark's jobs; do nothing if there is no SparkContext."""
    # Do not import PySpark here: the signal may have arrived while it is being imported, or it may not be installed.
    context: Any = getattr(getattr(sys.modules.get("pyspark"), "SparkContext", None), "_active_spark_context", None)
    if context is None:
        return

    def cancel() -> None:
        try:
            context.setLogLevel("OFF")  # otherwise each task logs that it was killed
            context.cancelAllJobs()
        except Exception:
            # Spark's JVM has also received the signal; its jobs end with it.
            log.exception("Spark's jobs could not be canceled")

    # The main thread may be inside a call to Spark, so it must not wait.
    threading.Thread(target=cancel, daemon=True).start()
