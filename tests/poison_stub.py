"""A stub for `child_recognition.open_recognition`: the real recognizer, but some texts crash or hang it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from entitymill.workers import child_recognition

FACTORY = "poison_stub:open_recognition"
NAMES = ("segfault", "kill", "loop", "memory", "native", "bug")
SEGFAULT, KILL, LOOP, MEMORY, NATIVE, BUG = (f"poison{name}" for name in NAMES)
WHEN = "poisonwhen:"
"""Prefix of a path in a text: the text kills the process once a file exists at this path."""
DEADLY = {SEGFAULT: signal.SIGSEGV, KILL: signal.SIGKILL}


def open_recognition(*arguments: Any) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    recognize = child_recognition.open_recognition(*arguments)

    def poisoned(window: pa.RecordBatch) -> pa.RecordBatch:
        text = " ".join(window.column("text").to_pylist())
        for word, number in DEADLY.items():
            if word in text:
                os.kill(os.getpid(), number)
        if any(Path(path).exists() for path in re.findall(rf"{WHEN}(\S+)", text)):
            os.kill(os.getpid(), signal.SIGKILL)
        while LOOP in text:
            time.sleep(0.01)
        if MEMORY in text:
            raise MemoryError
        if NATIVE in text:  # the message of OpenVINO's CPU plugin
            raise RuntimeError("Failed to allocate 1000000 bytes of memory")
        if BUG in text:
            raise ZeroDivisionError("a bug")
        return recognize(window)

    return poisoned


def broken(*_: Any) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Kill the process with SIGILL, as native code does on a processor without the required instructions."""
    os.kill(os.getpid(), signal.SIGILL)
    raise AssertionError
