"""Recognize the documents of a Spark task with engine openvino; this module runs in Spark's Python workers.

A worker sends documents to a child process in windows (batches). If the child dies or exceeds the time limit of a window,
the worker starts a new child, and sends it the window's documents one by one. If the child also fails on a single document,
this document gets a row with a `failure`. Every new child first tags a test text, so that no document is blamed if the child
fails on every text. The worker itself does not load OpenVINO.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import SparkFiles

from entitymill.errors import EntityMillError, WorkerError, sign_error
from entitymill.recognition.tagger import Execution, Markup, bundle
from entitymill.workers import child_process, recognized_rows
from entitymill.workers.child_process import WINDOW_CHARS

if TYPE_CHECKING:
    from entitymill.recognition.sentences import DetectorKind

log = logging.getLogger(__name__)
WINDOW_BYTES = 64 * 2**20
"""A window (the batch of documents that a child gets at once) ends when it has this many bytes, even if its texts are short.
Without this limit, long passthrough columns could make the window too large."""
MAX_WAIT_SECONDS = 14 * 86_400.0
"""Greatest time limit of a window: 14 days, in seconds. A 32-bit counter of milliseconds would overflow after 24 days."""
MAX_FAILED_DOCUMENTS = 20
"""Maximum number of failed documents in one Spark task. If more fail, the task ends with a WorkerError, because the cause is
probably the machine, not the documents."""


@dataclass(frozen=True)
class Shipped:
    """The files of a model that Spark distributes to the executors; Spark pickles this object with each task.

    names: dict from each file's name in the model to the name under which Spark distributes the file.
    where: path or URI of the model, for messages.
    """

    names: dict[str, str]
    where: str

    def files(self) -> dict[str, Path]:
        """Return a dict from each file's name in the model to its local path on this executor."""
        return {name: Path(SparkFiles.get(shipped)) for name, shipped in self.names.items()}


@dataclass(frozen=True)
class ShippedModel(Shipped):
    """A model bundle whose files Spark distributes to the executors."""

    manifest: bundle.Manifest


@dataclass(frozen=True)
class ShippedDetector(Shipped):
    """A sentence detector whose files, if it has any, Spark distributes to the executors.

    digests: dict from each file's name to its SHA-256.
    identity: string that identifies the detector in a run's fingerprint (see `engine_openvino.identify_detector`).
    """

    digests: dict[str, str]
    identity: str = ""


@dataclass(frozen=True)
class RecognitionOptions:
    """The options of recognition.

    execution: precision, encoding, threads and decoding of the model.
    detector: kind of sentence detector: dl, rules or sentencex.
    trim: whether to cut off surrounding punctuation and possessive endings from mentions (see
        `tags_to_mentions.measure_trim`), and to drop mentions without a letter or digit.
    annotations: whether to also return annotations: mentions and every tag in Spark NLP's format.
    consistent_labels: whether all mentions with exactly the same characters in a document get the same label.
    markup: `html` to ignore HTML tags in the texts, `none` to treat them as text.
    memory_mb: memory in MB that the child process may use in addition to its loaded model. If it is None, the limit grows
        with the size of a window, up to a quarter of one core's share of the container's memory.
    memory_share: one core's share of the memory of the executor's container, in bytes. On YARN, the driver computes it.
        Elsewhere it is None, and the child computes the share from the memory limit of its own container.
    """

    execution: Execution
    detector: DetectorKind
    trim: bool
    annotations: bool = False
    consistent_labels: bool = False
    markup: Markup = "none"
    memory_mb: int | None = None
    memory_share: int | None = None


