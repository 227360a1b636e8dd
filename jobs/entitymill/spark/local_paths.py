"""Handle paths on this machine's disk: recognize local paths, find files of the repository, and write files atomically."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

_CODE = Path(__file__).parents[2]
REPOSITORY = _CODE.parent if _CODE.name == "jobs" else None
"""Root of the clone from which this package runs; None if the package was installed without the repository."""
FILE = "file:"
"""Scheme of URIs of files on a machine's own disk."""
_CLUSTERS = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION")
"""If any of these environment variables is set, a path without a scheme may be on a cluster's file system."""
_DEFAULT_FILE_SYSTEM = "fs.defaultFS"
"""End of the names of properties that set the file system of paths without a scheme."""
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*:")


def is_certainly_local(path: str, conf: Mapping[str, str]) -> bool:
    """Return whether Spark would certainly look up a path on this machine's disk; False for every path with a scheme.

    Args:
        conf: Spark properties from the settings; those in spark-defaults.conf are considered as well.
    """
    if _SCHEME.match(path) or any(name in os.environ for name in _CLUSTERS):
        return False
    from entitymill.spark.jvm_launch import read_file_properties  # noqa: PLC0415  # imports PySpark

    return not any(key.endswith(_DEFAULT_FILE_SYSTEM) for key in (*conf, *read_file_properties()))


def to_local_path(address: str) -> Path:
    """Return the path of a `file:` URI, or of an address without a scheme."""
    return Path("/" + address.removeprefix(FILE).lstrip("/")) if address.startswith(FILE) else Path(address)


def exists_here(path: str | Path) -> bool:
    """Return whether a path exists on this machine's disk; False if it may not be looked up, or if a name is too long."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def find_installed(path: str) -> str:
    """Return the path in the repository of a relative path that exists in the repository but not in the working directory.

    Any other path is returned unchanged: an absolute path, a URI, a path with `..`, or a path that exists in the working
    directory or nowhere.
    """
    relative = Path(path)
    if REPOSITORY is None or relative.is_absolute() or ".." in relative.parts or exists_here(relative):
        return path
    installed = REPOSITORY / relative
    return str(installed) if exists_here(installed) else path


def pin_path(path: str) -> str:
    """Return a path that means the same in every working directory.

    A path that exists in the working directory, but not in the repository, becomes absolute. Others stay unchanged.
    """
    is_installed = REPOSITORY is not None and exists_here(REPOSITORY / path)
    return str(Path(path).absolute()) if exists_here(path) and not is_installed else path


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file, or replace an existing file or link, atomically: rename a temporary file in the same directory.

    The temporary file gets a random name, and must not exist yet. Otherwise, others who may write to the directory could
    create a link with that name, so that this program overwrites any file of its user.

    Raises:
        OSError: the file cannot be written; no temporary file remains.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(opened, "wb") as writing:
            writing.write(content)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
