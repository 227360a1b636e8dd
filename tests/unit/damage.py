"""Functions that damage files, and a watch for the side effects of reading such files."""

from __future__ import annotations

import io
import os
import random
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_RUNS = ("pickle.", "marshal.", "subprocess.", "socket.", "ctypes.", "os.system", "os.exec", "os.posix_spawn", "os.fork")
_LOADS = ("import", "exec", "compile")
_LINKS = ("os.link", "os.symlink")
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.utime")
_watched: list[tuple[Path, list[str]]] = []


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return the content with some bytes flipped, cut off, left out, inserted, or set to zero."""
    kind, at = draw.choice(["flip", "flip", "cut", "drop", "put", "zero"]), draw.randrange(len(content))
    if kind == "flip":
        many = bytearray(content)
        for place in (at, *(draw.randrange(len(content)) for _ in range(draw.choice([0, 0, 3, 30])))):
            many[place] ^= draw.randrange(1, 256)
        return bytes(many)
    size = draw.choice([1, 4, 100])
    return {
        "cut": content[:at],
        "drop": content[:at] + content[at + size :],
        "put": content[:at] + draw.randbytes(size) + content[at:],
        "zero": content[:at] + bytes(size) + content[at + size :],
    }[kind]


def repacked(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of these files with correct checksums, so that their contents are read."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


@contextmanager
def watch(directory: Path) -> Iterator[list[str]]:
    """Record forbidden side effects of Python code: changes outside a directory, links, and code that is loaded or run.

    The source is Python's audit events (PEP 578), which do not include what C++ code writes itself.
    """
    if not _watched:
        sys.addaudithook(_audit)  # cannot be removed, so it uses only the last watch
    found: list[str] = []
    _watched.append((directory.resolve(), found))
    try:
        yield found
    finally:
        _watched.append((Path("/"), []))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    directory, found = _watched[-1]
    if directory == Path("/"):
        return
    if event.startswith(_RUNS) or event in (*_LOADS, *_LINKS):
        found.append(f"{event} {arguments!r}"[:300])
    changed = arguments[0] if event in _CHANGES or (event == "open" and _writes(arguments[2])) else None
    if isinstance(changed, (str, bytes)) and directory not in Path(os.path.realpath(os.fsdecode(changed))).parents:
        found.append(f"{event} {changed!r}")


def _writes(flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND))
