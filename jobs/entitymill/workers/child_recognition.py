"""Recognize documents in the child process of a worker. On executors, no other process loads OpenVINO."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from entitymill.recognition import sentences
from entitymill.recognition.model_loading_limits import (
    compute_loading_limit,
    compute_tagging_limit,
    limited_memory,
    read_used_memory,
)
from entitymill.recognition.recognizer import Recognizer
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.inference import Tagger
from entitymill.workers import recognized_rows
from entitymill.workers.worker import RecognitionOptions

_TEST_TEXTS = ["They met in Paris."]


def open_recognition(
    model: tuple[dict[str, Path], bundle.Manifest, str],
    detector: tuple[dict[str, Path], dict[str, str], str],
    options: RecognitionOptions,
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Load and test the sentence detector and the model, and return a function that recognizes documents.

    The memory of this process is limited during loading. The returned function takes a window (a batch of documents sent to
    the child process at once). It returns one row per document, with the columns schemas.RECOGNIZED, `passthrough` if the
    window has this column, and schemas.ANNOTATIONS if `options.annotations` is True.

    Args:
        model: tuple of a dict from the names of the bundle's files to their local paths, the manifest, and the bundle's path
            or URI, for messages.
        detector: tuple of a dict from the names of the detector's files to their local paths, a dict from these names to
            SHA-256 digests, and the detector's path or URI, for messages.

    Raises:
        ModelError: a file on this machine differs from the file that the driver checked, or cannot be loaded.
    """
    files, digests, where = detector
    with limited_memory(compute_loading_limit([*model[0].values(), *files.values()])):
        for name, digest in digests.items():
            bundle.check_file(files[name], digest, name, where)
        opened = sentences.open_detector(options.detector, files, where)
        tagger = Tagger.load(model[0], model[1], options.execution, model[2])
        recognizer = Recognizer(
            opened, tagger, trim=options.trim, consistent_labels=options.consistent_labels, markup=options.markup
        )
        recognizer(pa.array(_TEST_TEXTS))
    loaded = read_used_memory()
    gc.freeze()  # the model is never freed, so the garbage collector need not scan it

    def recognize(window: pa.RecordBatch) -> pa.RecordBatch:
        """Return one row with mentions per document of a window; meanwhile, limit the memory of this process.

        The first row has the wall-clock and CPU seconds that this process spent on the whole window; other rows have 0.
        """
        seconds_before, cpu_before = asdict(recognizer.seconds), time.process_time()
        characters = sum(window.column("chars").to_pylist())
        with limited_memory(loaded + compute_tagging_limit(characters, options.memory_mb, share=options.memory_share)):
            recognition = recognizer(window.column("text"), annotations=options.annotations)
        spent = {part: seconds - seconds_before[part] for part, seconds in asdict(recognizer.seconds).items()}
        spent["cpu"] = time.process_time() - cpu_before
        return recognized_rows.build_rows(window, recognition, spent, annotations=options.annotations)

    return recognize
