"""Load a model saved by Spark NLP, and build the stages that run before it: assembler, sentence detector, tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino as ov
from py4j.protocol import Py4JJavaError
from pyspark import ml
from pyspark.sql import SparkSession
from sparknlp import annotator
from sparknlp.annotator import SentenceDetector, SentenceDetectorDLModel, Tokenizer
from sparknlp.base import DocumentAssembler

from entitymill.errors import ModelError
from entitymill.recognition.sentences import DetectorKind
from entitymill.recognition.tagger import Precision
from entitymill.recognition.tagger.network import build_precision_properties
from entitymill.settings.sections import PRETRAINED
from entitymill.spark import storage
from entitymill.workers import engine_openvino
from entitymill_sparknlp import saved_model_check

_LIBRARY, _PROPERTIES = "entitymill.openvino.library", "entitymill.openvino.properties"
"""Names of properties that OpenVINO's Java binding reads: the directory of OpenVINO's library, and OpenVINO's settings."""
_DYNAMIC_GROUP = 128
"""Number of activations that share a scale if OpenVINO quantizes the activations of a model in int8."""


@dataclass(frozen=True)
class SavedModel:
    """A Spark NLP model that is not loaded yet: a saved model that `inspect_model` checked, or a model on the models hub.

    address: URI or path of a saved model's directory, or pretrained:NAME/LANGUAGE for a model on the models hub.
    kind: the name of the model's class, without its package.
    engine: the engine that runs the network: openvino, onnx or tensorflow; `unknown` for a model on the models hub.
    """

    address: str
    kind: str
    engine: str

    @property
    def name(self) -> str:
        """The name on the models hub, or the last part of a saved model's address."""
        hub = PRETRAINED.fullmatch(self.address)
        return hub[1] if hub else self.address.rstrip("/").rpartition("/")[2]

    @property
    def pretrained(self) -> bool:
        """Whether the model must be downloaded from the models hub."""
        return PRETRAINED.fullmatch(self.address) is not None


def inspect_model(spark: SparkSession, address: str) -> SavedModel:
    """Check that no file of a saved model could run code that is not Spark NLP's; return the model's class and engine.

    `address` is a URI or path of the model's directory, or pretrained:NAME/LANGUAGE for a model on the models hub. A model
    on the hub is neither downloaded nor checked; it is assumed to be a DistilBERT classifier.

    Raises:
        ModelError: the model is missing or damaged, could run code that is not Spark NLP's, or is neither a token classifier
            nor a pipeline.
    """
    setting = f"recognition.sparknlp_model: {address}"
    if address.startswith("pretrained:"):
        if not PRETRAINED.fullmatch(address):
            raise ModelError(f"{setting} is not of the form pretrained:NAME/LANGUAGE; correct the setting.")
        return SavedModel(address, "DistilBertForTokenClassification", "unknown")
    try:
        if not storage.exists(spark, address):
            raise ModelError(f"{setting} does not exist; set it to the path of a saved Spark NLP model.")
        if address.endswith(".zip"):
            hint = "unpack the zip first, to a directory that every executor can read"
            raise ModelError(f"{setting} is not a saved Spark NLP model: {hint}.")
        kind = str(saved_model_check.check_model_files(spark, address, "recognition.sparknlp_model").get("class"))
        files = [path for path, _, _ in storage.list_files(spark, address)]
    except OSError as error:
        raise ModelError(f"{setting} cannot be read: {error}. Check the path and the access to it.") from error
    classifier = saved_model_check.CLASSIFIER.fullmatch(kind)
    if kind != saved_model_check.PIPELINE and not classifier:
        raise ModelError(
            f"{setting} is a {kind.rpartition('.')[2]}, neither a token classifier nor a PipelineModel; name another model."
        )
    engines = {match[1] for path in files if (match := re.search(r"_classification_(openvino|onnx)$", path))}
    return SavedModel(address, classifier[1] if classifier else "PipelineModel", engines.pop() if engines else "tensorflow")


def check_runnable(model: SavedModel, precision: Precision, *, has_classes: bool, is_own_binding: bool) -> None:
    """Check, before a model is loaded, that this Spark session can run it in the requested precision.

    Args:
        has_classes: whether the classes org.intel.openvino are on the class path.
        is_own_binding: whether these classes come from this program's own Java binding, which can set the precision.

    Raises:
        ModelError: the classes are missing, and the model's engine is openvino or unknown. Or the engine, if it is known,
            cannot run the model in this precision.
    """
    if model.engine in ("openvino", "unknown") and not has_classes:
        raise ModelError(
            f"{model.address} runs on OpenVINO, but the classes org.intel.openvino are not on Spark's class path. Run "
            "`make jars-sparknlp` in the repository, and add build/jars-sparknlp to `spark.jars`. On a cluster that can "
            "download from Maven Central, add the package com.johnsnowlabs.nlp:jsl-openvino-cpu_2.12 instead."
        )
    if model.engine in ("onnx", "tensorflow") and precision != "f32":
        raise ModelError(
            f"{model.address} runs on {model.engine}, which supports only f32, but the settings say "
            f"`recognition.precision: {precision}`. Set `recognition.precision: f32`."
        )
    if model.engine == "openvino" and precision != "f32" and not is_own_binding:
        raise ModelError(
            f"`recognition.precision: {precision}` cannot be set with jsl-openvino-cpu: put entitymill-openvino-1.jar on "
            "Spark's class path instead, or set `recognition.precision: f32`."
        )


