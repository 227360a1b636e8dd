"""Check every file of a saved Spark NLP model before Spark NLP reads it, because these files can run code in the JVM.

Spark instantiates the class that `metadata` names, even a Python class, and deserializes the Java objects in `fields`. A
deserialization filter (jdk.serialFilter) does not help, because it would apply to the whole JVM. Spark sends tasks and
results as Java objects of thousands of classes, and no list of these classes exists for the filter. So this module first
reads the files without instantiating any class. The check does not help if someone changes a file after the check.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pyspark.sql import SparkSession

from entitymill.errors import ModelError
from entitymill.spark import storage
from entitymill.spark.files_on_this_machine import open_private_directory
from entitymill_models import sparknlp_field_files, sparknlp_saved
from entitymill_models.imported_classifier import read_bytes, read_text

PIPELINE = "org.apache.spark.ml.PipelineModel"
CLASSIFIER = re.compile(r"com\.johnsnowlabs\.nlp\.annotators\.classifier\.dl\.(\w+ForTokenClassification)")
DETECTOR = "com.johnsnowlabs.nlp.annotators.sentence_detector_dl.SentenceDetectorDLModel"
ALLOWED_STAGE_CLASSES = (
    "com.johnsnowlabs.nlp.DocumentAssembler",
    "com.johnsnowlabs.nlp.Finisher",
    "com.johnsnowlabs.nlp.annotators.NormalizerModel",
    "com.johnsnowlabs.nlp.annotators.RegexTokenizer",
    "com.johnsnowlabs.nlp.annotators.TokenizerModel",
    "com.johnsnowlabs.nlp.annotators.ner.NerConverter",
    "com.johnsnowlabs.nlp.annotators.sbd.pragmatic.SentenceDetector",
    DETECTOR,
)
"""The classes that the stages of a pipeline may have, besides token classifiers. Other classes, such as SQLTransformer, can
run SQL or code."""
_METADATA_FILE = re.compile(r"part-\d+")
"""Matches the name of a metadata file, but not part-00000.gz, which Spark would unpack."""
_STAGE_ID = re.compile(r"\w[\w.-]*")
_COPY_AGAIN = "copy the model again from a source that you trust"


def check_model_files(spark: SparkSession, address: str, setting: str) -> dict[str, Any]:
    """Check each file of a saved Spark NLP model that Spark could read and, in a pipeline, the class of each stage.

    The class of the model itself is not checked: the caller must check the value of `class` in the returned metadata.
    `setting` is the name of the setting that contains `address`, for error messages.

    Returns:
        The model's metadata, parsed from JSON; the value of `class` is the name of the model's class.

    Raises:
        ModelError: a file is damaged, or contains a class that is not needed for tagging and may run code.
        OSError: the model cannot be listed or read.
    """
    saved: dict[str, dict[str, Any]] = {}
    files = list(_list_visible_files(spark, address, setting))
    if not any(str(file.parent) == sparknlp_saved.METADATA for file, _ in files):
        raise ModelError(f"{setting}: {address} is not a saved Spark NLP model: it has no metadata.")
    with tempfile.TemporaryDirectory(dir=open_private_directory()) as scratch:
        for file, uri in files:
            copy = _fetch_file(spark, uri, Path(scratch) / "copy")
            if sparknlp_saved.METADATA in file.parts[:-1]:
                is_first = file.parent.name == sparknlp_saved.METADATA and str(file.parent.parent) not in saved
                if not is_first or not _METADATA_FILE.fullmatch(file.name):
                    raise ModelError(
                        f"{setting}: {file.parent} of {address} must contain only the file part-00000, but contains "
                        f"{file.name}, which Spark might read: {_COPY_AGAIN}."
                    )
                saved[str(file.parent.parent)] = _parse_metadata(copy, f"{setting}: {uri}")
            elif sparknlp_saved.FIELDS in file.parts:
                sparknlp_field_files.check_field(read_bytes(copy), f"{setting}: {uri}")
            elif zipfile.is_zipfile(copy):
                sparknlp_saved.unpack(copy, None, f"{setting}: {uri}", sparknlp_saved.Allowance.for_archive(copy))
    for directory, metadata in saved.items():
        _check_class(metadata, directory, f"{setting}: {address}")
    return saved["."]


def _list_visible_files(spark: SparkSession, address: str, setting: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield the path inside the model, and the URI, of each file; skip names that begin with . or _, which Spark ignores.

    Raise ModelError if a file is outside the model's directory, or a local *.crc file has a name that Spark does not ignore.
    Raise OSError if the model cannot be listed.
    """
    top = storage.qualify(spark, address).rstrip("/")
    for uri, *_ in storage.list_files(spark, address):
        if not uri.startswith(f"{top}/"):
            raise ModelError(
                f"{setting}: Spark found {uri}, which is not inside {address}; set the path of the model's directory itself."
            )
        file = PurePosixPath(uri.removeprefix(f"{top}/"))
        if file.name[0] not in "._":
            yield file, uri
    # storage.list_files leaves out all *.crc files, but Spark ignores only files whose names begin with a dot.
    for directory, _, names in os.walk(top.removeprefix("file:"), followlinks=True) if top.startswith("file:") else ():
        for name in names:
            if name.endswith(".crc") and name[0] not in "._":
                raise ModelError(f"{setting}: {directory}/{name} does not belong to a saved model: {_COPY_AGAIN}.")


