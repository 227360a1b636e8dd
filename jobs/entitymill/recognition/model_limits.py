"""Bounds on what a model, which anybody may have made, can ask of this machine. Each name says its unit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

UNPACKED_FILES = 10_000
UNPACKED_BYTES = 16 * 2**30
UNPACKED_TIMES_SIZE = 200
"""Times its own size that a source may unpack to, archives inside archives included; real models stay far below."""
UNPACKED_FREE_BYTES = 2**20
"""Bytes that a source of any size may unpack to beside that."""
DETECTOR_FILE_BYTES = 64 * 2**20
"""Of each file in a sentence detector's archive; the carried one's largest has 0.2 MB."""
DETECTOR_TABLE_BYTES = 256 * 2**20
"""Of the tables that a sentence detector's layers are multiplied out to; the carried one's have 0.15 MB."""
DETECTOR_CHARACTERS = 2**16
"""Numbers that a detector's characters may have: a window holds them in 16 bits."""
JAVA_DEPTH = 100
"""Java objects inside one another in a saved field; Spark NLP's tokenizer rules have 12."""
LABEL_CHARACTERS = 100
LABEL_BYTES = 240
"""Of a label's name: each is the name of a directory, `label=NAME`, for which file systems take 255 bytes."""
_LOADING_BYTES = 2 * 2**30
_LOADING_BYTES_PER_CORE = 32 * 2**20
"""Each core gets a thread of OpenVINO, of Arrow and of NumPy, with a stack of 8 MB each."""
_LOADING_TIMES_SIZE = 24
"""Times its files' size that a model may take while it is loaded: weights of 8 bits become floats, and are repacked once
more. The carried model takes 10 times its own size."""

TAGGING_BYTES_PER_CHARACTER = 512
"""Of memory that `entitymill tag` may take beside that; ten million characters of news take a tenth of it."""


def loading_bytes(files: Iterable[Path]) -> int:
    """Bytes of memory that a process may take to load a model of these files; those that are missing count nothing."""
    size = sum(file.stat().st_size for file in files if file.is_file())
    return _LOADING_BYTES + _LOADING_BYTES_PER_CORE * (os.cpu_count() or 1) + _LOADING_TIMES_SIZE * size


def files_of(source: Path) -> list[Path]:
    """The files of a model in a local directory, not below it; or the model's one file."""
    return list(source.iterdir()) if source.is_dir() else [source]
