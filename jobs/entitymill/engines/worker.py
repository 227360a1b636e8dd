"""What a Spark Python worker does for engine openvino: it cuts its stream into windows and hands them to its child.

Where the child dies of a window, or takes too long over it, the window's documents are tried one by one, each by a child
that is known to work; those that it does not survive alone are returned with a `failure`. No OpenVINO is loaded here.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark import SparkFiles

from entitymill.engines import documents, isolation
from entitymill.errors import WorkerError
from entitymill.recognition.tagger import bundle

if TYPE_CHECKING:
    from entitymill.recognition.tagger.network import Precision
    from entitymill.recognition.tagger.rows import Encoding

log = logging.getLogger(__name__)
WINDOW_SENTENCES = 1024
"""Sentences a worker collects before they are tagged; fewer, and like lengths no longer meet."""
WINDOW_TOKENS = 32 * WINDOW_SENTENCES
"""What a window is expected to have of them; one of more may take longer."""
MOST_FAILED = 20
"""More documents of one task do not fail by their own fault."""


@dataclass(frozen=True)
class ShippedModel:
    """A model on its way to the workers; small, pickled with the task.

    names: file of the bundle -> name under which Spark distributes it.
    """

    manifest: bundle.Manifest
    names: dict[str, str]
    where: str

    def files(self) -> dict[str, Path]:
        """Where the files lie on this executor; Spark has fetched them once for all its workers."""
        return {name: Path(SparkFiles.get(shipped)) for name, shipped in self.names.items()}


@dataclass(frozen=True)
class Run:
    """How a model is run.

    threads: cores of a task.
    annotations: whether to return every tag as Spark NLP's annotations too.
    """

    precision: Precision
    encoding: Encoding
    threads: int
    annotations: bool = False


@dataclass(frozen=True)
class Worker:
    """What one task does with its stream of Arrow batches.

    seconds: that a window of WINDOW_SENTENCES, or a document of it, may take.
    factory: of what the child does, as `isolation.Work` names it: `tagging.open_tagging`, or in tests a stand-in of the
        same arguments that fails on some texts.
    """

    model: ShippedModel
    run: Run
    seconds: float
    factory: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Tag the documents of a task.

        Raises:
            ModelError: the model that reached this machine is not the one the driver checked.
            WorkerError: it is not a document's fault that there are no results.
        """
        files = self.model.files()
        work = isolation.Work(self.factory, (files, self.model.manifest, self.model.where, self.run))
        failures = 0
        for window in windows(batches):
            results = self._tagged(work, window)
            failures += sum(result.num_rows - result.column("failure").null_count for result in results)
            if failures > MOST_FAILED:
                raise WorkerError(
                    f"{failures} documents of one task crash or hang the tagger on {platform.node()}: so many are not to "
                    "blame, or limits.batch_seconds is too short for them."
                )
            yield from results

    def _tagged(self, work: isolation.Work, window: pa.RecordBatch) -> list[pa.RecordBatch]:
        try:
            return [isolation.child(work)(window, self._limit(window))]
        except isolation.LostError as lost:
            parts = list(split(window))
            log.warning("the tagger was lost (%s): %d documents are tried one by one", lost.detail, len(parts))
        return list(self._one_by_one(work, parts))

    def _one_by_one(self, work: isolation.Work, parts: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        failed = 0
        for document in parts:
            try:
                result = isolation.child(work)(document, self._limit(document))
            except isolation.LostError as lost:
                result = documents.failed(
                    document, lost.code, lost.detail, carried(document), with_annotations=self.run.annotations
                )
                failed += 1
            yield result
            if failed > MOST_FAILED:
                return

    def _limit(self, window: pa.RecordBatch) -> float:
        sentences, tokens = (len(window.column(name).flatten()) for name in ("sentence_begin", "token_begin"))
        return self.seconds * max(1.0, sentences / WINDOW_SENTENCES, tokens / WINDOW_TOKENS)


def carried(window: pa.RecordBatch) -> tuple[str, ...]:
    """Names of the columns that are passed on untouched."""
    return tuple(name for name in window.schema.names if name == "passthrough")


def windows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join batches until a window has WINDOW_SENTENCES sentences and ends with a document's last block."""
    held: list[pa.RecordBatch] = []
    sentences = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch)
        sentences += len(batch.column("sentence_begin").flatten())
        complete = batch.column("block")[-1].as_py() == batch.column("blocks")[-1].as_py() - 1
        if complete and sentences >= WINDOW_SENTENCES:
            yield _joined(held)
            held, sentences = [], 0
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    # Not pa.concat_batches: pyarrow has it from 19 on, Databricks 16.4 has pyarrow 15.
    [whole] = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return whole


def split(window: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The documents of a window, each with all of its blocks."""
    edges = [*np.flatnonzero(window.column("block").to_numpy() == 0).tolist(), window.num_rows]
    for begin, end in pairwise(edges):
        yield window.slice(begin, end - begin)
