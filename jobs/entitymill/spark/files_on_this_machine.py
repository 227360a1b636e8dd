"""Handle files on this machine's disk: find local paths and files of this program's clone, and detect full disks.

The module also creates private temporary directories. Spark's own `blockmgr-*` directories contain document text, are
readable by everyone, and remain after a SIGKILL. Instead, each process of this program keeps all its temporary files in a
private directory with mode 0700, and deletes the directory when it exits. If a process is killed, the next process of this
program deletes the killed one's directory.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from entitymill.errors import StorageError

_CODE = Path(__file__).parents[2]
REPOSITORY = _CODE.parent if _CODE.name == "jobs" else None
"""Root of the clone of Entity Mill's repository from which this package runs; None if it does not run from a clone."""
FILE = "file:"
"""Scheme of URIs of files on a machine's own disk."""
_CLUSTERS = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION")
"""If any of these environment variables is set, a path without a scheme may be on a cluster's file system."""
_DEFAULT_FILE_SYSTEM = "fs.defaultFS"
"""End of property names, such as spark.hadoop.fs.defaultFS. The property sets the file system of paths without a scheme."""
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*:")
LOCAL_DIR_PROPERTY = "spark.local.dir"
"""Property that names the directory of Spark's blocks and shuffle files."""
_VARIABLES = ("SPARK_LOCAL_DIRS", "LOCAL_DIRS")
"""Environment variables that override the property LOCAL_DIR_PROPERTY."""
_PREFIX = "entitymill-process-"
_ATTEMPTS = 20
_LOCK = "in-use"
_creating = threading.Lock()
_directories: dict[tuple[int, Path], tuple[Path, IO[str]]] = {}
"""Dict from (process id, parent directory) to the private directory and its lock file, locked while the process runs."""
FULL_BYTES = 64_000_000
"""After an error which says that a disk is full, each disk with fewer free bytes than this is reported as full."""
_FULL_DISK_MESSAGES = ("No space left on device", "Disk quota exceeded")
_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_watched: dict[str, str] = {}
"""Dict from a directory to which this program writes to the setting that names the directory."""


def is_certainly_local(path: str, conf: Mapping[str, str]) -> bool:
    """Return whether it is certain that Spark looks up a path on this machine's disk; False for every path with a scheme.

    `conf` has the Spark properties from the settings; this function itself reads the properties in spark-defaults.conf.
    """
    if _SCHEME.match(path) or any(name in os.environ for name in _CLUSTERS):
        return False
    from entitymill.spark.jvm_launch import read_file_properties  # noqa: PLC0415  # imports PySpark

    return not any(key.endswith(_DEFAULT_FILE_SYSTEM) for key in (*conf, *read_file_properties()))


def to_local_path(address: str) -> Path:
    """Convert a `file:` URI to the path that it names; convert any other text to a Path as it is."""
    return Path("/" + address.removeprefix(FILE).lstrip("/")) if address.startswith(FILE) else Path(address)


def exists_here(path: str | Path) -> bool:
    """Return whether a path exists on this machine's disk; also False if access is denied, or a name in it is too long."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def find_in_clone(path: str) -> str:
    """Return the absolute path of a file or directory in this program's Git clone, if the working directory lacks it.

    In all other cases, return `path` unchanged, also if it is absolute, is a URI, or contains `..`. The working directory
    counts as lacking the path if a file, directory or link on the path belongs to another user (except root). This user
    could have put other jars or models there.
    """
    relative = Path(path)
    if REPOSITORY is None or relative.is_absolute() or ".." in relative.parts:
        return path
    if exists_here(relative) and not _is_from_others(relative):
        return path
    installed = REPOSITORY / relative
    return str(installed) if exists_here(installed) else path


def _is_from_others(relative: Path) -> bool:
    """Return whether a part of a relative path, such as a directory or a link, belongs to another user, except root."""
    parts = [relative, *relative.parents][:-1]  # without the working directory itself
    return any(part.lstat().st_uid not in (0, os.getuid()) for part in parts)


def pin_path(path: str) -> str:
    """Make a path absolute if it exists, but not in the Git clone that contains this program; return other paths unchanged.

    So a path that exists now stays valid in every working directory: `find_in_clone` finds paths in the clone from
    everywhere.
    """
    is_installed = REPOSITORY is not None and exists_here(REPOSITORY / path)
    return str(Path(path).absolute()) if exists_here(path) and not is_installed else path


def write_atomically(file: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file, or replace an existing file or link, atomically: rename a temporary file in the same directory.

    With `private`, only this user may read the file.

    The temporary file gets a random name, and writing fails if a file of this name exists. If the name could be guessed,
    another user could create a link with the name, so that this program overwrites the link's target. Raise OSError if the
    file cannot be written; no temporary file remains.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600 if private else 0o666)
    try:
        with os.fdopen(opened, "wb") as writing:
            writing.write(content)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_private_directory(parent: Path | None = None) -> Path:
    """Return this process's private directory in `parent`; None stands for Python's directory for temporary files.

    The first call for a parent creates the private directory and, if it is missing, the parent. This call also deletes the
    private directories of processes that have ended. When this process exits, it deletes its private directory. Raise
    OSError if the parent cannot be written.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    key = (os.getpid(), parent)
    with _creating:
        if key not in _directories or not _directories[key][0].is_dir():  # a cleaner of old files may have deleted it
            parent.mkdir(parents=True, exist_ok=True)
            delete_unused(parent)
            directory, lock = _create_locked_directory(parent)
            _directories[key] = (directory, lock)
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
        return _directories[key][0]


