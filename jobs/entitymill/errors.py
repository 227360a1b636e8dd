"""Exceptions that this program raises on purpose, each with its exit code.

A message is one sentence that names the setting, path, column or row id that causes the error, and says what to do. It never
contains document text, entity text or a secret.
"""

from __future__ import annotations

import re
import secrets
import traceback
from pathlib import Path

SIGNATURE = secrets.token_hex(8)
"""Random text that this driver's own workers put in front of their error messages (see `sign_error`). The driver gets errors
only as text from Spark. If the text lacks SIGNATURE, the error is not from these workers, and may quote a document."""

_QUOTES_VALUES = re.compile(
    r"org\.apache\.spark\.(?:\w{1,60}\.){0,8}(?:Spark\w{1,60}Exception|PythonException)"
    # Matches what raise_error throws in Spark 3.5, but no RuntimeException whose message begins with another error's class.
    r"|java\.lang\.RuntimeException: (?!(?:java|org|com|software)\.[\w.$]{1,200}(?:Exception|Error)\b)"
    r"|\[(?!FAILED_READ_FILE|TASK_WRITE_FAILED)[A-Z][A-Z_.]{1,160}\]"
)
"""Matches an exception class, or an error condition such as [CAST_INVALID_INPUT], after which the text of a Spark error may
quote a row's value. The repetitions have upper limits, so that matching is fast even for long texts."""


class EntityMillError(Exception):
    """Base class of every error that this package raises on purpose."""

    exit_code = 1


class SettingsError(EntityMillError):
    """A setting or option is unknown, missing, of the wrong type, or contradicts another setting or option."""

    exit_code = 2


class SourceError(EntityMillError):
    """The source cannot be read, lacks a column, or has a column of the wrong type."""

    exit_code = 3


class RejectedError(EntityMillError):
    """More documents would be rejected or removed than `limits.max_reject_ratio` or `limits.max_removed_ratio` allows.

    Usually nothing was published. But if the model crashed on documents or took too long for them, results that the run had
    published before this error stay published.
    """

    exit_code = 4


class ModelError(EntityMillError):
    """A model is missing, incomplete, altered, or does not fit the machine or the settings."""

    exit_code = 5


class DriftError(EntityMillError):
    """A run differs from earlier runs by more than the settings `report.drift_*` allow; its results were published."""

    exit_code = 6


class LimitError(EntityMillError):
    """A run reached `limits.max_core_hours`; its finished units (documents that are published together) stay published."""

    exit_code = 7


class OutputError(EntityMillError):
    """The tables of the output cannot be written, or do not belong to this job."""


class StorageError(EntityMillError):
    """The storage of source, model or output cannot be reached, or rejects the credentials."""


class SessionError(EntityMillError):
    """Spark is missing, unsupported, or not configured for this job."""


class WorkerError(EntityMillError):
    """The tagger (the process next to a Spark worker that runs the model) cannot start, or fails on too many documents.

    In `mentions` and `udf`, one document on which the tagger fails is enough.
    """


def sign_error(error: EntityMillError, signature: str) -> EntityMillError:
    """Return a copy of `error` with `[signature]` in front of the message, so that the driver trusts it (see SIGNATURE)."""
    return type(error)(f"[{signature}] {error}")


def strip_quoted_values(text: str) -> str:
    """Return Spark's description of an error, cut off before the first part that may quote a document's text."""
    return _QUOTES_VALUES.split(text, maxsplit=1)[0]


def is_rust_panic(error: BaseException) -> bool:
    """Return whether an error is a panic of a package that is written in Rust.

    The exception class that pyo3 raises for a panic has no public name and is not a subclass of Exception.
    """
    return type(error).__name__ == "PanicException"


def hide_message(error: Exception) -> WorkerError:
    """Return a WorkerError that names the type of `error` and the line of code that raised it.

    The message of `error` is left out, because it may quote document text. The stack frames of `error`, without the values
    of variables, are added to the returned error as a note.
    """
    frames = traceback.extract_tb(error.__traceback__)
    described = WorkerError(
        f"{type(error).__name__} in the tagging process, at line {frames[-1].lineno} of {Path(frames[-1].filename).name}: "
        "this is a bug in this program or in a package that it uses; report it with the stack frames in the worker's log."
    )
    described.add_note("".join(traceback.format_list(frames)))
    return described
