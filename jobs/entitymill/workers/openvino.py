"""Recognition on OpenVINO, in the executors' Python workers, through one `mapInArrow`: whole documents in, mentions out.

A worker's child keeps one compiled model for as long as the worker lives (spark.python.worker.reuse). What crosses the
boundary is the text, once, and what was found in it. This is the driver's side; `worker` and `child` are the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from entitymill import errors, schemas
from entitymill.errors import ModelError, SettingsError
from entitymill.recognition import sentences, sentences_dl_saved
from entitymill.recognition.tagger import bundle
from entitymill.settings.sections import PRETRAINED, SegmentationSettings
from entitymill.spark import requirements, session, storage
from entitymill.spark.private_directories import create_scratch_directory
from entitymill.workers.worker import Run, ShippedDetector, ShippedModel, Worker

FACTORY = "entitymill.workers.child:open_recognition"
"""Of what a worker's child does."""


def ship_model(spark: SparkSession, path: str) -> ShippedModel:
    """Read and check a bundle on the driver, and have Spark fetch it once per executor.

    Args:
        path: the bundle's directory, on any file system Spark reads.

    Raises:
        ModelError: it is missing, incomplete, differs from its manifest, or has a label that can name no partition.
    """
    scratch = create_scratch_directory("entitymill-model-")
    manifest = read_manifest(spark, path)
    names, place = manifest.shipped(), storage.prefer_local_file(path).rstrip("/")
    for name, shipped in names.items():
        try:
            storage.fetch(spark, f"{place}/{name}", scratch / shipped)
        except OSError as error:
            raise ModelError(f"model.path: {path} has no {name}, which its manifest lists ({error}).") from error
    bundle.check_files({name: scratch / shipped for name, shipped in names.items()}, manifest, path)
    bundle.read_labels(scratch / names[bundle.LABELS])
    for shipped in names.values():
        session.send_file(spark, scratch / shipped)
    return ShippedModel(names, path, manifest)


def check_labels(spark: SparkSession, path: str, wanted: Sequence[str]) -> None:
    """Find out whether a bundle's model knows some labels.

    Raises:
        SettingsError: it does not know one.
        ModelError: its labels cannot be read.
    """
    if not wanted:
        return
    copy = create_scratch_directory("entitymill-labels-") / bundle.LABELS
    try:
        storage.fetch(spark, f"{storage.prefer_local_file(path).rstrip('/')}/{bundle.LABELS}", copy)
    except OSError as error:
        raise ModelError(f"model.path: {path} has no {bundle.LABELS} ({error}).") from error
    known = sorted({tag.partition("-")[2] for tag in bundle.read_labels(copy)} - {""})
    unknown = [label for label in wanted if label not in known]
    if unknown:
        raise SettingsError(f"entities: the model {path} knows no label {unknown[0]}; it knows {', '.join(known)}.")


def read_manifest(spark: SparkSession, path: str) -> bundle.Manifest:
    """What a bundle says of itself.

    Raises:
        ModelError: there is none.
    """
    copy, place = (
        create_scratch_directory("entitymill-manifest-") / bundle.MANIFEST,
        storage.prefer_local_file(path).rstrip("/"),
    )
    try:
        there = storage.exists(spark, place)
    except OSError as error:
        raise ModelError(f"model.path: {path} cannot be reached: {error}.") from error
    if not there:
        raise ModelError(f"model.path: {bundle.nothing_there(path)}")
    try:
        storage.fetch(spark, f"{place}/{bundle.MANIFEST}", copy)
    except OSError as error:
        held = storage.list_names(spark, f"{place}/*")
        if bundle.MANIFEST in held:
            raise ModelError(f"model.path: {bundle.MANIFEST} of {path} cannot be read: {error}.") from error
        raise ModelError(f"model.path: {bundle.other_model(path, held)}") from error
    return bundle.read_manifest(copy.read_text(encoding="utf8", errors="replace"), path)