def configure_openvino(spark: SparkSession, precision: Precision) -> None:
    """Tell OpenVINO's Java binding, on the driver and in every task, where OpenVINO's library is and how to run models.

    The binding (`jars/sparknlp/src`) reads these values from the local properties of a Spark job and, on the driver, from
    system properties.
    """
    context = spark.sparkContext
    jvm: Any = context._jvm
    library = Path(ov.__file__).parent / "libs"
    local = (context.master or "").startswith("local")
    cores = context.defaultParallelism if local else int(context.getConf().get("spark.executor.cores", "0") or 0)
    properties = {
        **build_precision_properties(precision, _DYNAMIC_GROUP),
        "ENABLE_CPU_PINNING": "NO",
        # The tasks of an executor share one compiled model, which therefore needs a stream and a thread for each task.
        "NUM_STREAMS": cores or "AUTO",
        **({"INFERENCE_NUM_THREADS": cores} if cores else {}),
    }
    text = ";".join(f"{key}={value}" for key, value in properties.items())
    for key, value in ((_LIBRARY, str(library)), (_PROPERTIES, text)):
        context.setLocalProperty(key, value)
        jvm.java.lang.System.setProperty(key, value)


def load_pipeline(model: SavedModel, earlier_stages: Sequence[Any]) -> TaggingPipeline:
    """Load a model that `inspect_model` checked, or download it from the models hub; return the pipeline that runs it.

    `earlier_stages` are document assembler, sentence detector and tokenizer, which run before a token classifier. If the
    model is a pipeline, `earlier_stages` are ignored, because a pipeline has its own. Raise ModelError if the model is
    damaged, or cannot be downloaded.
    """
    try:
        if model.kind == "PipelineModel":
            return TaggingPipeline.from_stages(ml.PipelineModel.load(model.address).stages, model.address)
        kind = getattr(annotator, model.kind)
        pretrained = PRETRAINED.fullmatch(model.address)
        classifier = kind.pretrained(pretrained[1], pretrained[2]) if pretrained else kind.load(model.address)
    except (Py4JJavaError, TypeError, AttributeError) as error:
        raise ModelError(_describe_loading_error(model, error)) from error
    columns = [stage.getOutputCol() for stage in earlier_stages]
    return TaggingPipeline.from_stages(
        [*earlier_stages, classifier.setInputCols(columns[1:]).setOutputCol("_ner")], model.address
    )


def _describe_loading_error(model: SavedModel, error: Exception) -> str:
    """Return the message for a model that could not be loaded or downloaded."""
    reason = storage.java_message(error) if isinstance(error, Py4JJavaError) else str(error)
    if "libopenvino_c" in reason or "openvino_c" in reason:
        return f"{model.address} runs on OpenVINO, whose library libopenvino_c cannot be loaded: {reason}"
    if model.pretrained:
        return (
            f"recognition.sparknlp_model: {model.address} cannot be downloaded from the models hub ({reason}); if the "
            "hub cannot be reached, use a saved model."
        )
    return f"recognition.sparknlp_model: {model.address} cannot be loaded: {reason}"


@dataclass(frozen=True)
class TaggingPipeline:
    """The Spark ML stages that tag documents, and the names of the columns that they read and write.

    This class is not the Pipeline of Spark ML: its stages need no fitting.

    text: the column with the texts.
    sentence, token, ner: the columns to which the stages write sentences, tokens and tags.
    """

    stages: ml.PipelineModel
    text: str
    sentence: str
    token: str
    ner: str

    @classmethod
    def from_stages(cls, stages: Sequence[Any], address: str) -> TaggingPipeline:
        """Create a TaggingPipeline of the stages up to and including the first token classifier; later stages are left out.

        `stages` are Spark ML models, loaded or fitted. `address` is the model's address, for error messages. Raise
        ModelError if the first stage is not a DocumentAssembler, no stage is a token classifier, or an earlier stage has
        parameters that `_check_parameters` refuses.
        """
        classifiers = [at for at, stage in enumerate(stages) if type(stage).__name__.endswith("ForTokenClassification")]
        if not classifiers or type(stages[0]).__name__ != "DocumentAssembler":
            kinds = ", ".join(type(stage).__name__ for stage in stages)
            raise ModelError(
                f"recognition.sparknlp_model: {address} has the stages {kinds}; expected a DocumentAssembler as the "
                "first stage, and a token classifier. Save a pipeline with these stages."
            )
        last = stages[classifiers[0]]
        sentence, token = _order_inputs(last.getInputCols(), stages[: classifiers[0]])
        for stage in stages[: classifiers[0]]:
            _check_parameters(stage, f"recognition.sparknlp_model: {address}")
        chosen = ml.PipelineModel([*stages[: classifiers[0] + 1]])
        return cls(chosen, stages[0].getInputCol(), sentence, token, last.getOutputCol())

    def list_entity_labels(self) -> list[str]:
        """Return the labels, such as PER, for which the token classifier has tags, sorted."""
        classifier: Any = self.stages.stages[-1]
        return sorted({tag.partition("-")[2] for tag in classifier.getClasses()} - {""})


