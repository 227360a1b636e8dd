"""Limits on the resources that a model, which may be malicious, can use on this machine.

The name of each limit says what it counts, for example BYTES.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

UNPACKED_FILES = 10_000
UNPACKED_BYTES = 16 * 2**30
"""Limits for the number and the total size of the files of a model, nested archives included, after unpacking."""
UNPACKED_TIMES_SIZE = 200
"""The files of a model may unpack to this many times their own size, nested archives included. Real models need far less."""
UNPACKED_FREE_BYTES = 2**20
"""Even a small model may unpack to this many bytes; they are added to what UNPACKED_TIMES_SIZE allows."""
DETECTOR_FILE_BYTES = 64 * 2**20
"""Limit for each file in the archive of a sentence detector; the largest file of the bundled detector has 0.2 MB."""
DETECTOR_TABLE_BYTES = 256 * 2**20
"""Limit for the tables computed from the layers of a sentence detector; the tables of the bundled detector have 0.15 MB."""
DETECTOR_CHARACTERS = 2**16
"""Limit for the ids of a sentence detector's characters, since 16 bits are used for an id."""
JAVA_DEPTH = 100
"""Limit for the depth of nested Java objects in a saved field; Spark NLP's tokenizer rules have a depth of 12."""
LABEL_CHARACTERS = 100
LABEL_BYTES = 240
"""Limit for a label: it becomes part of the name of a directory, `label=NAME`, which may have 255 bytes on file systems."""
_LOADING_BYTES = 2 * 2**30
_LOADING_BYTES_PER_CORE = 32 * 2**20
"""Allowance for threads: OpenVINO, Arrow and NumPy each start a thread per core, and a thread has a stack of 8 MB."""
_LOADING_TIMES_SIZE = 24
"""Loading a model may take this many times the size of its files in memory, since 8-bit weights become floats and are then
repacked. The bundled model takes 10 times the size of its files."""

TAGGING_BYTES_PER_CHARACTER = 512
"""Memory per character of text that a process may use to tag. Ten million characters of news need a tenth of the memory that
this limit allows."""
_TAGGING_BYTES = 2**30
_MEGABYTE = 1_000_000
_STATUS = Path("/proc/self/status")


def loading_memory_limit(files: Iterable[Path]) -> int:
    """Return how many bytes of memory a process may use to load a model that has these files; missing files are ignored."""
    size = sum(file.stat().st_size for file in files if file.is_file())
    return _LOADING_BYTES + _LOADING_BYTES_PER_CORE * (os.cpu_count() or 1) + _LOADING_TIMES_SIZE * size


def tagging_memory_limit(characters: int, megabytes: int | None) -> int:
    """Return how many bytes of memory a process may use to tag texts, in addition to its loaded model.

    Args:
        characters: total number of characters in the texts.
        megabytes: the limit in MB from the `limits.tagger_mb` setting; None to compute it from the number of characters.
    """
    if megabytes is not None:
        return megabytes * _MEGABYTE
    return _TAGGING_BYTES + TAGGING_BYTES_PER_CHARACTER * characters


def read_used_memory() -> int:
    """Return how many bytes of private writable memory this process uses: VmData in proc(5), which `memory_limit` limits."""
    return next(int(line.split()[1]) * 1024 for line in _STATUS.read_text().splitlines() if line.startswith("VmData:"))


def list_model_files(source: Path) -> list[Path]:
    """Return the direct entries of a local model directory; if `source` is a file, return only that file."""
    return list(source.iterdir()) if source.is_dir() else [source]
