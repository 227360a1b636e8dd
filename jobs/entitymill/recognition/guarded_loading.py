"""Limit what loading a model's files may do to this process, and turn failures into errors that name the file.

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
"""Empty, or the listener of `report_files_to`."""
_files: list[str] = [""]
"""A stack of the files being loaded: each file is part of the previous entry, which may be a complete model."""


def report_files_to(listener: Callable[[str], None]) -> None:
    """Set the function to call whenever loading a model or one of its files begins or ends; replace any earlier one.

    Its argument is the path of what is being loaded from then on: a file, the model when a file in it is finished, or ""
    when nothing is being loaded.
    """
    _listeners[:] = [listener]


@contextmanager
def blame_file(file: str) -> Iterator[None]:
    """Tell the listener of `report_files_to` that the `with` block loads `file`, so that a crash is blamed on it.

    Args:
        file: path or URI of a file of a model, or of a complete model.
    """
    _files.append(file)
    _report_file()
    try:
        yield
    finally:
        _files.pop()
        _report_file()


@contextmanager
def loading(file: str) -> Iterator[None]:
    """Turn the errors that a damaged file causes in the `with` block into a ModelError that names the file.

    Args:
        file: path or URI of the file that the block loads, for messages.

    Raises:
        ModelError: loading failed with a MemoryError, an error in _FAILURES or a panic of Rust code. All other errors, such
            as an OSError or a ModelError of the block itself, pass unchanged.
    """
    try:
        with blame_file(file):
            yield
    except MemoryError as error:
        raise ModelError(
            f"Loading {file} needs far more memory than a model of its size should: the file is damaged or malicious. Copy "
            "the model again from a source that you trust."
        ) from error
    except BaseException as error:
        if not (isinstance(error, _FAILURES) or is_rust_panic(error)):
            raise
        raise ModelError(
            f"{file} cannot be loaded: it is damaged, or does not fit the model's other files. Copy the model again, or "
            "prepare it again."
        ) from error


def _report_file() -> None:
    """Call the listener, if there is one, with the file that is being loaded now."""
    for listener in _listeners:
        listener(_files[-1])


def limit_memory(limit: int) -> None:
    """Limit this process to `limit` bytes of memory; exceeding the limit raises a MemoryError or ends the process.

    A lower limit that is already set stays.

    The limit applies to private writable memory (RLIMIT_DATA). A limit on address space would also count OpenVINO's mapped
    weights and memory that allocators reserve but never touch.
    """
    current, highest = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = limit if current == resource.RLIM_INFINITY else min(limit, current)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, highest))


@contextmanager
def memory_limit(limit: int) -> Iterator[None]:
    """Limit this process to `limit` bytes of memory, as `limit_memory` does, until the `with` block ends."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(limit)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
