"""Recognize errors that occurred because a disk of this machine is full, and name the directory."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from entitymill.errors import StorageError
from entitymill.spark import private_directories

FULL_BYTES = 64_000_000
"""After an error which says that a disk is full, every disk with fewer free bytes than this counts as full."""
_FULL_DISK_MESSAGES = ("No space left on device", "Disk quota exceeded")
_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_watched: dict[str, str] = {}
"""Directory -> the setting that names it."""


def watch(directory: str, setting: str) -> None:
    """Remember a directory to which this program writes, so that `find_fault` checks its disk.

    Args:
        directory: path or URI; ignored if it is not on this machine's disk.
        setting: the setting that names the directory, for the message.
    """
    path = directory.removeprefix("file:")
    if ":" not in path.partition("/")[0]:
        _watched[path] = setting


def find_fault(error: BaseException) -> StorageError | None:
    """Return a StorageError that names the full disks if `error` occurred because a disk is full; otherwise None.

    The error number of an OSError is reliable. The text of an error is not: it may quote a document with the same words. So
    the text counts only if a watched disk, or a disk with a private directory of this process, really is full.
    """
    full_by_number = isinstance(error, OSError) and error.errno in _ERRNOS
    if not full_by_number and not any(message in str(error) for message in _FULL_DISK_MESSAGES):
        return None
    watched = {**_watched, **{str(path): private_directories.LOCAL for path in private_directories.list_parents()}}
    full = [f"{setting}: the disk of {path} is full" for path, setting in watched.items() if _is_full(path)]
    if full_by_number and not full:
        full = [f"{getattr(error, 'filename', None) or 'a disk of this machine'}: there is no space left"]
    if not full:
        return None
    return StorageError(f"{'; '.join(full)}; published data is intact; free some space, then run again.")


def _is_full(directory: str) -> bool:
    """Return whether the disk of a directory, which need not exist yet, has fewer free bytes than FULL_BYTES."""
    existing = next((path for path in (Path(directory), *Path(directory).parents) if path.exists()), None)
    return existing is not None and shutil.disk_usage(existing).free < FULL_BYTES
