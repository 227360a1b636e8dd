"""Limits on the resources that a model, which may be hostile, can use on this machine. Each name contains its unit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

UNPACKED_FILES = 10_000
UNPACKED_BYTES = 16 * 2**30
UNPACKED_TIMES_SIZE = 200
"""A source may unpack to this many times its own size, nested archives included; real models stay far below."""
UNPACKED_FREE_BYTES = 2**20
"""A source of any size may unpack to this many bytes in addition."""
DETECTOR_FILE_BYTES = 64 * 2**20
"""Limit for each file in a sentence detector's archive; the largest file of the bundled detector has 0.2 MB."""
DETECTOR_TABLE_BYTES = 256 * 2**20
"""Limit for the tables precomputed from a sentence detector's layers; those of the bundled detector have 0.15 MB."""
DETECTOR_CHARACTERS = 2**16
"""Limit for the ids of a detector's characters: a window stores them in 16 bits."""
JAVA_DEPTH = 100
"""Limit for nested Java objects in a saved field; Spark NLP's tokenizer rules have a depth of 12."""
LABEL_CHARACTERS = 100
LABEL_BYTES = 240
"""Limit for a label, which becomes the name of a directory, `label=NAME`: file systems allow 255 bytes."""
_LOADING_BYTES = 2 * 2**30
_LOADING_BYTES_PER_CORE = 32 * 2**20
"""OpenVINO, Arrow and NumPy each start a thread per core, with a stack of 8 MB each."""
_LOADING_TIMES_SIZE = 24
"""Loading a model may take this many times the size of its files: 8-bit weights become floats, and are then repacked. The
bundled model takes 10 times its own size."""

TAGGING_BYTES_PER_CHARACTER = 512
"""Memory that `entitymill tag` may use in addition; ten million characters of news use a tenth of it."""


def loading_memory_limit(files: Iterable[Path]) -> int:
    """Return how many bytes of memory a process may use to load a model with these files; missing files are ignored."""
    size = sum(file.stat().st_size for file in files if file.is_file())
    return _LOADING_BYTES + _LOADING_BYTES_PER_CORE * (os.cpu_count() or 1) + _LOADING_TIMES_SIZE * size


def list_model_files(source: Path) -> list[Path]:
    """Return the entries of a local model directory, without subdirectories' contents; or the file, if `source` is one."""
    return list(source.iterdir()) if source.is_dir() else [source]
