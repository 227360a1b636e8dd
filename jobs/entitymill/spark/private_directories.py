"""Create temporary directories that only this user can read, and delete them after their process has ended.

Spark's own `blockmgr-*` directories, which contain document text, are readable by everyone and remain after a SIGKILL.
Instead, each process has one private directory, with mode 0700, for all its temporary files. A normal exit deletes it. If
the process is killed, the next process of this program on the machine deletes the directory.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

LOCAL = "spark.local.dir"
"""Property that names the directory of Spark's blocks and shuffle files."""
_VARIABLES = ("SPARK_LOCAL_DIRS", "LOCAL_DIRS")
"""Environment variables that override the property LOCAL."""
_PREFIX = "entitymill-process-"
_LOCK = "in-use"
_directories: dict[tuple[int, Path], tuple[Path, IO[str]]] = {}
"""(process id, parent directory) -> the private directory, and its lock, which the kernel releases when the process ends."""


def open_private_directory(parent: Path | None = None) -> Path:
    """Return this process's private directory in `parent`.

    The first call creates the directory, and deletes the private directories of processes that have ended.

    Args:
        parent: parent directory; None for Python's directory for temporary files.

    Raises:
        OSError: the parent directory cannot be written.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    key = (os.getpid(), parent)
    if key not in _directories:
        parent.mkdir(parents=True, exist_ok=True)
        delete_unused(parent)
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        _directories[key] = (directory, _lock(directory))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return _directories[key][0]


def list_parents() -> list[Path]:
    """Return the parent directories of this process's private directories."""
    return [parent for pid, parent in _directories if pid == os.getpid()]


def create_scratch_directory(prefix: str) -> Path:
    """Create a directory in this process's private directory, and return its path; it exists until this process ends.

    Args:
        prefix: beginning of the directory's name.
    """
    return Path(tempfile.mkdtemp(prefix=prefix, dir=open_private_directory()))


def choose_local_directory(properties: Mapping[str, str]) -> dict[str, str]:
    """Return a dict with the property that makes Spark store blocks and shuffle files in a private directory.

    The private directory is created in the directory that spark.local.dir names. In these cases, the dict is empty, and
    Spark uses the directories that the user chose:

    - spark.local.dir names several directories, or one that cannot be written.
    - The environment variable SPARK_LOCAL_DIRS or LOCAL_DIRS is set.

    Args:
        properties: the session's properties.
    """
    chosen = properties.get(LOCAL)
    if (chosen is not None and "," in chosen) or any(name in os.environ for name in _VARIABLES):
        return {}
    with contextlib.suppress(OSError):  # Spark itself reports a directory that it cannot write
        return {LOCAL: str(open_private_directory(None if chosen is None else Path(chosen)))}
    return {}


def delete_unused(parent: Path) -> None:
    """Delete the private directories in `parent` that belong to this user and whose processes have ended."""
    for directory in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            is_ours = not directory.is_symlink() and directory.stat().st_uid == os.getuid()
            if is_ours and (directory / _LOCK).is_file():
                with _lock(directory):
                    shutil.rmtree(directory)


def _lock(directory: Path) -> IO[str]:
    """Lock a private directory for this process, and return the lock file; closing the file releases the lock.

    Raises:
        OSError: another process holds the lock, which means that it is still running.
    """
    file = os.fdopen(os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
