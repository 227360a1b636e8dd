"""Load a model's files, and turn every failure into an error that names the file.

The libraries that read such files are mostly C++ and Rust, and a damaged file may crash them. So the loading process
reports which file it is reading (`report_files_to`), and its parent can name the file if the process dies
(`workers.isolation`).
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from entitymill.errors import ModelError, is_rust_panic

_FAILURES = (
    EOFError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError, AssertionError,
)  # fmt: skip
"""What OpenVINO, NumPy and this program's own readers raise if a file does not contain what they expect."""
_listeners: list[Callable[[str], None]] = []
_files: list[str] = [""]
"""A stack of the files being loaded: each is part of the one before."""


def report_files_to(listener: Callable[[str], None]) -> None:
    """Call `listener` with the file being loaded whenever it changes; with "" when no file is being loaded."""
    _listeners[:] = [listener]


@contextmanager
def blame_file(file: str) -> Iterator[None]:
    """Attribute a crash in the `with` block to a file of a model, or to a complete model; errors are not changed."""
    _files.append(file)
    _report_file()
    try:
        yield
    finally:
        _files.pop()
        _report_file()


@contextmanager
def loading(file: str) -> Iterator[None]:
    """Turn every failure in the `with` block to load a model's file into a ModelError that names the file.

    Args:
        file: its address, for messages.

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
    """Limit this process to `limit` bytes of memory; exceeding it raises a MemoryError or ends the process.

    The limit applies to private writable memory (RLIMIT_DATA). A limit on address space would also count OpenVINO's mapped
    weights and memory that allocators reserve but never touch.
    """
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = limit if before == resource.RLIM_INFINITY else min(limit, before)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, most))


@contextmanager
def memory_limit(limit: int) -> Iterator[None]:
    """Limit this process's memory as `limit_memory` does, only in the `with` block."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(limit)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
