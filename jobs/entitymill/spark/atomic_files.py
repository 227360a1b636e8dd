"""Write files on the driver's own disk atomically, so that no reader sees an incomplete file."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write(file: Path, content: bytes) -> None:
    """Write a file, or replace an existing file or link, atomically: rename a temporary file in the same directory.

    The temporary file has a random name, and must not exist yet. Otherwise, in a directory to which others can write, a
    link with that name could make this program overwrite any file of its user.

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
