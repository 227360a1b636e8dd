"""Temporary directories that only this user can read and that do not outlive their process for long.

Spark's own `blockmgr-*` directories, which hold document text, are readable for everyone and stay behind after a SIGKILL.
Here everything lies in one directory with mode 0700 for each process. A clean exit deletes it; after a kill, the next
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


def private_directory(parent: Path | None = None) -> Path:
    """Return this process's directory in a parent directory; create it, and delete those of processes that have ended.

    Args:
        parent: Python's directory for temporary files if None.

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


def scratch_directory(prefix: str) -> Path:
    """Make a new directory that lasts as long as this process: Spark's file server reads from it."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=private_directory()))


def spark_local_directory(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the property that has Spark keep blocks and shuffle files in this process's private directory.

    It lies in the place that `properties` name. Several places, and one named by the environment, are left as they are.
    """
    chosen = properties.get(LOCAL)
    if (chosen is not None and "," in chosen) or any(name in os.environ for name in _VARIABLES):
        return {}
    with contextlib.suppress(OSError):  # Spark itself reports a place that it cannot write
        return {LOCAL: str(private_directory(None if chosen is None else Path(chosen)))}
    return {}


def delete_unused(parent: Path) -> None:
    """Delete this user's directories in a parent directory whose process has ended."""
    for directory in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            ours = not directory.is_symlink() and directory.stat().st_uid == os.getuid()
            if ours and (directory / _LOCK).is_file():
                with _lock(directory):
                    shutil.rmtree(directory)


def _lock(directory: Path) -> IO[str]:
    """Lock a directory.

    Raises:
        OSError: its process is still there.
    """
    file = os.fdopen(os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
