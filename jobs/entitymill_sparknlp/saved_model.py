"""The card's four stages in the JVM: Spark NLP's own sentence detector and tokenizer, and a model saved by Spark NLP."""

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
from entitymill.recognition.tagger import Precision
from entitymill.recognition.tagger.network import precision_properties
from entitymill.settings.sections import PRETRAINED, SegmentationSettings
from entitymill.spark import storage
from entitymill.workers import openvino
from entitymill_sparknlp import model_files as sparknlp_files

_LIBRARY, _PROPERTIES = "entitymill.openvino.library", "entitymill.openvino.properties"
_DYNAMIC_GROUP = 128


@dataclass(frozen=True)
class SavedModel:
    """A saved Spark NLP model, looked at but not loaded.

    address: its directory, or pretrained:NAME/LANGUAGE.
    kind: the class it was saved from.
    engine: that runs its network: openvino, onnx, tensorflow; or unknown, for one not yet downloaded.
    """

    address: str
    kind: str
    engine: str

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.address.rstrip("/").rpartition("/")[2]

    @property
    def pretrained(self) -> bool:
        """Whether it is still on the models hub."""
        return PRETRAINED.fullmatch(self.address) is not None


def inspect(spark: SparkSession, address: str) -> SavedModel:
    """Find out what a saved model is, and that no file of it could run code of somebody else's.

    Raises:
        ModelError: nothing is there, it is no token classifier and no pipeline, or a file is damaged or could run code.
    """
    setting = f"recognition.sparknlp_model: {address}"
    if address.startswith("pretrained:"):
        if not PRETRAINED.fullmatch(address):
            raise ModelError(f"{setting} is not of the form pretrained:NAME/LANGUAGE.")
        return SavedModel(address, "DistilBertForTokenClassification", "unknown")
    try:
        if not storage.exists(spark, address):
            raise ModelError(f"{setting} does not exist; name a saved Spark NLP model.")
        if address.endswith(".zip"):
            hint = "unpack the zip first, to where every executor can read it"
            raise ModelError(f"{setting} is not a saved Spark NLP model: {hint}.")
        kind = str(sparknlp_files.check(spark, address, "recognition.sparknlp_model").get("class"))
        files = [path for path, _, _ in storage.list_files(spark, address)]
    except OSError as error:
        raise ModelError(f"{setting} cannot be read: {error}.") from error
    classifier = sparknlp_files.CLASSIFIER.fullmatch(kind)
    if kind != sparknlp_files.PIPELINE and not classifier:
        raise ModelError(f"{setting} is a {kind.rpartition('.')[2]}, neither a token classifier nor a PipelineModel.")
    engines = {match[1] for path in files if (match := re.search(r"_classification_(openvino|onnx)$", path))}
    return SavedModel(address, classifier[1] if classifier else "PipelineModel", engines.pop() if engines else "tensorflow")


def check(model: SavedModel, precision: Precision, *, classes: bool, binding: bool) -> None:
    """Refuse what cannot run, before anything is loaded.

    Args:
        model: that is to run.
        precision: wanted.
        classes: whether org.intel.openvino is on the class path.
        binding: whether it is this product's own, which can set the precision.

    Raises:
        ModelError: classes are missing, or the engine cannot run in the precision.
    """
    if model.engine in ("openvino", "unknown") and not classes:
        raise ModelError(
            f"{model.address} runs on OpenVINO, but the classes org.intel.openvino are not on Spark's class path: add "
            "entitymill-openvino-1.jar and jna (`make jars-sparknlp` puts both into build/jars-sparknlp), or on a cluster "
            "with all of Maven Central com.johnsnowlabs.nlp:jsl-openvino-cpu_2.12."
        )
    if model.engine in ("onnx", "tensorflow") and precision != "f32":
        raise ModelError(
            f"{model.address} runs on {model.engine}, which runs it in f32 only: recognition.precision is {precision}."
        )
    if model.engine == "openvino" and precision != "f32" and not binding:
        raise ModelError(
            f"recognition.precision is {precision}, which jsl-openvino-cpu has no way to set: use entitymill-openvino-1.jar."
        )


def configure(spark: SparkSession, precision: Precision) -> None:
    """Tell the binding, on the driver and in every task, where OpenVINO is and how to run models.

    (`jars/sparknlp/src`, Settings: a job's local properties, and on the driver system properties.)
    """
    context = spark.sparkContext
    system: Any = context._jvm
    library = Path(ov.__file__).parent / "libs"
    local = (context.master or "").startswith("local")
    cores = context.defaultParallelism if local else int(context.getConf().get("spark.executor.cores", "0") or 0)
    properties = {
        **precision_properties(precision, _DYNAMIC_GROUP),
        "ENABLE_CPU_PINNING": "NO",
        # An executor's tasks share one compiled model: a stream and a thread for each.
        "NUM_STREAMS": cores or "AUTO",
        **({"INFERENCE_NUM_THREADS": cores} if cores else {}),
    }
    text = ";".join(f"{key}={value}" for key, value in properties.items())
    for key, value in ((_LIBRARY, str(library)), (_PROPERTIES, text)):
        context.setLocalProperty(key, value)
        system.java.lang.System.setProperty(key, value)


