"""Looks at every file of a saved Spark NLP model before Spark NLP reads it, since what it reads can run code in the JVM.

Spark builds the class that `metadata` names, Python's included, and deserializes the Java objects in `fields`. A filter on
deserialization (jdk.serialFilter) would hold for the whole JVM, where Spark itself sends tasks and results as Java objects
of thousands of classes: only a list of what is allowed would help, and Spark has no such list. So the files are read here,
by readers that build nothing. Whoever can change a file after this look can still have Spark NLP read something else.
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
from entitymill_models import saved_fields, sparknlp_saved
from entitymill_models.token_classifier import read_bytes, read_text

PIPELINE = "org.apache.spark.ml.PipelineModel"
CLASSIFIER = re.compile(r"com\.johnsnowlabs\.nlp\.annotators\.classifier\.dl\.(\w+ForTokenClassification)")
DETECTOR = "com.johnsnowlabs.nlp.annotators.sentence_detector_dl.SentenceDetectorDLModel"
STAGES = (
    "com.johnsnowlabs.nlp.DocumentAssembler",
    "com.johnsnowlabs.nlp.Finisher",
    "com.johnsnowlabs.nlp.annotators.NormalizerModel",
    "com.johnsnowlabs.nlp.annotators.RegexTokenizer",
    "com.johnsnowlabs.nlp.annotators.TokenizerModel",
    "com.johnsnowlabs.nlp.annotators.ner.NerConverter",
    "com.johnsnowlabs.nlp.annotators.sbd.pragmatic.SentenceDetector",
    DETECTOR,
)
"""Beside token classifiers, what a pipeline may consist of. Others can run SQL or other programs (SQLTransformer)."""
_METADATA_FILE = re.compile(r"part-\d+")
"""Not part-00000.gz, which Spark would unpack."""
_STAGE_ID = re.compile(r"\w[\w.-]*")
_FROM_ELSEWHERE = "copy the model again, from where it can be trusted"


def check(spark: SparkSession, address: str, setting: str) -> dict[str, Any]:
    """Check every file of a saved model.

    Args:
        spark: the session.
        address: the model's directory.
        setting: that names it, for messages.

    Returns:
        The model's metadata.

    Raises:
        ModelError: a file could run code that is not Spark NLP's own, or is damaged.
        OSError: the model cannot be listed or read.
    """
    saved: dict[str, dict[str, Any]] = {}
    files = list(_visible_files(spark, address, setting))
    if not any(str(file.parent) == sparknlp_saved.METADATA for file, _ in files):
        raise ModelError(f"{setting}: {address} is not a saved Spark NLP model: it has no metadata.")
    with tempfile.TemporaryDirectory() as scratch:
        for file, place in files:
            copy = _fetch(spark, place, Path(scratch) / "copy")
            if sparknlp_saved.METADATA in file.parts[:-1]:
                alone = file.parent.name == sparknlp_saved.METADATA and str(file.parent.parent) not in saved
                if not alone or not _METADATA_FILE.fullmatch(file.name):
                    raise ModelError(
                        f"{setting}: {file.parent} of {address} holds {file.name} beside or instead of one file part-00000, "
                        f"and Spark may read either: {_FROM_ELSEWHERE}."
                    )
                saved[str(file.parent.parent)] = _parse_metadata(copy, f"{setting}: {place}")
            elif sparknlp_saved.FIELDS in file.parts:
                saved_fields.check(read_bytes(copy), f"{setting}: {place}")
            elif zipfile.is_zipfile(copy):
                sparknlp_saved.unpack(copy, None, f"{setting}: {place}", sparknlp_saved.Budget.of(copy))
    for directory, metadata in saved.items():
        _check_class(metadata, directory, f"{setting}: {address}")
    return saved["."]


def _visible_files(spark: SparkSession, address: str, setting: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Path inside the model, and address, of each file that Spark does not hide."""
    top = storage.qualify(spark, address).rstrip("/")
    for place, *_ in storage.list_files(spark, address):
        if not place.startswith(f"{top}/"):
            raise ModelError(f"{setting}: {place} does not lie in {address}: name the model's own directory.")
        file = PurePosixPath(place.removeprefix(f"{top}/"))
        if file.name[0] not in "._":
            yield file, place
    # Of these the list above has none, and Spark hides only those whose name begins with a dot.
    for directory, _, names in os.walk(top.removeprefix("file:"), followlinks=True) if top.startswith("file:") else ():
        for name in names:
            if name.endswith(".crc") and name[0] not in "._":
                raise ModelError(f"{setting}: {directory}/{name} is no file of a saved model: {_FROM_ELSEWHERE}.")


def _fetch(spark: SparkSession, place: str, copy: Path) -> Path:
    local = Path(place.removeprefix("file:"))
    if place.startswith("file:") and local.is_file():
        return local
    storage.fetch(spark, place, copy)
    return copy


def _parse_metadata(file: Path, where: str) -> dict[str, Any]:
    """The one line of JSON in a file of metadata, as Spark reads it."""
    line = read_text(file).rstrip("\r\n")
    try:
        found = None if re.search(r"[\r\n]", line) else json.loads(line, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not JSON: copy the model again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{where} is not one line with a JSON object: copy the model again.")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, none of whose keys stands twice: readers differ in which one they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _check_class(metadata: dict[str, Any], directory: str, where: str) -> None:
    """Check what Spark would build from the metadata in a directory of the model; "." is the model itself."""
    kind = str(metadata.get("class"))
    if kind == PIPELINE and directory == ".":
        if names_python(metadata):
            raise ModelError(
                f"{where} was saved with a stage written in Python, and would import whatever module it names: "
                "save it with stages of Spark and Spark NLP alone."
            )
        stages = metadata["paramMap"].get("stageUids")
        if not isinstance(stages, list) or not all(isinstance(one, str) and _STAGE_ID.fullmatch(one) for one in stages):
            raise ModelError(f"The metadata of {where} does not list its stages: {_FROM_ELSEWHERE}.")
    elif kind not in STAGES and not CLASSIFIER.fullmatch(kind) and directory != ".":
        raise ModelError(
            f"{where} has a stage of class {kind}, which tagging does not need and which may run code: save the pipeline "
            "without it."
        )


def names_python(metadata: dict[str, Any]) -> bool:
    """Whether PySpark would take a pipeline's classes for Python's (pyspark.ml.pipeline, PipelineModelReader)."""
    chosen = metadata.get("paramMap")
    return not isinstance(chosen, dict) or chosen.get("language", "Scala") != "Scala"