def _order_inputs(columns: Sequence[str], stages: Sequence[Any]) -> tuple[str, str]:
    """Return the names of the sentence column and of the token column that a token classifier reads, in this order.

    `columns` has these two names in any order; `stages` are the stages that run before the classifier.
    """
    first, second = columns
    tokens = {stage.getOutputCol() for stage in stages if getattr(stage, "outputAnnotatorType", None) == "token"}
    return (second, first) if first in tokens else (first, second)


def _check_parameters(stage: Any, setting: str) -> None:
    """Raise ModelError if a stage would write several rows for a document, or offsets that do not fit the source's text.

    `setting` begins the message: the name of a setting, and the address of the model that contains the stage.
    """
    for name, allowed in (("explodeSentences", False), ("cleanupMode", "disabled")):
        found = stage.getOrDefault(name) if stage.hasParam(name) and stage.isDefined(name) else allowed
        if found != allowed:
            raise ModelError(
                f"{setting} has a {type(stage).__name__} with {name}={found}, but only {allowed} is supported. Set this "
                "parameter, and save the model again."
            )


def build_stages(spark: SparkSession, kind: DetectorKind, model: str) -> list[Any]:
    """Build the stages that add the columns `_document`, `_sentence` and `_token` to a table with the `text` column.

    `kind` and `model` say which sentence detector to load (see `load_detector`). Raise ModelError as `load_detector` does.
    """
    pipeline = [
        DocumentAssembler().setInputCol("text").setOutputCol("_document"),
        load_detector(spark, kind, model).setInputCols(["_document"]).setOutputCol("_sentence"),
        Tokenizer().setInputCols(["_sentence"]).setOutputCol("_token"),
    ]
    # The fit() of Tokenizer needs no data: it only converts rules to a model.
    return ml.Pipeline(stages=pipeline).fit(spark.createDataFrame([], "text string")).stages


def load_detector(spark: SparkSession, kind: DetectorKind, model: str) -> SentenceDetector | SentenceDetectorDLModel:
    """Load a sentence detector: for kind `rules` the SentenceDetector, otherwise the SentenceDetectorDLModel `model`.

    `model` is the URI or path of a saved detector, whose files and parameters are checked. It may also be
    pretrained:NAME/LANGUAGE, a detector on the models hub, which is downloaded without these checks. Raise ModelError if the
    model is missing, could run code, is not a SentenceDetectorDLModel, has white space in its path, or has parameters that
    `_check_parameters` refuses.
    """
    if kind == "rules":
        return SentenceDetector()
    pretrained = PRETRAINED.fullmatch(model)
    try:
        if pretrained:
            return SentenceDetectorDLModel.pretrained(pretrained[1], pretrained[2])
        address = storage.prefer_local_file(model)
        if not storage.exists(spark, address):
            raise ModelError(f"segmentation.model: {model} does not exist; set it to a saved SentenceDetectorDLModel.")
        if re.search(r"\s", address):
            raise ModelError(
                f"segmentation.model: {model} cannot be read, because Spark NLP cannot read a path with white space: "
                "move it to a path without spaces."
            )
        found = str(saved_model_check.check_model_files(spark, address, "segmentation.model").get("class"))
        if found != saved_model_check.DETECTOR:
            raise ModelError(
                f"segmentation.model: {model} is a {found.rpartition('.')[2]}, not a SentenceDetectorDLModel. Specify the "
                "directory of such a model."
            )
        detector = SentenceDetectorDLModel.load(address)
    except (Py4JJavaError, OSError, TypeError) as error:
        what = (
            "cannot be downloaded; use a saved model" if pretrained else "is no saved SentenceDetectorDLModel; copy it again"
        )
        raise ModelError(f"segmentation.model: {model} {what}.") from error
    _check_parameters(detector, f"segmentation.model: {model}")
    return detector


def identify_detector(spark: SparkSession, kind: DetectorKind, model: str) -> str:
    """Return a string that identifies a sentence detector: if it changes, the next run recomputes all documents.

    For a detector on the models hub, the string is `model` itself (pretrained:NAME/LANGUAGE). For a saved detector, it is
    `dl` and a digest of the detector's files; for kind `rules`, it is `rules`. Raise ModelError if a saved detector is
    missing or cannot be read.
    """
    if kind == "dl" and PRETRAINED.fullmatch(model):
        return model
    return engine_openvino.identify_detector(spark, kind, model)
