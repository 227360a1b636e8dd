"""What a worker's child does: segmented documents in, what was recognised in them out. This is where OpenVINO is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from entitymill.engines import documents
from entitymill.engines.worker import Run, carried
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.inference import Tagger

_HARMLESS = ["They", "met", "in", "Paris", "."]


def open_tagging(
    files: dict[str, Path], manifest: bundle.Manifest, where: str, run: Run
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Compile a model, and try it.

    Args:
        files: file of the bundle -> where it lies on this machine.
        manifest: what the files must match.
        where: the bundle's address, for messages.
        run: how the model is run.

    Returns:
        What takes a window of segmented blocks to schemas.RECOGNISED, what is carried, and annotations if wanted.

    Raises:
        ModelError: the model that reached this machine is not the one the driver checked.
    """
    tagger = Tagger.load(files, manifest, run.precision, run.threads, where, run.encoding)
    tagger.tag(_HARMLESS, np.array([len(_HARMLESS)], np.int64))

    def tag(window: pa.RecordBatch) -> pa.RecordBatch:
        encoding, inference = tagger.seconds.encoding, tagger.seconds.inference
        texts = window.column("text").to_pylist()
        segments = documents.read_segments(window, texts)
        tags = tagger.tag(segments.tokens, segments.sentence_tokens, segments.unit_begin, scores=run.annotations)
        found = documents.found(texts, segments, tags, tagger.labels)
        spent = (tagger.seconds.encoding - encoding, tagger.seconds.inference - inference)
        return documents.output(window, found, spent, carried(window), with_annotations=run.annotations)

    return tag
