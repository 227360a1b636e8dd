"""What a worker's child does: documents in, what was recognised in them out. This is where OpenVINO is loaded."""

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
from entitymill.workers.worker import Run

_HARMLESS = ["They met in Paris."]


def open_recognition(
    model: tuple[dict[str, Path], bundle.Manifest, str], detector: tuple[dict[str, Path], dict[str, str], str], run: Run
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Compile a model, and try it.

    Args:
        model: file of the bundle -> where it lies on this machine; what the files must match; the bundle's address.
        detector: the same of the sentence detector, its files' SHA-256 in the manifest's place.
        run: how they are run.

    Returns:
        What takes a window of documents to schemas.RECOGNISED, what is carried, and annotations if wanted.

    Raises:
        ModelError: what reached this machine is not what the driver checked.
    """
    files, digests, where = detector
    with memory_limit(model_limits.loading_memory_limit([*model[0].values(), *files.values()])):
        for name, digest in digests.items():
            bundle.check_file(files[name], digest, name, where)
        opened = sentences.open_detector(run.detector, files, where)
        tagger = Tagger.load(model[0], model[1], run.execution, model[2])
        recogniser = Recogniser(opened, tagger, trim=run.trim, consistent_labels=run.consistent_labels)
        recogniser(pa.array(_HARMLESS))
    gc.freeze()  # what is loaded stays: no collection need look at it

    def recognise(window: pa.RecordBatch) -> pa.RecordBatch:
        encoding, inference = recogniser.seconds.encoding, recogniser.seconds.inference
        found = recogniser(window.column("text"), annotations=run.annotations)
        spent = (recogniser.seconds.encoding - encoding, recogniser.seconds.inference - inference)
        return recognised_rows.rows(window, found, spent, annotations=run.annotations)

    return recognise
