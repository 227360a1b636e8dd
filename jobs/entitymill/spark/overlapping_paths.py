"""Whether an output would lie in a table, be it the source's or anybody's, or the source in the output.

Spark reads whatever lies in a directory of Parquet files, and Delta's VACUUM removes what lies in a table's directory and is
not the table's: neither may happen to an output, nor to a source.
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
"""Beside the files of a Parquet table that is a directory; a file alone, whatever lies beside it, is its own table."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/]*))?(.*)", re.DOTALL)
_SCHEME_ALIASES = {"s3a": "s3", "s3n": "s3", "abfss": "abfs", "wasbs": "wasb"}
"""Schemes that are other ways to the same files."""
_LOCAL = "file"
Exists = Callable[[str], bool]
Names = Callable[[str], list[str]]


@dataclass(frozen=True)
class Place:
    """Where an address leads, however it is written: files of one storage, and the way in them from their root."""

    storage: str
    parts: tuple[str, ...]

    def contains(self, other: Place) -> bool:
        """Whether another place is this one, or below it."""
        return self.storage == other.storage and self.parts == other.parts[: len(self.parts)]


def resolve_places(address: str) -> list[Place]:
    """Where an address leads: by its own parts, and for a local path also behind each of its links.

    Args:
        address: of any spelling; one without a scheme is a local path, as `storage.qualify` tells of each.
    """
    found = _SCHEME.fullmatch(address)
    scheme, host, path = (found[1].lower(), (found[2] or "").lower(), found[3]) if found else (_LOCAL, "", address)
    if scheme == _LOCAL:
        # Hadoop's client takes `..` out of the name before the operating system sees a link.
        way = _split_path(os.path.abspath(path))  # noqa: PTH100  # Path.resolve follows links, too
        ways = (_split_path(os.path.realpath("/" + "/".join(way[:at]))) + way[at:] for at in range(len(way) + 1))
        return [Place(_LOCAL, each) for each in dict.fromkeys(ways)]
    return [Place(f"{_SCHEME_ALIASES.get(scheme, scheme)}://{host}", _split_path(path))]


def check_output_path(source: str, output: str, exists: Exists, names: Names) -> None:
    """Refuse an output that lies in its source, around it, or in another table.

    Args:
        source: address of the source's files: `source.path`, or the location of a catalog table; empty for a view.
        output: `output.path`.
        exists: whether anything is at an address: `storage.exists`.
        names: of the files that an address with wildcards in its last part matches: `storage.names`.

    Raises:
        SettingsError: it does.
    """
    pairs = [(here, there) for here in resolve_places(output) for there in (resolve_places(source) if source else ())]
    if any(there.contains(here) for here, there in pairs):
        raise SettingsError(
            f"output.path: {output} lies in the source {source}, which would be read with the output's files in it, or be "
            "cleared of them; choose a directory outside of it."
        )
    if any(here.contains(there) for here, there in pairs):
        raise SettingsError(
            f"output.path: the source {source} lies in {output}, among the output's own tables; "
            "choose a directory beside it."
        )

    table = find_enclosing_table(output, exists, names)
    if table is not None:
        raise SettingsError(
            f"output.path: {output} lies in the table {table}, which would be read with the output's files in it, or be "
            "cleared of them; choose a directory that is in no table."
        )


def find_enclosing_table(address: str, exists: Exists, names: Names | None = None) -> str | None:
    """The table whose directory an address is, or lies in; none where that cannot be seen, or is not so.

    Args:
        address: of a directory or a file, which need not be there.
        exists: as for `check`.
        names: as for `check`; none: Delta tables alone are looked for.
    """
    for directory in _walk_up(address):
        inside = directory.rstrip("/")
        if _can_see(exists, f"{inside}/{LOG}"):
            return directory
        escaped = re.sub(r"([\\*?\[\]{}])", r"\\\1", inside)
        # In one question: each is one to the storage.
        if names is not None and _can_see(names, f"{escaped}/{{{','.join(_TABLE_FILES)}}}"):
            return directory
    return None


def _walk_up(address: str) -> Iterator[str]:
    """An address and all directories above it, and the same behind links."""
    found = _SCHEME.fullmatch(address)
    scheme = found[1].lower() if found else _LOCAL
    # As the client was told of the storage, but for the scheme's letter case.
    root = f"{scheme}://{found[2] or ''}" if found and scheme != _LOCAL else f"{_LOCAL}:"
    ways = [place.parts for place in resolve_places(address)]
    yield from dict.fromkeys(f"{root}/{'/'.join(way[:length])}" for way in ways for length in range(len(way), -1, -1))


def _can_see(ask: Callable[[str], object], address: str) -> bool:
    """Whether there is something; who may not look above its own directory is not kept from that one."""
    try:
        return bool(ask(address))
    except (OSError, StorageError):
        return False


def _split_path(path: str) -> tuple[str, ...]:
    """The parts of a path, each `..` taken out with what is before it."""
    return tuple(filter(None, posixpath.normpath(f"/{path}").split("/")))
