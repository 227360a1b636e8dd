"""3  tokens -> tags -> mentions on OpenVINO, in the executors' Python workers, through `mapInArrow`.

A worker's child keeps one compiled model for as long as the worker lives (spark.python.worker.reuse). What crosses the
boundary is the text and the offsets of its sentences and tokens, once; never Spark NLP's annotations. This is the driver's
side; `worker` and `tagging` are the others.
"""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from entitymill import schemas, shipping, storage
from entitymill.engines.worker import Run, ShippedModel, Worker
from entitymill.errors import ModelError
from entitymill.recognition.tagger import bundle, network
from entitymill.recognition.tagger.network import Precision

FACTORY = "entitymill.engines.tagging:open_tagging"
"""Of what a worker's child does."""


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
    names, place = {}, storage.driver_first(path).rstrip("/")
    for name, digest in manifest.files.items():
        names[name] = f"{digest[:16]}-{name}"
        try:
            storage.fetch(spark, f"{place}/{name}", scratch / names[name])
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
    copy, place = scratch / bundle.MANIFEST, storage.driver_first(path).rstrip("/")
    try:
        there = storage.exists(spark, place)
    except OSError as error:
        raise ModelError(f"model.path: {path} cannot be reached: {error}.") from error
    if not there:
        raise ModelError(f"model.path: nothing is at {path}; name a model bundle.")
    try:
        storage.fetch(spark, f"{place}/{bundle.MANIFEST}", copy)
    except OSError as error:
        raise ModelError(f"model.path: {path} has no {bundle.MANIFEST}: it is not a model bundle ({error}).") from error
    return bundle.read_manifest(copy.read_text(encoding="utf8", errors="replace"), path)


def recognise(segmented: DataFrame, model: ShippedModel, run: Run, seconds: float) -> DataFrame:
    """Tag segmented documents.

    Args:
        segmented: doc_id, text_hash, chars, perhaps passthrough, and segmentation's block, blocks, text and OFFSETS.
        model: where the workers find the model.
        run: how they run it.
        seconds: that a window of theirs may take.

    Returns:
        schemas.RECOGNISED, passthrough where it was there, and schemas.ANNOTATIONS where the run wants them.
    """
    carried = [field for field in segmented.schema.fields if field.name == "passthrough"]
    names = [field.name for field in carried]
    columns = ["doc_id", "text_hash", "chars", "block", "blocks", "text", *schemas.OFFSETS, *names]
    annotations = schemas.ANNOTATIONS if run.annotations else []
    returned = T.StructType([*schemas.RECOGNISED, *carried, *annotations])
    return segmented.select(*columns).mapInArrow(Worker(model, run, seconds, FACTORY), returned)
