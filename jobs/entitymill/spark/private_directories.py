"""Create temporary directories that only this user can read, and delete them after their process has ended.

Spark's own `blockmgr-*` directories, which contain document text, are readable by everyone and remain after a SIGKILL.
Here each process has one directory with mode 0700 for everything. A normal exit deletes it; after a kill, the next
process that starts on the machine does.
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
_VARIABLES = ("SPARK_LOCAL_DIRS", "LOCAL_DIRS")
"""Spark prefers these to the property."""
_PREFIX = "entitymill-process-"
_LOCK = "in-use"
_directories: dict[tuple[int, Path], tuple[Path, IO[str]]] = {}
"""(process, parent) -> the directory and its lock, which the kernel releases when the process ends, however it ends."""


def open_private_directory(parent: Path | None = None) -> Path:
    """Return this process's directory in `parent`. The first call creates it, and deletes those of ended processes.

    Args:
        parent: parent directory; None for Python's directory for temporary files.

    Raises:
        OSError: the parent cannot be written.
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


def create_scratch_directory(prefix: str) -> Path:
    """Create a new directory that exists as long as this process, since Spark's file server reads from it."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=open_private_directory()))


def choose_local_directory(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the property that makes Spark store blocks and shuffle files in this process's private directory.

    That directory is in the one that `properties` name. Several directories, or one from the environment, are not changed.
    """
    chosen = properties.get(LOCAL)
    if (chosen is not None and "," in chosen) or any(name in os.environ for name in _VARIABLES):
        return {}
    with contextlib.suppress(OSError):  # Spark itself reports a directory that it cannot write
        return {LOCAL: str(open_private_directory(None if chosen is None else Path(chosen)))}
    return {}


def delete_unused(parent: Path) -> None:
    """Delete this user's directories in a parent directory whose process has ended."""
    for directory in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            is_ours = not directory.is_symlink() and directory.stat().st_uid == os.getuid()
            if is_ours and (directory / _LOCK).is_file():
                with _lock(directory):
                    shutil.rmtree(directory)


def _lock(directory: Path) -> IO[str]:
    """Lock a directory.

    Raises:
        OSError: the process that owns it is still running.
    """
    file = os.fdopen(os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