def list_private_parents() -> list[Path]:
    """Return the directories that contain a private directory of this process, created by `open_private_directory`."""
    return [parent for pid, parent in _directories if pid == os.getpid()]


def create_scratch_directory(prefix: str) -> Path:
    """Create a directory in this process's private directory, and return its path; it exists until this process ends.

    The name of the new directory begins with `prefix`.
    """
    return Path(tempfile.mkdtemp(prefix=prefix, dir=open_private_directory()))


def choose_local_directory(properties: Mapping[str, str]) -> dict[str, str]:
    """Return a dict with the property that makes Spark store blocks and shuffle files in a private directory.

    `properties` are those of the session. If they set spark.local.dir, the private directory is created in the directory
    that this property names. The dict is empty, so that Spark uses the directories that the user chose, in two cases:

    - spark.local.dir names several directories, or one that cannot be written.
    - The environment variable SPARK_LOCAL_DIRS or LOCAL_DIRS is set.
    """
    chosen = properties.get(LOCAL_DIR_PROPERTY)
    if (chosen is not None and "," in chosen) or any(name in os.environ for name in _VARIABLES):
        return {}
    with contextlib.suppress(OSError):  # Spark itself reports a directory that it cannot write
        return {LOCAL_DIR_PROPERTY: str(open_private_directory(None if chosen is None else Path(chosen)))}
    return {}


def delete_unused(parent: Path) -> None:
    """Delete the private directories in `parent` that belong to this user and whose processes have ended."""
    for directory in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            is_ours = not directory.is_symlink() and directory.stat().st_uid == os.getuid()
            if is_ours and (directory / _LOCK).is_file():
                with _lock(directory):
                    shutil.rmtree(directory)


def _create_locked_directory(parent: Path) -> tuple[Path, IO[str]]:
    """Create a private directory in `parent`, lock it, and return its path and its open lock file.

    Before the directory is locked, another process may delete it, because it looks like the directory of an ended process.
    In this case, create a new directory, up to _ATTEMPTS times. Raise OSError after that, or if `parent` cannot be written.
    """
    for _ in range(_ATTEMPTS):
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            lock = _lock(directory)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        if os.fstat(lock.fileno()).st_nlink:
            return directory, lock
        lock.close()
    raise OSError(errno.EAGAIN, f"other processes keep deleting new directories {_PREFIX}*", str(parent))


def _lock(directory: Path) -> IO[str]:
    """Lock a private directory for this process, and return the lock file; closing the file releases the lock.

    Raise OSError if another process holds the lock, which means that the other process is still running.
    """
    file = os.fdopen(os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def register_directory(directory: str, setting: str) -> None:
    """Register a directory to which this program writes, so that `detect_full_disk` checks whether its disk is full.

    A URI that does not name a local disk is ignored. `setting` is the setting that names the directory, for the message.
    """
    path = directory.removeprefix("file:")
    if ":" not in path.partition("/")[0]:
        _watched[path] = setting


def detect_full_disk(error: BaseException) -> StorageError | None:
    """Return a StorageError that names the full disks if `error` occurred because a disk is full; otherwise None.

    The error number of an OSError is reliable. The text of an error is not: it may quote a document that contains "No space
    left on device". So the text counts only if a disk really is full. The checked disks are those of the directories
    that `register_directory` registered, and of this process's private directories.
    """
    full_by_number = isinstance(error, OSError) and error.errno in _ERRNOS
    if not full_by_number and not any(message in str(error) for message in _FULL_DISK_MESSAGES):
        return None
    watched = {**_watched, **{str(path): LOCAL_DIR_PROPERTY for path in list_private_parents()}}
    full = [f"{setting}: the disk of {path} is full" for path, setting in watched.items() if _is_full(path)]
    if full_by_number and not full:
        full = [f"{getattr(error, 'filename', None) or 'a disk of this machine'}: there is no space left"]
    if not full:
        return None
    return StorageError(f"{'; '.join(full)}; published data is intact; free some space, then run again.")


def _is_full(directory: str) -> bool:
    """Return whether the disk of a directory has fewer free bytes than FULL_BYTES; the directory need not exist yet."""
    existing = next((path for path in (Path(directory), *Path(directory).parents) if path.exists()), None)
    return existing is not None and shutil.disk_usage(existing).free < FULL_BYTES
