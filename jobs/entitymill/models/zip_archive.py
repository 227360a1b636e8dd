"""Zip archives from elsewhere: unpacked within one directory and within a bound, or not at all."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from entitymill.errors import ModelError
from entitymill.recognition.sentences_dl_saved import DAMAGE

MAX_MEMBERS = 10_000
MAX_BYTES = 16 * 2**30
MAX_RATIO = 200
"""Times its own size that an archive may unpack to; networks and vocabularies stay far below."""
_FREE_BYTES = 2**20
_BLOCK = 2**20


def unpack(archive: Path, into: Path, where: str) -> None:
    """Unpack every file of an archive.

    Args:
        archive: the zip file.
        into: an empty directory.
        where: the archive's address, for messages.

    Raises:
        ModelError: it is damaged or encrypted, names files outside itself, or unpacks to too much.
    """
    allowed = min(MAX_BYTES, _FREE_BYTES + MAX_RATIO * archive.stat().st_size)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            if len(members) > MAX_MEMBERS:
                raise ModelError(f"{where} holds {len(members):,} files, more than any model: it is refused.")
            for member in members:
                allowed -= _unpack_one(opened, member, _target(member, into, where), allowed, where)
    except DAMAGE as error:
        raise ModelError(f"{where} is not a zip archive that can be read: copy it again.") from error


def _target(member: zipfile.ZipInfo, into: Path, where: str) -> Path:
    path = PurePosixPath(member.filename)
    mode = member.external_attr >> 16
    outside = path.is_absolute() or not path.parts or ".." in path.parts or "\\" in member.filename or ":" in member.filename
    if outside or stat.S_ISLNK(mode):
        raise ModelError(f"{where} holds a link, or a file that would lie outside of it: it is refused.")
    return into / path


def _unpack_one(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, allowed: int, where: str) -> int:
    """Write one file; returns its bytes. What a member says of its size is not believed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(member) as source, target.open("wb") as copy:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > allowed:
                raise ModelError(f"{where} unpacks to far more than its own size: it is refused.")
            copy.write(block)
    return written
