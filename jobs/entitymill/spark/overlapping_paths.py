"""Refuse outputs that overlap with the source or with another table.

Spark reads every file in a directory of Parquet files, and Delta's VACUUM removes files in a table's directory that do not
belong to the table. Neither may happen to the files of an output or a source.
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
"""Files by which a directory is recognized as a Parquet table. A single Parquet file is a table by itself."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/]*))?(.*)", re.DOTALL)
_SCHEME_ALIASES = {"s3a": "s3", "s3n": "s3", "abfss": "abfs", "wasbs": "wasb"}
"""Scheme -> the scheme that leads to the same files."""
_LOCAL = "file"
Exists = Callable[[str], bool]
Names = Callable[[str], list[str]]


@dataclass(frozen=True)
class Place:
    """A location that does not depend on the spelling of its address: a storage, and path components from its root."""

    storage: str
    parts: tuple[str, ...]

    def contains(self, other: Place) -> bool:
        """Return whether another place is this one or below it."""
        return self.storage == other.storage and self.parts == other.parts[: len(self.parts)]


def resolve_places(address: str) -> list[Place]:
    """Return the places to which an address leads; for a local path also those behind its symbolic links.

    Args:
        address: address in any spelling; without a scheme it is a local path, so pass the result of `storage.qualify`.
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
    """Check that an output is not inside its source, around it, or inside another table.

    Args:
        source: address of the source's files: `source.path`, or the location of a catalog table; empty for a view.
        output: `output.path`.
        exists: `storage.exists`: returns whether there is anything at an address.
        names: `storage.list_names`: returns the names of files that match a pattern.

    Raises:
        SettingsError: it is.
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
    """Return the table whose directory contains or equals an address; None if there is none, or none can be seen.

    Args:
        address: directory or file, which need not exist.
        exists: as for `check_output_path`.
        names: as for `check_output_path`; None to find only Delta tables.
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
    """Yield an address and all directories above it, also for the places behind symbolic links."""
    found = _SCHEME.fullmatch(address)
    scheme = found[1].lower() if found else _LOCAL
    # The storage as the address names it, except for the case of the scheme.
    root = f"{scheme}://{found[2] or ''}" if found and scheme != _LOCAL else f"{_LOCAL}:"
    ways = [place.parts for place in resolve_places(address)]
    yield from dict.fromkeys(f"{root}/{'/'.join(way[:length])}" for way in ways for length in range(len(way), -1, -1))


def _can_see(ask: Callable[[str], object], address: str) -> bool:
    """Return whether `ask` finds anything. An error counts as no: users may lack access to directories above their own."""
    try:
        return bool(ask(address))
    except (OSError, StorageError):
        return False


def _split_path(path: str) -> tuple[str, ...]:
    """Return the components of a path, with each `..` resolved."""
    return tuple(filter(None, posixpath.normpath(f"/{path}").split("/")))
