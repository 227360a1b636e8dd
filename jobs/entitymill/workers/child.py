"""Recognize documents in a worker's child process, the only process of an executor that loads OpenVINO."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from entitymill.recognition import model_limits, sentences
from entitymill.recognition.model_loading import memory_limit
from entitymill.recognition.recogniser import Recogniser
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.inference import Tagger
from entitymill.workers import recognised_rows
from entitymill.workers.worker import RecognitionOptions

_TEST_TEXTS = ["They met in Paris."]


def open_recognition(
    model: tuple[dict[str, Path], bundle.Manifest, str],
    detector: tuple[dict[str, Path], dict[str, str], str],
    options: RecognitionOptions,
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Load detector and model, and try them on a test sentence.

    Args:
        model: the bundle's files (name -> local path), its manifest, and its address.
        detector: the sentence detector's files (name -> local path), their SHA-256, and its address.
        options: of recognition.

    Returns:
        A function that takes a window of documents, and returns schemas.RECOGNISED, passthrough if there is any, and
        annotations if the options ask for them.

    Raises:
        ModelError: the files on this machine are not those that the driver checked.
    """
    files, digests, where = detector
    with memory_limit(model_limits.loading_memory_limit([*model[0].values(), *files.values()])):
        for name, digest in digests.items():
            bundle.check_file(files[name], digest, name, where)
        opened = sentences.open_detector(options.detector, files, where)
        tagger = Tagger.load(model[0], model[1], options.execution, model[2])
        recogniser = Recogniser(opened, tagger, trim=options.trim, consistent_labels=options.consistent_labels)
        recogniser(pa.array(_TEST_TEXTS))
    gc.freeze()  # nothing loaded so far will ever be freed, so the garbage collector need not scan it

    def recognise(window: pa.RecordBatch) -> pa.RecordBatch:
        encoding, inference = recogniser.seconds.encoding, recogniser.seconds.inference
        recognition = recogniser(window.column("text"), annotations=options.annotations)
        spent = (recogniser.seconds.encoding - encoding, recogniser.seconds.inference - inference)
        return recognised_rows.build_rows(window, recognition, spent, annotations=options.annotations)

    return recognise
