"""Load a model and recognize texts in a child process of `tag` or `benchmark`; the child need not import the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import process_time

import pyarrow as pa
import pyarrow.compute as pc

from entitymill import python_api
from entitymill.recognition import sentences
from entitymill.recognition.model_loading_limits import (
    compute_loading_limit,
    compute_tagging_limit,
    limit_memory,
    limited_memory,
    list_model_files,
    read_used_memory,
)
from entitymill.recognition.tagger import Markup, Precision, bundle


def open_tagger(
    model: Path,
    precision: Precision,
    detector: sentences.DetectorKind | None,
    detector_model: Path | None,
    markup: Markup,
    characters: int,
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Load a model, and return a function that maps a batch with the `text` column to a batch with the `mentions` column.

    `mentions` has, for each text, the list of its mentions (see `TextTagger.tag_window`). `open_tagger` limits the memory
    of its process: first to what loading the model needs, and then to what tagging the texts needs.

    Args:
        characters: number of characters in the largest batch, from which the memory limit for tagging is computed.
        model, precision, detector, detector_model, markup: as in `python_api.load`.
    """
    files = [*_list_bundle_files(model), *(list_model_files(detector_model) if detector_model else ())]
    with limited_memory(compute_loading_limit(files)):
        tagger = python_api.load(model, precision=precision, detector=detector, detector_model=detector_model, markup=markup)
    limit_memory(read_used_memory() + compute_tagging_limit(characters, processes=1))
    return lambda batch: pa.RecordBatch.from_arrays([tagger.tag_window(batch.column("text"))], ["mentions"])


def _list_bundle_files(model: Path) -> list[Path]:
    """Return the paths of all files that a model bundle may have, whether or not they exist.

    The memory limit for loading a model is computed from these files, so other files in the directory cannot raise it.
    """
    return [model / name for name in bundle.FILES]


def open_measured_tagger(
    model: Path, precision: Precision, characters: int, processes: int
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Load a model, and return a function that measures how long recognition of the `text` column of a batch takes.

    The function returns a batch with one row: `sentences` (int64, number of sentences) and `cpu_seconds` (float64, CPU time
    that recognizing this batch took; the model runs on one thread). The memory of this process is limited as in
    `open_tagger`.

    Args:
        characters: the total number of characters in the texts.
        processes: number of processes, including this one, that have a model loaded at the same time and share the memory.
    """
    with limited_memory(compute_loading_limit(_list_bundle_files(model))):
        recognizer = python_api.load(model, precision=precision, threads=1).recognizer
    limit_memory(read_used_memory() + compute_tagging_limit(characters, processes=processes))

    def measure(batch: pa.RecordBatch) -> pa.RecordBatch:
        """Recognize the texts, and return the number of their sentences and the CPU seconds."""
        began = process_time()
        found = recognizer(batch.column("text"))
        seconds = process_time() - began
        return pa.RecordBatch.from_pydict({"sentences": [pc.sum(found.sentences).as_py()], "cpu_seconds": [seconds]})

    return measure
