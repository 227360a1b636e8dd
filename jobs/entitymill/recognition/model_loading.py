"""Loading a file of a model: what fails in it becomes one sentence that names the file.

What reads such files is mostly C++ and Rust, and a file may crash it. So the process that loads says which file it reads
(`listen`), and its parent can name the file when that process dies (`engines.isolation`).
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from entitymill.errors import ModelError, is_rust_panic

_FAILURES = (
    EOFError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError, AssertionError,
)  # fmt: skip
"""What OpenVINO, NumPy and this program's own readers raise over a file that does not hold what they expect."""
_listeners: list[Callable[[str], None]] = []
_files: list[str] = [""]
"""Those being loaded, the last one inside of the others."""


def listen(listener: Callable[[str], None]) -> None:
    """Have a function called with the file that is being loaded, whenever that changes; "" is none."""
    _listeners[:] = [listener]


@contextmanager
def named(file: str) -> Iterator[None]:
    """Have a crash inside this blamed on a file of a model, or on a whole model; errors pass as they are."""
    _files.append(file)
    _tell()
    try:
        yield
    finally:
        _files.pop()
        _tell()


@contextmanager
def loading(file: str) -> Iterator[None]:
    """Load a file of a model inside this.

    Args:
        file: its address, for messages.

    Raises:
        ModelError: whatever went wrong inside, in one sentence; a ModelError passes as it is.
    """
    try:
        with named(file):
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


def _tell() -> None:
    for listener in _listeners:
        listener(_files[-1])


def limit_memory(limit: int) -> None:
    """Let this process take no more than so many bytes: more is a MemoryError, or ends the process.

    The limit is on private writable memory (RLIMIT_DATA). One on addresses would count OpenVINO's mapped weights and what
    allocators reserve but never touch.
    """
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = limit if before == resource.RLIM_INFINITY else min(limit, before)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, most))


@contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """As `limit_memory`, inside this only."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(limit)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
