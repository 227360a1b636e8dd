"""Reject an output path that overlaps with the source or with another table.

Spark reads every file in a directory of Parquet files. Delta's VACUUM deletes files in a table's directory that do not
belong to the table. So if paths overlapped, one table's files could be read as part of another table, or be deleted.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from entitymill.errors import SettingsError, StorageError

LOG = "_delta_log"
_TABLE_FILES = ("_SUCCESS", "_metadata", "_common_metadata", "part-*.parquet")
"""Patterns of file names; a directory with a matching file counts as a Parquet table. Parquet files with other names do not
count: the source may be such a file, and an output may be in the directory of this file."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/]*))?(.*)", re.DOTALL)
_SCHEME_ALIASES = {"s3a": "s3", "s3n": "s3", "abfss": "abfs", "wasbs": "wasb"}
"""Dict from a URI scheme to an equivalent scheme: URIs with either scheme name the same files."""
_LOCAL = "file"
Exists = Callable[[str], bool]
"""Type of a function that takes a path and returns whether it exists, such as `partial(storage.exists, spark)`."""
Names = Callable[[str], list[str]]
"""Type of a function that returns names of files that match a pattern, such as `partial(storage.list_names, spark)`."""


@dataclass(frozen=True)
class NormalizedPath:
    """A path or URI in a normal form, in which different spellings of the same path are equal.

    storage: scheme and host, such as `s3://bucket`; `file` for a local path.
    parts: components of the path, from the root of the storage.
    """

    storage: str
    parts: tuple[str, ...]

    def contains(self, other: NormalizedPath) -> bool:
        """Return whether `other` is this path or below it."""
        return self.storage == other.storage and self.parts == other.parts[: len(self.parts)]


def list_normalized_paths(address: str) -> list[NormalizedPath]:
    """Return the normalized form of a path or URI and, for a local path, also the paths to which its symbolic links lead.

    Args:
        address: path or URI in any spelling. A path without a scheme counts as local. If it may be on other storage, the
            caller must first make it a URI with `storage.qualify`.
    """
    found = _SCHEME.fullmatch(address)
    scheme, host, path = (found[1].lower(), (found[2] or "").lower(), found[3]) if found else (_LOCAL, "", address)
    if scheme == _LOCAL:
        # Hadoop's client resolves `..` in the name before the operating system follows links.
        parts = _split_path(os.path.abspath(path))  # noqa: PTH100  # Path.resolve would also follow links
        ways = (_split_path(os.path.realpath("/" + "/".join(parts[:at]))) + parts[at:] for at in range(len(parts) + 1))
        return [NormalizedPath(_LOCAL, way) for way in dict.fromkeys(ways)]
    return [NormalizedPath(f"{_SCHEME_ALIASES.get(scheme, scheme)}://{host}", _split_path(path))]


def check_output_path(source: str, output: str, exists: Exists, names: Names) -> None:
    """Raise SettingsError if the output directory is inside the source, contains the source, or is inside another table.

    Args:
        source: path or URI of the source's files: `source.path`, or the location of a catalog table; empty for a view.
        output: value of `output.path`, as a path or URI.
        exists: function that takes a path or URI and returns whether it exists.
        names: function that takes a path or URI with wildcards in its last part and returns the names of matching files.
    """
    sources = list_normalized_paths(source) if source else ()
    pairs = [(target, origin) for target in list_normalized_paths(output) for origin in sources]
    if any(origin.contains(target) for target, origin in pairs):
        raise SettingsError(
            f"output.path: {output} is inside the source {source}, so readers of the source would read the "
            "output, or VACUUM would delete it; choose a directory outside the source."
        )
    if any(target.contains(origin) for target, origin in pairs):
        raise SettingsError(
            f"output.path: the source {source} is inside {output}, among the output's own tables; "
            "choose a directory next to the source."
        )

    table = find_enclosing_table(output, exists, names)
    if table is not None:
        raise SettingsError(
            f"output.path: {output} is inside the table {table}, so readers of that table would read the "
            "output, or VACUUM would delete it; choose a directory that is not inside a table."
        )


def find_enclosing_table(address: str, exists: Exists, names: Names | None = None) -> str | None:
    """Walk up from a path, and return the URI of the first directory that is a table; None if no table is found.

    The path itself comes first. For a local path, the directories above the targets of its symbolic links are also searched.

    Args:
        address: path or URI of a directory or file, which need not exist.
        exists: function that takes a path or URI and returns whether it exists.
        names: function that takes a path or URI with wildcards in its last part and returns the names of matching files. If
            it is None, only Delta tables are found, not tables of Parquet files.
    """
    for directory in _walk_up(address):
        inside = directory.rstrip("/")
        if _can_see(exists, f"{inside}/{LOG}"):
            return directory
        # One pattern for all names, because each call is a request to the storage.
        if names is not None and _can_see(names, f"{inside}/{{{','.join(_TABLE_FILES)}}}"):
            return directory
    return None


def _walk_up(address: str) -> Iterator[str]:
    """Yield the URIs of a path and of all directories above it; for a local path, also follow its symbolic links."""
    found = _SCHEME.fullmatch(address)
    scheme = found[1].lower() if found else _LOCAL
    # The scheme and host as written in the URI, but with the scheme in lower case.
    root = f"{scheme}://{found[2] or ''}" if found and scheme != _LOCAL else f"{_LOCAL}:"
    ways = [path.parts for path in list_normalized_paths(address)]
    yield from dict.fromkeys(f"{root}/{'/'.join(way[:length])}" for way in ways for length in range(len(way), -1, -1))


def _can_see(ask: Callable[[str], object], address: str) -> bool:
    """Return whether `ask`, a function of type Exists or Names, finds a file at a path or for a pattern.

    If `ask` raises an error, return False: users are often not allowed to read the directories above their own.
    """
    try:
        return bool(ask(address))
    except (OSError, StorageError):
        return False


def _split_path(path: str) -> tuple[str, ...]:
    """Return the components of a path, with each `..` resolved."""
    return tuple(filter(None, posixpath.normpath(f"/{path}").split("/")))
