"""A stub for `child_recognition.open_recognition` whose error quotes the text, as a bug in a package might."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

FACTORY = "leaky_stub:open_recognition"


def open_recognition(*_: Any) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    def recognize(window: pa.RecordBatch) -> pa.RecordBatch:
        raise ValueError(window.column("text").to_pylist())

    return recognize
