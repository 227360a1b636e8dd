"""What a Spark Python worker does for engine openvino: it cuts its stream into windows and hands them to its child.

Where the child dies of a window, or takes too long over it, the window's documents are tried one by one, each by a child
that is known to work; those that it does not survive alone are returned with a `failure`. No OpenVINO is loaded here.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import SparkFiles

from entitymill.errors import EntityMillError, WorkerError, sign_error
from entitymill.recognition.tagger import Execution, bundle
from entitymill.workers import isolation, recognised_rows

if TYPE_CHECKING:
    from entitymill.recognition.sentences import Kind

log = logging.getLogger(__name__)
WINDOW_CHARS = 128 * 1024
"""Code points a worker collects before they are recognised: some 1,024 sentences, enough for full rows of the tagger."""
WINDOW_BYTES = 64 * 2**20
LONGEST_WAIT = 14 * 86_400.0
"""Seconds that any window may take: the operating system counts milliseconds in 32 bits, which end after 24 days."""
MOST_FAILED = 20
"""More documents of one task do not fail by their own fault."""


@dataclass(frozen=True)
class Shipped:
    """A model's files on their way to the workers; small, pickled with the task.

    names: file -> name under which Spark distributes it.
    """

    names: dict[str, str]
    where: str

    def files(self) -> dict[str, Path]:
        """Where the files lie on this executor; Spark has fetched them once for all its workers."""
        return {name: Path(SparkFiles.get(shipped)) for name, shipped in self.names.items()}


@dataclass(frozen=True)
class ShippedModel(Shipped):
    """A model bundle."""

    manifest: bundle.Manifest


@dataclass(frozen=True)
class ShippedDetector(Shipped):
    """A sentence detector, which may have no files.

    digests: file -> SHA-256.
    identity: what decides the sentences, as the fingerprint has it.
    """

    digests: dict[str, str]
    identity: str = ""


@dataclass(frozen=True)
class Run:
    """How documents are recognised.

    annotations: whether to return every tag as Spark NLP's annotations too.
    consistent_labels: whether mentions that are spelled alike within a document get the same label.
    """

    execution: Execution
    detector: Kind
    trim: bool
    annotations: bool = False
    consistent_labels: bool = False


@dataclass(frozen=True)
class Worker:
    """What one task does with its stream of Arrow batches.

    seconds: that a window of WINDOW_CHARS, or a document of it, may take; a longer one more.
    factory: of what the child does, as `isolation.Work` names it: `child.open_recognition`, or in tests a stand-in of the
        same arguments that fails on some texts.
    signature: of the driver, `errors.SIGNATURE` there: it marks errors of this worker.
    """

    model: ShippedModel
    detector: ShippedDetector
    run: Run
    seconds: float
    factory: str
    signature: str = ""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Recognise the documents of a task.

        Raises:
            ModelError: the model that reached this machine is not the one the driver checked.
            WorkerError: it is not a document's fault that there are no results.
        """
        try:
            yield from self._recognise_all(batches)
        except EntityMillError as error:
            raise sign_error(error, self.signature) from error

    def _recognise_all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model = (self.model.files(), self.model.manifest, self.model.where)
        detector = (self.detector.files(), self.detector.digests, self.detector.where)
        work = isolation.Work(self.factory, (model, detector, self.run))
        failed: list[str] = []
        for window in windows(batches):
            for result in self._recognised(work, window):
                failed += recognised_rows.failed_ids(result)
                if len(failed) > MOST_FAILED:
                    log.warning("documents that crash or hang the tagger: %s", ", ".join(failed))
                    raise WorkerError(
                        f"{len(failed)} documents of one task crash or hang the tagger on {platform.node()}: so many are "
                        "not to blame, or limits.batch_seconds is too short for them; the worker's log names them."
                    )
                yield result

    def _recognised(self, work: isolation.Work, window: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        try:
            yield isolation.child(work)(window, self._limit(window))
        except isolation.LostError as lost:
            log.warning("the tagger was lost (%s): %d documents are tried one by one", lost.detail, window.num_rows)
            yield from (self._alone(work, window.slice(row, 1)) for row in range(window.num_rows))

    def _alone(self, work: isolation.Work, document: pa.RecordBatch) -> pa.RecordBatch:
        try:
            return isolation.child(work)(document, self._limit(document))
        except isolation.LostError as lost:
            return recognised_rows.failed(document, lost.code, lost.detail, annotations=self.run.annotations)

    def _limit(self, window: pa.RecordBatch) -> float:
        return min(LONGEST_WAIT, self.seconds * max(1.0, sum(window.column("chars").to_pylist()) / WINDOW_CHARS))


def windows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join and cut batches so that a window has WINDOW_CHARS code points: less at the end, more where one document has."""
    held: list[pa.RecordBatch] = []
    chars = 0
    for batch in batches:
        first = 0
        for row, size in enumerate(batch.column("chars").to_pylist()):
            chars += size
            if chars >= WINDOW_CHARS:
                yield _joined([*held, batch.slice(first, row + 1 - first)])
                held, chars, first = [], 0, row + 1
        if first < batch.num_rows:
            held.append(batch.slice(first))
        if sum(part.nbytes for part in held) >= WINDOW_BYTES:  # of short texts with long carried columns
            yield _joined(held)
            held, chars = [], 0
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    # Not pa.concat_batches: pyarrow has it from 19 on, Databricks 16.4 has pyarrow 15.
    [whole] = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return whole
