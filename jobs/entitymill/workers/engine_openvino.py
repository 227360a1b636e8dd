"""Recognize documents with OpenVINO: check the models, send them to executors, and run them on the rows of a DataFrame.

Recognition is one call of `mapInArrow`, so texts are sent to Python workers once and results are returned once. The modules
`worker` and `child_recognition` run on executors. A worker's child process compiles the model once, and uses it for as
long as the worker lives (spark.python.worker.reuse).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from entitymill import errors, schemas
from entitymill.errors import ModelError, SettingsError
from entitymill.recognition import sentences, sentences_dl_saved
from entitymill.recognition.sentences import DetectorKind
from entitymill.recognition.tagger import bundle
from entitymill.settings.sections import PRETRAINED
from entitymill.spark import installation, session, storage
from entitymill.spark.files_on_this_machine import create_scratch_directory
from entitymill.workers.worker import RecognitionOptions, ShippedDetector, ShippedModel, Worker

FACTORY = "entitymill.workers.child_recognition:open_recognition"
"""Name of the function that a child process calls to load the models, as `module:function` (see `child_process.Work`)."""

_MEGABYTE = 2**20
_SIZE = re.compile(r"(\d+)(?:([bkmgtp])b?)?", re.IGNORECASE)
_UNITS = {"b": 1, "k": 2**10, "m": _MEGABYTE, "g": 2**30, "t": 2**40, "p": 2**50}
_MIN_OVERHEAD = 384 * _MEGABYTE


def compute_memory_share(spark: SparkSession) -> int | None:
    """Return each core's share, in bytes, of the memory of an executor's container on YARN; None without YARN.

    YARN kills a container that uses more memory than was requested for it. By default, no cgroup limit tells the executor
    how much that is. So the driver computes the share from Spark's properties. Source of the computation:
    `spark.executor.memoryOverhead` in https://spark.apache.org/docs/latest/configuration.html
    """
    if spark.conf.get("spark.master", "") != "yarn":
        return None

    def read_size(key: str, default: str) -> int:
        """Return the value of the Spark property `key`, a size such as "4g", in bytes; 0 if it is not a valid size.

        A number without a unit means MB, as in Spark.
        """
        found = _SIZE.fullmatch((spark.conf.get(key, default) or default).strip())
        return 0 if found is None else int(found[1]) * _UNITS[(found[2] or "m").lower()]

    memory = read_size("spark.executor.memory", "1g")
    factor = float(spark.conf.get("spark.executor.memoryOverheadFactor", "0.1") or "0.1")
    overhead = read_size("spark.executor.memoryOverhead", "0") or max(_MIN_OVERHEAD, int(factor * memory))
    cores = int(spark.conf.get("spark.executor.cores", "1") or "1")
    return (memory + overhead + read_size("spark.executor.pyspark.memory", "0")) // max(1, cores)


def ship_model(spark: SparkSession, path: str) -> ShippedModel:
    """Check a model bundle on the driver, and send its files to the executors, each of which fetches them once.

    Return the bundle's manifest, and the names that its files have on the executors.

    Args:
        path: path or URI of the bundle, on any file system that Spark can read.

    Raises:
        ModelError: the bundle is missing or incomplete, differs from its manifest, or has a label that cannot be the name
            of a partition of the `entities` table.
    """
    scratch = create_scratch_directory("entitymill-model-")
    manifest = read_manifest(spark, path)
    names, directory = manifest.shipped_names(), storage.prefer_local_file(path).rstrip("/")
    for name, shipped in names.items():
        try:
            storage.fetch(spark, f"{directory}/{name}", scratch / shipped)
        except OSError as error:
            raise ModelError(
                f"model.path: {path} has no {name}, which its manifest lists ({error}). Copy the bundle again."
            ) from error
    bundle.check_files({name: scratch / shipped for name, shipped in names.items()}, manifest, path)
    bundle.read_tags(scratch / names[bundle.LABELS])
    for shipped in names.values():
        session.send_file(spark, scratch / shipped)
    return ShippedModel(names, path, manifest)


def check_selected_labels(spark: SparkSession, path: str, labels: Sequence[str]) -> None:
    """Raise a SettingsError if the model of the bundle at `path` lacks one of the labels that the settings name.

    `labels` are the labels in the section `entities` of the settings, to which the error message refers. If there are none,
    no file is read. Raise a ModelError if the model's labels cannot be read.
    """
    if labels:
        refuse_unknown_labels(path, labels, list_entity_labels(spark, path))


def refuse_unknown_labels(path: str, labels: Sequence[str], available: Sequence[str]) -> None:
    """Raise a SettingsError if one of `labels` is not in `available`.

    Args:
        path: path or URI of the model, for the error message.
        labels: labels in the section `entities` of the settings, to which the error message refers.
        available: labels of the model, such as PER.
    """
    unknown = [label for label in labels if label not in available]
    if unknown:
        raise SettingsError(f"entities: the model {path} has no label {unknown[0]}; its labels are {', '.join(available)}.")


def list_entity_labels(spark: SparkSession, path: str) -> list[str]:
    """Return the sorted labels of the model of the bundle at `path`, such as PER.

    Raise a ModelError if they cannot be read.
    """
    copy = create_scratch_directory("entitymill-labels-") / bundle.LABELS
    try:
        storage.fetch(spark, f"{storage.prefer_local_file(path).rstrip('/')}/{bundle.LABELS}", copy)
    except OSError as error:
        raise ModelError(f"model.path: {path} has no {bundle.LABELS} ({error}). Copy the bundle again.") from error
    return sorted({tag.partition("-")[2] for tag in bundle.read_tags(copy)} - {""})


def read_manifest(spark: SparkSession, path: str) -> bundle.Manifest:
    """Return the manifest of the bundle at `path`, a path or URI on any file system that Spark can read.

    Raise a ModelError if there is no bundle, or if its manifest cannot be read or is invalid.
    """
    copy = create_scratch_directory("entitymill-manifest-") / bundle.MANIFEST
    directory = storage.prefer_local_file(path).rstrip("/")
    try:
        exists = storage.exists(spark, directory)
    except OSError as error:
        raise ModelError(f"model.path: {path} cannot be reached: {error}. Check the path and the credentials.") from error
    if not exists:
        raise ModelError(f"model.path: {bundle.describe_missing(path)}")
    try:
        storage.fetch(spark, f"{directory}/{bundle.MANIFEST}", copy)
    except OSError as error:
        names = storage.list_names(spark, f"{directory}/*")
        if bundle.MANIFEST in names:
            raise ModelError(
                f"model.path: {bundle.MANIFEST} of {path} cannot be read: {error}. Copy the bundle again."
            ) from error
        raise ModelError(f"model.path: {bundle.describe_other_format(path, names)}") from error
    with copy.open(encoding="utf8", errors="replace") as file:
        return bundle.read_manifest(file.read(bundle.MAX_DESCRIPTION_BYTES + 1), path)


def identify_detector(spark: SparkSession, kind: DetectorKind, model: str) -> str:
    """Return a string that identifies a sentence detector in the fingerprint (see `engine_choice.Engine`).

    The string begins with the kind. For dl, a digest of the detector's files follows; for sentencex, the package's version;
    for rules, nothing.

    Args:
        kind: dl, rules or sentencex.
        model: path or URI of a saved SentenceDetectorDLModel of Spark NLP; used only for kind dl.

    Raises:
        ModelError: the kind is dl, but `model` is missing, cannot be read, or is a name on Spark NLP's models hub.
    """
    if kind != "dl":
        return _identify_without_files(kind)
    try:
        return f"dl {storage.hash_files(spark, _locate_detector_files(spark, model).values())}"
    except OSError as error:
        raise _build_detector_error(model, error) from error


def _identify_without_files(kind: DetectorKind) -> str:
    """Return the string that identifies a sentence detector of kind rules or sentencex (see `identify_detector`)."""
    return kind if kind == "rules" else f"{kind} {metadata.version(kind)}"


def _locate_detector_files(spark: SparkSession, model: str) -> dict[str, str]:
    """Return a dict from the names of a saved SentenceDetectorDLModel's two files, metadata and network, to their paths.

    `model` is the path or URI of its directory. Raise a ModelError if `model` is a name on Spark NLP's models hub, is
    missing, or does not contain exactly one file metadata/part-*. Whether the network's file exists is not checked.
    """
    if PRETRAINED.fullmatch(model):
        raise ModelError(
            f"segmentation.model: {model} is on Spark NLP's models hub, which only `recognition.engine: sparknlp` "
            "can read. Save it with Spark NLP (SentenceDetectorDLModel.pretrained(…).write().save(…)), and set "
            "segmentation.model to that directory."
        )
    try:
        directory = storage.prefer_local_file(model).rstrip("/")
        if not storage.exists(spark, directory):
            advice = installation.explain_missing_model(model)
            advice = advice or "specify a saved SentenceDetectorDLModel, or set segmentation.detector=sentencex"
            raise ModelError(f"segmentation.model: there is nothing at {model}; {advice}.")
        parts = [
            path for path, *_ in storage.list_files(spark, f"{directory}/{sentences_dl_saved.METADATA}") if "/part-" in path
        ]
    except OSError as error:
        raise _build_detector_error(model, error) from error
    if len(parts) != 1:
        raise _build_detector_error(model, f"it has {len(parts)} files metadata/part-*, expected 1")
    return {sentences_dl_saved.METADATA: parts[0], sentences_dl_saved.NETWORK: f"{directory}/{sentences_dl_saved.NETWORK}"}


def _build_detector_error(model: str, reason: object) -> ModelError:
    """Return the error for a saved sentence detector that cannot be read, with the reason; `model` is its path or URI."""
    return ModelError(
        f"segmentation.model: {model} cannot be read as a saved SentenceDetectorDLModel ({reason}). Copy the model again, "
        "or set segmentation.detector=sentencex."
    )


def ship_detector(spark: SparkSession, kind: DetectorKind, model: str) -> ShippedDetector:
    """Check a sentence detector on the driver, and send its files, if any, to the executors.

    Only a detector of kind dl has files; `model` is the path or URI of its directory. The result contains the names that the
    files have on the executors. Raise a ModelError if a file is missing or damaged, or the network has an architecture that
    is not supported.
    """
    if kind != "dl":
        return ShippedDetector({}, kind, {}, _identify_without_files(kind))
    scratch = create_scratch_directory("entitymill-detector-")
    names, digests = {}, {}
    try:
        for name, address in _locate_detector_files(spark, model).items():
            storage.fetch(spark, address, scratch / name)
            digests[name] = bundle.sha256(scratch / name)
            names[name] = f"{digests[name][:16]}-{name}"
            (scratch / name).rename(scratch / names[name])
    except OSError as error:
        raise _build_detector_error(model, error) from error
    local = {name: scratch / shipped for name, shipped in names.items()}
    sentences.open_detector("dl", local, model)
    for shipped in names.values():
        session.send_file(spark, scratch / shipped)
    return ShippedDetector(names, model, digests, f"dl {storage.combine_digests(digests.values())}")


def recognize(
    documents: DataFrame, model: ShippedModel, detector: ShippedDetector, options: RecognitionOptions, seconds: float
) -> DataFrame:
    """Return a lazy DataFrame with one row per document, which contains the document's mentions.

    The columns are schemas.RECOGNIZED, `passthrough` if `documents` has this column, and schemas.ANNOTATIONS if
    `options.annotations` is True. Executors find the mentions when the DataFrame is used.

    Args:
        documents: DataFrame with the columns doc_id, text, text_hash, chars, and optionally passthrough.
        seconds: time limit, in seconds, for a window (a batch of documents sent to the child process at once).
    """
    passthrough = [field for field in documents.schema.fields if field.name == "passthrough"]
    columns = ["doc_id", "text_hash", "chars", "text", *(field.name for field in passthrough)]
    annotations = schemas.ANNOTATIONS if options.annotations else []
    returned = T.StructType([*schemas.RECOGNIZED, *passthrough, *annotations])
    worker = Worker(model, detector, options, seconds, FACTORY, errors.SIGNATURE)
    return documents.select(*columns).mapInArrow(worker, returned)
