"""The code of the child process of `entitymill tag`; a separate module, so that the child does not import all of `tag`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from entitymill import python_api
from entitymill.recognition import resource_limits, sentences
from entitymill.recognition.guarded_loading import limit_memory
from entitymill.recognition.tagger import Markup, Precision


def open_tagger(
    model: Path,
    precision: Precision,
    detector: sentences.Kind | None,
    detector_model: Path | None,
    markup: Markup,
    characters: int,
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Load a model, and return a function that maps a batch with the `text` column to a batch with the `mentions` column.

    The memory of this process is limited to what the model's files and the texts need.

    Args:
        model, precision, detector, detector_model, markup: as for `python_api.load`.
        characters: the total number of characters in the texts, for the memory limit.
    """
    files = [
        file for directory in (model, detector_model) if directory for file in resource_limits.list_model_files(directory)
    ]
    limit_memory(resource_limits.loading_memory_limit(files) + resource_limits.TAGGING_BYTES_PER_CHARACTER * characters)
    tagger = python_api.load(model, precision=precision, detector=detector, detector_model=detector_model, markup=markup)
    return lambda batch: pa.RecordBatch.from_arrays([tagger(batch.column("text"))], ["mentions"])
