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
"""Name patterns of files that make a directory a Parquet table. A single Parquet file is also a table."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/]*))?(.*)", re.DOTALL)
_SCHEME_ALIASES = {"s3a": "s3", "s3n": "s3", "abfss": "abfs", "wasbs": "wasb"}
"""Dict from a scheme to another scheme that leads to the same files."""
_LOCAL = "file"
Exists = Callable[[str], bool]
"""A function such as `storage.exists`: takes a path, and returns whether it exists."""
Names = Callable[[str], list[str]]
"""A function such as `storage.list_names`: takes a pattern, and returns the names of the files that match it."""


@dataclass(frozen=True)
class NormalizedPath:
    """A path or URI in a form that is the same for all its spellings.

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
        address: path or URI in any spelling. A path without a scheme counts as local; `storage.qualify` adds the scheme.
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
    """Check that an output directory is not inside the source, does not contain the source, and is not inside a table.

    Args:
        source: path or URI of the source's files: `source.path`, or the location of a catalog table; empty for a view.
        output: value of `output.path`.
        exists, names: functions such as `storage.exists` and `storage.list_names`.

    Raises:
        SettingsError: the output overlaps with the source or with another table.
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
    """Return the directory of the table that contains a path, or is at the path; None if no such table can be found.

    Args:
        address: path or URI of a directory or file, which need not exist.
        exists, names: functions such as `storage.exists` and `storage.list_names`; without `names`, only Delta tables are
            found.
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
    """Yield the URIs of a path and of all directories above it, then the same for the paths to which symbolic links lead."""
    found = _SCHEME.fullmatch(address)
    scheme = found[1].lower() if found else _LOCAL
    # The scheme and host as written in the URI, but with the scheme in lower case.
    root = f"{scheme}://{found[2] or ''}" if found and scheme != _LOCAL else f"{_LOCAL}:"
    ways = [path.parts for path in list_normalized_paths(address)]
    yield from dict.fromkeys(f"{root}/{'/'.join(way[:length])}" for way in ways for length in range(len(way), -1, -1))


def _can_see(ask: Callable[[str], object], address: str) -> bool:
    """Return whether `ask` finds anything at a path or pattern.

    False after an error, because users may not be allowed to read the directories above their own.
    """
    try:
        return bool(ask(address))
    except (OSError, StorageError):
        return False


def _split_path(path: str) -> tuple[str, ...]:
    """Return the components of a path, with each `..` resolved."""
    return tuple(filter(None, posixpath.normpath(f"/{path}").split("/")))
