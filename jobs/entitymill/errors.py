"""What can go wrong, each kind with the exit code its user sees.

A message is one sentence that names the setting, path, column or row id at fault and says what to do. It never holds
document text, entity text or a secret.
"""

from __future__ import annotations

import re
import secrets

SIGNATURE = secrets.token_hex(8)
"""Marks errors of this driver's own workers. Spark passes them on as text, and other text in it may be a document's."""

_QUOTES_VALUES = re.compile(
    r"org\.apache\.spark\.(?:\w+\.)*(?:Spark\w+Exception|PythonException)|\[(?!FAILED_READ_FILE|TASK_WRITE_FAILED)[A-Z][A-Z_.]+\]"
)
"""Spark's errors about values, by class or by condition: their messages quote the value."""


class EntityMillError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 1


class SettingsError(EntityMillError):
    """A setting is unknown, missing, ill-typed, or contradicts another one."""

    exit_code = 2


class SourceError(EntityMillError):
    """The source cannot be read, or lacks a column, or has one of the wrong type."""

    exit_code = 3


class RejectedError(EntityMillError):
    """More rows than `limits.max_reject_ratio` allows were refused; nothing was published."""

    exit_code = 4


class ModelError(EntityMillError):
    """A model is missing, incomplete, altered, or does not fit the machine or the settings."""

    exit_code = 5


class DriftError(EntityMillError):
    """A run differs from the ones before by more than `report.drift_*` allow; it was published."""

    exit_code = 6


class OutputError(EntityMillError):
    """The output cannot be written, or belongs to somebody else."""


class StorageError(EntityMillError):
    """The storage of source, model or output cannot be reached, or refuses the credentials."""


class SessionError(EntityMillError):
    """Spark cannot run this job as it is set up."""


class WorkerError(EntityMillError):
    """A worker's machine cannot tag at all, or not so many documents that it is their fault."""


def sign_error(error: EntityMillError, signature: str) -> EntityMillError:
    """Return a worker's error such that the driver knows it for one of its own workers'."""
    return type(error)(f"[{signature}] {error}")


def strip_quoted_values(text: str) -> str:
    """Return Spark's description of an error up to the place from which it may quote a document's text."""
    return _QUOTES_VALUES.split(text, maxsplit=1)[0]


def is_rust_panic(error: BaseException) -> bool:
    """Whether a package in Rust panicked: pyo3's exception for that has no public name, and is no Exception."""
    return type(error).__name__ == "PanicException"
