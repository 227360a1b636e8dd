"""Write files of the driver's own disk so that nobody ever sees half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write(file: Path, content: bytes) -> None:
    """Write a file under another name in its directory and rename it; what was there is replaced, be it a link.

    The other name cannot be guessed, and nothing may be there: in a directory that others write to, a link under a name
    that they know would have this program overwrite any file of its user.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    beside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(opened, "wb") as writing:
            writing.write(content)
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