def load(model: SavedModel, around: Sequence[Any]) -> Pipeline:
    """Load a model.

    Args:
        model: that was checked.
        around: document assembler, sentence detector and tokenizer, for a classifier saved alone.

    Raises:
        ModelError: it is damaged, or cannot be downloaded.
    """
    try:
        if model.kind == "PipelineModel":
            return Pipeline.of(ml.PipelineModel.load(model.address).stages, model.address)
        kind = getattr(annotator, model.kind)
        named = PRETRAINED.fullmatch(model.address)
        classifier = kind.pretrained(named[1], named[2]) if named else kind.load(model.address)
    except (Py4JJavaError, TypeError, AttributeError) as error:
        raise ModelError(_loading_fault(model, error)) from error
    columns = [stage.getOutputCol() for stage in around]
    return Pipeline.of([*around, classifier.setInputCols(columns[1:]).setOutputCol("_ner")], model.address)


def _loading_fault(model: SavedModel, error: Exception) -> str:
    reason = storage.java_message(error) if isinstance(error, Py4JJavaError) else str(error)
    if "libopenvino_c" in reason or "openvino_c" in reason:
        return f"{model.address} runs on OpenVINO, whose library libopenvino_c cannot be loaded: {reason}"
    if model.pretrained:
        return (
            f"recognition.sparknlp_model: {model.address} cannot be downloaded from the models hub ({reason}); where it is "
            "out of reach, name a saved model."
        )
    return f"recognition.sparknlp_model: {model.address} cannot be loaded: {reason}"


@dataclass(frozen=True)
class Pipeline:
    """The stages that tag a document, and the columns they read and write."""

    stages: ml.PipelineModel
    text: str
    sentence: str
    token: str
    ner: str

    @classmethod
    def of(cls, stages: Sequence[Any], address: str) -> Pipeline:
        """Find the stages' columns by what they are.

        Raises:
            ModelError: the first is no DocumentAssembler, or none is a token classifier.
        """
        classifiers = [at for at, stage in enumerate(stages) if type(stage).__name__.endswith("ForTokenClassification")]
        if not classifiers or type(stages[0]).__name__ != "DocumentAssembler":
            kinds = ", ".join(type(stage).__name__ for stage in stages)
            raise ModelError(
                f"recognition.sparknlp_model: {address} has the stages {kinds}; expected a DocumentAssembler first, and a "
                "token classifier."
            )
        last = stages[classifiers[0]]
        sentence, token = last.getInputCols()
        chosen = ml.PipelineModel([*stages[: classifiers[0] + 1]])
        return cls(chosen, stages[0].getInputCol(), sentence, token, last.getOutputCol())


def stages(spark: SparkSession, settings: SegmentationSettings) -> list[Any]:
    """Transformers of `text` to `_document`, `_sentence` and `_token`.

    Raises:
        ModelError: the detector's model is missing or is not one.
    """
    pipeline = [
        DocumentAssembler().setInputCol("text").setOutputCol("_document"),
        load_detector(spark, settings).setInputCols(["_document"]).setOutputCol("_sentence"),
        Tokenizer().setInputCols(["_sentence"]).setOutputCol("_token"),
    ]
    # Fitting learns nothing: Tokenizer turns its rules into a model.
    return ml.Pipeline(stages=pipeline).fit(spark.createDataFrame([], "text string")).stages


def load_detector(spark: SparkSession, settings: SegmentationSettings) -> SentenceDetector | SentenceDetectorDLModel:
    """The sentence detector the settings name.

    Raises:
        ModelError: its model is missing or is not one.
    """
    if settings.detector == "rules":
        return SentenceDetector()
    path = settings.model
    named = PRETRAINED.fullmatch(path)
    try:
        if named:
            return SentenceDetectorDLModel.pretrained(named[1], named[2])
        address = storage.prefer_local_file(path)
        if not storage.exists(spark, address):
            raise ModelError(f"segmentation.model: nothing is at {path}; name a saved SentenceDetectorDLModel.")
        if re.search(r"\s", address):
            raise ModelError(
                f"segmentation.model: {path} cannot be read: Spark NLP reads nothing below a directory with a blank in its "
                "name."
            )
        kind = str(sparknlp_files.check(spark, address, "segmentation.model").get("class"))
        if kind != sparknlp_files.DETECTOR:
            raise ModelError(f"segmentation.model: {path} is a {kind.rpartition('.')[2]}, not a SentenceDetectorDLModel.")
        return SentenceDetectorDLModel.load(address)
    except (Py4JJavaError, OSError, TypeError) as error:
        what = "cannot be downloaded; name a saved one" if named else "is not a saved SentenceDetectorDLModel"
        raise ModelError(f"segmentation.model: {path} {what}.") from error


def identity(spark: SparkSession, settings: SegmentationSettings) -> str:
    """What decides the sentences: the detector's name, or a digest of its model's files.

    Raises:
        ModelError: the model is missing.
    """
    if settings.detector == "dl" and PRETRAINED.fullmatch(settings.model):
        return settings.model
    return openvino.identify_detector(spark, settings)
