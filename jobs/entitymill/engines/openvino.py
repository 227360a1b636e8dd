"""3  tokens -> tags -> mentions on OpenVINO, in the executors' Python workers, through `mapInArrow`.

A worker keeps one compiled model for as long as it lives (spark.python.worker.reuse). What crosses the boundary is the
text and the offsets of its sentences and tokens, once; never Spark NLP's annotations.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from entitymill import schemas, shipping, storage
from entitymill.engines import documents
from entitymill.errors import ModelError
from entitymill.tagger import bundle, network
from entitymill.tagger.inference import Tagger
from entitymill.tagger.network import Precision
from entitymill.tagger.rows import Encoding

WINDOW_SENTENCES = 1024
"""Sentences a worker collects before it tags them; fewer, and like lengths no longer meet."""


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


def ship_model(spark: SparkSession, path: str) -> ShippedModel:
    """Read and check a bundle on the driver, and have Spark fetch it once per executor.

    Args:
        spark: the session.
        path: the bundle's directory, on any file system Spark reads.

    Raises:
        ModelError: it is missing, incomplete, or differs from its manifest.
    """
    scratch = shipping.scratch("entitymill-model-")
    manifest = _fetch_manifest(spark, path, scratch)
    names = {}
    for name, digest in manifest.files.items():
        names[name] = f"{digest[:16]}-{name}"
        try:
            storage.fetch(spark, f"{path.rstrip('/')}/{name}", scratch / names[name])
        except OSError as error:
            raise ModelError(f"model.path: {path} has no {name}, which its manifest lists ({error}).") from error
    bundle.check_files({name: scratch / shipped for name, shipped in names.items()}, manifest, path)
    for shipped in names.values():
        shipping.send(spark, scratch / shipped)
    return ShippedModel(manifest, names, path)


def check_precision(manifest: bundle.Manifest, precision: Precision) -> None:
    """Refuse on the driver what every worker would refuse.

    Raises:
        ModelError: the weights cannot be run in this precision.
    """
    network.check_precision(precision, manifest.precision, calibrated=manifest.calibrated)


def read_manifest(spark: SparkSession, path: str) -> bundle.Manifest:
    """What a bundle says of itself.

    Raises:
        ModelError: there is none.
    """
    return _fetch_manifest(spark, path, shipping.scratch("entitymill-manifest-"))


def _fetch_manifest(spark: SparkSession, path: str, scratch: Path) -> bundle.Manifest:
    copy = scratch / bundle.MANIFEST
    try:
        there = storage.exists(spark, path)
    except OSError as error:
        raise ModelError(f"model.path: {path} cannot be reached: {error}.") from error
    if not there:
        raise ModelError(f"model.path: nothing is at {path}; name a model bundle.")
    try:
        storage.fetch(spark, f"{path.rstrip('/')}/{bundle.MANIFEST}", copy)
    except OSError as error:
        raise ModelError(f"model.path: {path} has no {bundle.MANIFEST}: it is not a model bundle ({error}).") from error
    return bundle.read_manifest(copy.read_text(encoding="utf8", errors="replace"), path)


def recognise(segmented: DataFrame, model: ShippedModel, run: Run) -> DataFrame:
    """Tag segmented documents.

    Args:
        segmented: doc_id, text_hash, chars, perhaps passthrough, and segmentation's block, blocks, text and OFFSETS.
        model: where the workers find the model.
        run: how they run it.

    Returns:
        schemas.RECOGNISED, passthrough where it was there, and schemas.ANNOTATIONS where the run wants them.
    """
    carried = [field for field in segmented.schema.fields if field.name == "passthrough"]
    names = [field.name for field in carried]
    columns = ["doc_id", "text_hash", "chars", "block", "blocks", "text", *schemas.OFFSETS, *names]
    annotations = schemas.ANNOTATIONS if run.annotations else []
    returned = T.StructType([*schemas.RECOGNISED, *carried, *annotations])
    return segmented.select(*columns).mapInArrow(_Work(model, run, tuple(names)), returned)


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
class _Work:
    """What one task does with its stream of Arrow batches."""

    model: ShippedModel
    run: Run
    carried: tuple[str, ...]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for window in windows(batches):
            tagger = worker_tagger(self.model, self.run)
            encoding, inference = tagger.seconds.encoding, tagger.seconds.inference
            texts = window.column("text").to_pylist()
            segments = documents.read_segments(window, texts)
            tags = tagger.tag(segments.tokens, segments.sentence_tokens, segments.unit_begin, scores=self.run.annotations)
            found = documents.found(texts, segments, tags, tagger.labels)
            spent = (tagger.seconds.encoding - encoding, tagger.seconds.inference - inference)
            yield documents.output(window, found, spent, self.carried, with_annotations=self.run.annotations)


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
            yield pa.concat_batches(held)
            held, sentences = [], 0
    if held:
        yield pa.concat_batches(held)


_taggers: dict[tuple[str, Run], Tagger] = {}


def worker_tagger(model: ShippedModel, run: Run) -> Tagger:
    """This process's tagger: compiled by the first task that needs it, kept for the next ones.

    Raises:
        ModelError: the model that reached this machine is not the one the driver checked.
    """
    key = (model.manifest.digest(), run)
    if key not in _taggers:
        _taggers.clear()
        _taggers[key] = Tagger.load(model.files(), model.manifest, run.precision, run.threads, model.where, run.encoding)
        # PySpark collects garbage after every task; the model's objects need not be walked each time.
        gc.freeze()
    return _taggers[key]
