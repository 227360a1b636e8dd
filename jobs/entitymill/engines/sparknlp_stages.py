"""Documents to sentences and tokens by Spark NLP's own annotators in the JVM: the first three of the card's four stages."""

from __future__ import annotations

import re
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.ml import Pipeline
from pyspark.sql import SparkSession
from sparknlp.annotator import SentenceDetector, SentenceDetectorDLModel, Tokenizer
from sparknlp.base import DocumentAssembler

from entitymill.engines import openvino
from entitymill.errors import ModelError
from entitymill.platform import storage
from entitymill.settings.sections import PRETRAINED, SegmentationSettings


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
    return Pipeline(stages=pipeline).fit(spark.createDataFrame([], "text string")).stages


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
        address = storage.driver_first(path)
        if not storage.exists(spark, address):
            raise ModelError(f"segmentation.model: nothing is at {path}; name a saved SentenceDetectorDLModel.")
        if re.search(r"\s", address):
            raise ModelError(
                f"segmentation.model: {path} cannot be read: Spark NLP reads nothing below a directory with a blank in its "
                "name."
            )
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
    return openvino.detector_identity(spark, settings)