@dataclass(frozen=True)
class Worker:
    """A callable, as `mapInArrow` needs it, that recognizes the documents of a Spark task in a stream of Arrow batches.

    model, detector: model and sentence detector, whose files are on every executor.
    seconds: time limit, in seconds, for a window (a batch of documents) of up to WINDOW_CHARS code points. A longer window
        has a proportionally longer time limit.
    factory: the function that the child calls, as `module:function` (see `child_process.Work`). It is
        `child_recognition.open_recognition` or, in tests, a function with the same arguments that fails on some texts.
    signature: the driver's `errors.SIGNATURE`, which is added to this worker's errors so that the driver recognizes them.
    """

    model: ShippedModel
    detector: ShippedDetector
    options: RecognitionOptions
    seconds: float
    factory: str
    signature: str = ""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield batches with one row for each document of a task, in the order of the documents.

        A document that crashes the child process, or takes too long, gets a row with a `failure` and without mentions.

        Raises:
            ModelError: a model file on this machine differs from the file that the driver checked, or cannot be loaded.
            WorkerError: the child cannot be started, recognition raises an unexpected error in the child, or more than
                MAX_FAILED_DOCUMENTS documents get a `failure`.
        """
        try:
            yield from self._recognize_all(batches)
        except EntityMillError as error:
            raise sign_error(error, self.signature) from error

    def _recognize_all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield batches with the rows of all documents of a task; add this process's CPU time to the child's in cpu_seconds.

        The child puts its CPU seconds for a batch into the batch's first row, and 0 into the others. This method adds to the
        first row the CPU seconds of this process since the previous batch. So the column may be summed: the sum is the CPU
        time of both processes, without that of children that died.

        If more than MAX_FAILED_DOCUMENTS documents get a `failure`, log their ids on the worker, and raise a WorkerError.
        """
        model = (self.model.files(), self.model.manifest, self.model.where)
        detector = (self.detector.files(), self.detector.digests, self.detector.where)
        work = child_process.Work(self.factory, (model, detector, self.options))
        failed: list[str] = []
        cpu = time.process_time()
        for window in cut_windows(batches):
            for result in self._recognize_window(work, window):
                failed += recognized_rows.read_failed_ids(result)
                if len(failed) > MAX_FAILED_DOCUMENTS:
                    log.warning("documents on which the tagger crashes or hangs: %s", ", ".join(failed))
                    raise WorkerError(
                        f"On {platform.node()}, the tagger crashes or hangs on {len(failed)} documents of one task: this "
                        "many failures suggest a problem with the machine, or that limits.batch_seconds or limits.tagger_mb "
                        "is too small. The worker's log lists the documents."
                    )
                cpu_before, cpu = cpu, time.process_time()
                yield recognized_rows.add_cpu_seconds(result, cpu - cpu_before)

    def _recognize_window(self, work: child_process.Work, window: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Send a window (a batch of documents) to the child process, and yield batches with one row for each document.

        Usually, one batch with all rows is yielded. If the child dies or exceeds the time limit, log a warning, send the
        documents one by one to a new child, and yield one batch for each document.
        """
        try:
            yield child_process.get_child(work)(window, self._compute_time_limit(window))
        except child_process.ChildLostError as lost:
            log.warning("the tagger failed (%s): retrying %d documents one by one", lost.detail, window.num_rows)
            yield from (self._recognize_document(work, window.slice(row, 1)) for row in range(window.num_rows))

    def _recognize_document(self, work: child_process.Work, document: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with one document's row, which has a `failure` if the child died or exceeded the time limit."""
        try:
            return child_process.get_child(work)(document, self._compute_time_limit(document))
        except child_process.ChildLostError as lost:
            return recognized_rows.build_failure_row(document, lost.code, lost.detail, annotations=self.options.annotations)

    def _compute_time_limit(self, window: pa.RecordBatch) -> float:
        """Return the time limit of a window in seconds, at most MAX_WAIT_SECONDS.

        It is `self.seconds`, or proportionally more for a window of more than WINDOW_CHARS code points.
        """
        return min(MAX_WAIT_SECONDS, self.seconds * max(1.0, sum(window.column("chars").to_pylist()) / WINDOW_CHARS))


def cut_windows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `batches`, in the same order, as windows: the batches that a child process gets at once.

    A window ends after a document if the window's texts now have WINDOW_CHARS code points or more. It also ends after an
    input batch if the window's columns now have WINDOW_BYTES or more. No window is empty.
    """
    parts: list[pa.RecordBatch] = []
    chars = 0
    for batch in batches:
        first = 0
        for row, size in enumerate(batch.column("chars").to_pylist()):
            chars += size
            if chars >= WINDOW_CHARS:
                yield _concatenate([*parts, batch.slice(first, row + 1 - first)])
                parts, chars, first = [], 0, row + 1
        if first < batch.num_rows:
            parts.append(batch.slice(first))
        if sum(part.nbytes for part in parts) >= WINDOW_BYTES:  # short texts with long passthrough columns
            yield _concatenate(parts)
            parts, chars = [], 0
    if parts:
        yield _concatenate(parts)


def _concatenate(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return the rows of several batches, at least one of which has a row, as one batch."""
    # pa.concat_batches needs pyarrow 19, and Databricks 16.4 has pyarrow 15.
    [whole] = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return whole