def detector_identity(spark: SparkSession, settings: SegmentationSettings) -> str:
    """What decides the sentences: the detector's name, and a digest of its model's files or its package's version.

    Raises:
        ModelError: the model is missing, or is none.
    """
    if settings.detector != "dl":
        return _without_files(settings.detector)
    try:
        return f"dl {storage.hash_files(spark, _detector_files(spark, settings).values())}"
    except OSError as error:
        raise _no_detector(settings, error) from error


def _without_files(detector: str) -> str:
    return detector if detector == "rules" else f"{detector} {metadata.version(detector)}"


def _detector_files(spark: SparkSession, settings: SegmentationSettings) -> dict[str, str]:
    """The files that a saved detector is read from, and their addresses: what lies beside them decides nothing.

    Raises:
        ModelError: nothing is there, or it is none.
    """
    if PRETRAINED.fullmatch(settings.model):
        raise ModelError(
            f"segmentation.model: {settings.model} is on Spark NLP's models hub, which recognition.engine sparknlp alone "
            "reads: save it once with Spark NLP (SentenceDetectorDLModel.pretrained(…).write().save(…)) and name that place."
        )
    try:
        place = storage.prefer_local_file(settings.model).rstrip("/")
        if not storage.exists(spark, place):
            way = requirements.explain_missing_model(settings.model)
            way = way or "name a saved SentenceDetectorDLModel, or set segmentation.detector=sentencex"
            raise ModelError(f"segmentation.model: nothing is at {settings.model}; {way}.")
        parts = [
            path for path, *_ in storage.list_files(spark, f"{place}/{sentences_dl_saved.METADATA}") if "/part-" in path
        ]
    except OSError as error:
        raise _no_detector(settings, error) from error
    if len(parts) != 1:
        raise _no_detector(settings, f"it has {len(parts)} parts of metadata")
    return {sentences_dl_saved.METADATA: parts[0], sentences_dl_saved.NETWORK: f"{place}/{sentences_dl_saved.NETWORK}"}


def _no_detector(settings: SegmentationSettings, why: object) -> ModelError:
    return ModelError(f"segmentation.model: {settings.model} cannot be read as a saved SentenceDetectorDLModel ({why}).")


def ship_detector(spark: SparkSession, settings: SegmentationSettings) -> ShippedDetector:
    """Read a sentence detector on the driver, and have Spark fetch its files once per executor.

    Raises:
        ModelError: its model is missing, damaged, or of another architecture.
    """
    if settings.detector != "dl":
        return ShippedDetector({}, settings.detector, {}, _without_files(settings.detector))
    scratch = create_scratch_directory("entitymill-detector-")
    names, digests = {}, {}
    try:
        for name, address in _detector_files(spark, settings).items():
            storage.fetch(spark, address, scratch / name)
            digests[name] = bundle.sha256(scratch / name)
            names[name] = f"{digests[name][:16]}-{name}"
            (scratch / name).rename(scratch / names[name])
    except OSError as error:
        raise _no_detector(settings, error) from error
    local = {name: scratch / shipped for name, shipped in names.items()}
    sentences.open_detector("dl", local, settings.model)
    for shipped in names.values():
        session.send_file(spark, scratch / shipped)
    return ShippedDetector(names, settings.model, digests, f"dl {storage.combine_digests(digests.values())}")


def recognise(documents: DataFrame, model: ShippedModel, detector: ShippedDetector, run: Run, seconds: float) -> DataFrame:
    """Recognise documents.

    Args:
        documents: doc_id, text, text_hash, chars, perhaps passthrough.
        model: where the workers find it.
        detector: the same.
        run: how they run them.
        seconds: that a window of theirs may take.

    Returns:
        schemas.RECOGNISED, passthrough where it was there, and schemas.ANNOTATIONS where the run wants them.
    """
    carried = [field for field in documents.schema.fields if field.name == "passthrough"]
    columns = ["doc_id", "text_hash", "chars", "text", *(field.name for field in carried)]
    annotations = schemas.ANNOTATIONS if run.annotations else []
    returned = T.StructType([*schemas.RECOGNISED, *carried, *annotations])
    return documents.select(*columns).mapInArrow(Worker(model, detector, run, seconds, FACTORY, errors.SIGNATURE), returned)