def _fetch_file(spark: SparkSession, uri: str, copy: Path) -> Path:
    """Return a local path of the file `uri`; if the file is not on a local disk, copy it to `copy`, and return `copy`."""
    local = Path(uri.removeprefix("file:"))
    if uri.startswith("file:") and local.is_file():
        return local
    storage.fetch(spark, uri, copy)
    return copy


def _parse_metadata(file: Path, where: str) -> dict[str, Any]:
    """Return the JSON object in a metadata file; raise ModelError unless the file is one line with one JSON object."""
    line = read_text(file).rstrip("\r\n")
    try:
        found = None if re.search(r"[\r\n]", line) else json.loads(line, object_pairs_hook=_reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not JSON: {_COPY_AGAIN}.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{where} is not one line with a JSON object: {_COPY_AGAIN}.")
    return found


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's pairs as a dict; raise ValueError for a duplicate key: Spark might use its other value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a duplicate key")
    return found


def _check_class(metadata: dict[str, Any], directory: str, where: str) -> None:
    """Raise ModelError if a stage has a class that is not allowed, or if a pipeline's metadata is damaged or uses Python.

    `directory` is the directory to which `metadata` belongs: "." for the model itself, otherwise the path of a stage. If the
    model is a pipeline, its metadata must list the stages, none of which may be written in Python. The class of any other
    model is not checked here, but by the caller of `check_model_files`. `where` begins the error messages.
    """
    kind = str(metadata.get("class"))
    if kind == PIPELINE and directory == ".":
        if imports_python(metadata):
            raise ModelError(
                f"{where} was saved with a stage written in Python, so PySpark would import any module that the metadata "
                "names: save it with only stages of Spark and Spark NLP."
            )
        stages = metadata["paramMap"].get("stageUids")
        if not isinstance(stages, list) or not all(isinstance(one, str) and _STAGE_ID.fullmatch(one) for one in stages):
            raise ModelError(f"The metadata of {where} does not list its stages: {_COPY_AGAIN}.")
    elif kind not in ALLOWED_STAGE_CLASSES and not CLASSIFIER.fullmatch(kind) and directory != ".":
        raise ModelError(
            f"{where} has a stage of class {kind}, which is not needed for tagging and may run code: save the pipeline "
            "without it."
        )


def imports_python(metadata: dict[str, Any]) -> bool:
    """Return whether PySpark, when it loads a pipeline with this metadata, would import modules that the metadata names.

    Also return true if the metadata has no dict `paramMap`. (Source: PipelineModelReader in pyspark.ml.pipeline.)
    """
    chosen = metadata.get("paramMap")
    return not isinstance(chosen, dict) or chosen.get("language", "Scala") != "Scala"
