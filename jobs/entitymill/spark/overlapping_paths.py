"""Reject an output path that overlaps with the source or with another table.

Spark reads every file in a directory of Parquet files, and Delta's VACUUM removes files in a table's directory that do not
belong to the table. So if paths overlapped, one table's files could be read as part of another table, or deleted.
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
"""Name patterns of files by which a directory is recognized as a Parquet table. A single Parquet file is also a table."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/]*))?(.*)", re.DOTALL)
_SCHEME_ALIASES = {"s3a": "s3", "s3n": "s3", "abfss": "abfs", "wasbs": "wasb"}
"""Scheme -> another scheme for the same files."""
_LOCAL = "file"
Exists = Callable[[str], bool]
"""A function such as `storage.exists`: path -> whether it exists."""
Names = Callable[[str], list[str]]
"""A function such as `storage.list_names`: pattern -> names of the files that match it."""


@dataclass(frozen=True)
class Place:
    """A normalized path, which is the same for all spellings of a path or URI.

    storage: scheme and host, such as `s3://bucket`; `file` for a local path.
    parts: components of the path, from the root of the storage.
    """

    storage: str
    parts: tuple[str, ...]

    def contains(self, other: Place) -> bool:
        """Return whether `other` is this place or below it."""
        return self.storage == other.storage and self.parts == other.parts[: len(self.parts)]


def resolve_places(address: str) -> list[Place]:
    """Return the places to which a path or URI refers; for a local path, also the places to which its symbolic links lead.

    Args:
        address: path or URI in any spelling. Without a scheme it is taken for a local path, so pass the result of
            `storage.qualify`.
    """
    found = _SCHEME.fullmatch(address)
    scheme, host, path = (found[1].lower(), (found[2] or "").lower(), found[3]) if found else (_LOCAL, "", address)
    if scheme == _LOCAL:
        # Hadoop's client resolves `..` in the name before the operating system follows links.
        way = _split_path(os.path.abspath(path))  # noqa: PTH100  # Path.resolve follows links, too
        ways = (_split_path(os.path.realpath("/" + "/".join(way[:at]))) + way[at:] for at in range(len(way) + 1))
        return [Place(_LOCAL, each) for each in dict.fromkeys(ways)]
    return [Place(f"{_SCHEME_ALIASES.get(scheme, scheme)}://{host}", _split_path(path))]


def check_output_path(source: str, output: str, exists: Exists, names: Names) -> None:
    """Check that an output directory is not inside the source, does not contain the source, and is not inside a table.

    Args:
        source: path or URI of the source's files: `source.path`, or the location of a catalog table; empty for a view.
        output: value of `output.path`.
        exists: function that returns whether a path exists: `storage.exists`.
        names: function that returns the names of the files that match a pattern: `storage.list_names`.

    Raises:
        SettingsError: the output overlaps with the source or with another table.
    """
    pairs = [(here, there) for here in resolve_places(output) for there in (resolve_places(source) if source else ())]
    if any(there.contains(here) for here, there in pairs):
        raise SettingsError(
            f"output.path: {output} is inside the source {source}, so that readers of the source would read the "
            "output, or VACUUM would delete it; choose a directory outside the source."
        )
    if any(here.contains(there) for here, there in pairs):
        raise SettingsError(
            f"output.path: the source {source} is inside {output}, among the output's own tables; "
            "choose a directory next to the source."
        )

    table = find_enclosing_table(output, exists, names)
    if table is not None:
        raise SettingsError(
            f"output.path: {output} is inside the table {table}, so that readers of that table would read the "
            "output, or VACUUM would delete it; choose a directory that is not inside a table."
        )


def find_enclosing_table(address: str, exists: Exists, names: Names | None = None) -> str | None:
    """Return the directory of the table that is at a path or above it; None if there is no table, or none is accessible.

    Args:
        address: path or URI of a directory or file, which need not exist.
        exists: the same function as for `check_output_path`.
        names: the same function as for `check_output_path`; None to find only Delta tables.
    """
    for directory in _walk_up(address):
        inside = directory.rstrip("/")
        if _can_see(exists, f"{inside}/{LOG}"):
            return directory
        escaped = re.sub(r"([\\*?\[\]{}])", r"\\\1", inside)
        # One pattern for all names, since each call is a request to the storage.
        if names is not None and _can_see(names, f"{escaped}/{{{','.join(_TABLE_FILES)}}}"):
            return directory
    return None


def _walk_up(address: str) -> Iterator[str]:
    """Yield the URIs of a path and of all directories above it, then those of the paths that its symbolic links lead to."""
    found = _SCHEME.fullmatch(address)
    scheme = found[1].lower() if found else _LOCAL
    # The scheme and host as written in the URI, but with the scheme in lower case.
    root = f"{scheme}://{found[2] or ''}" if found and scheme != _LOCAL else f"{_LOCAL}:"
    ways = [place.parts for place in resolve_places(address)]
    yield from dict.fromkeys(f"{root}/{'/'.join(way[:length])}" for way in ways for length in range(len(way), -1, -1))


def _can_see(ask: Callable[[str], object], address: str) -> bool:
    """Return whether `ask` finds anything at a path or pattern.

    An error counts as no, since some users are not allowed to read the directories above their own.
    """
    try:
        return bool(ask(address))
    except (OSError, StorageError):
        return False


def _split_path(path: str) -> tuple[str, ...]:
    """Return the components of a path, with each `..` resolved."""
    return tuple(filter(None, posixpath.normpath(f"/{path}").split("/")))
