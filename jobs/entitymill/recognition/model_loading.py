"""Load a model's files, and turn every failure into an error that names the file.

The libraries that read such files are mostly written in C++ and Rust, and a damaged file may crash them. So the process that
loads a model reports which file it is reading (`report_files_to`). If that process dies, its parent process can name the
file (`workers.isolation`).
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from entitymill.errors import ModelError, is_rust_panic

_FAILURES = (
    EOFError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError, AssertionError,
)  # fmt: skip
"""Errors that OpenVINO, NumPy and this program's own readers raise if a file does not contain what they expect."""
_listeners: list[Callable[[str], None]] = []
_files: list[str] = [""]
"""A stack of the files being loaded: each file is part of the previous entry, which may be a complete model."""


def report_files_to(listener: Callable[[str], None]) -> None:
    """Register `listener`, which is called with the name of each file when loading begins, and with "" when it has ended."""
    _listeners[:] = [listener]


@contextmanager
def blame_file(file: str) -> Iterator[None]:
    """Report a file of a model, or a complete model, as being loaded in the `with` block, so that a crash can name it."""
    _files.append(file)
    _report_file()
    try:
        yield
    finally:
        _files.pop()
        _report_file()


@contextmanager
def loading(file: str) -> Iterator[None]:
    """Turn every error in the `with` block that loads a model's file into a ModelError that names the file.

    Args:
        file: path or URI of the file, for messages.

    Raises:
        ModelError: loading failed; a ModelError from the block is not changed.
    """
    try:
        with blame_file(file):
            yield
    except MemoryError as error:
        raise ModelError(
            f"{file} asks for far more memory than a model of its size needs: it is damaged or made to do harm; copy the "
            "model again, from where it can be trusted."
        ) from error
    except BaseException as error:
        if not (isinstance(error, _FAILURES) or is_rust_panic(error)):
            raise
        raise ModelError(
            f"{file} cannot be loaded: it is damaged, or does not fit the model's other files; copy the model again, or "
            "prepare it again."
        ) from error


def _report_file() -> None:
    for listener in _listeners:
        listener(_files[-1])


def limit_memory(limit: int) -> None:
    """Limit this process to `limit` bytes of memory; exceeding the limit raises a MemoryError or ends the process.

    The limit applies to private writable memory (RLIMIT_DATA). A limit on address space would also count OpenVINO's mapped
    weights and memory that allocators reserve but never touch.
    """
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = limit if before == resource.RLIM_INFINITY else min(limit, before)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, most))


@contextmanager
def memory_limit(limit: int) -> Iterator[None]:
    """Limit this process to `limit` bytes of memory in the `with` block, as `limit_memory` does."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(limit)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
