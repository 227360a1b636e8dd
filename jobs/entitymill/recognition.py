"""3  tokens -> tags -> mentions: picks the engine, and says what decides its results."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from entitymill import schemas, segmentation
from entitymill.engines import openvino
from entitymill.settings import Settings

RESULTS_VERSION = 1
"""Raised whenever a change of this code changes what a given model finds in a given text."""


@dataclass(frozen=True)
class Recogniser:
    """A checked model and detector, ready for documents.

    name: of the model.
    fingerprint: of everything but the text that decides the result.
    """

    name: str
    fingerprint: str
    _detector: object
    _model: openvino.ShippedModel
    _settings: Settings
    _threads: int

    def recognise(self, documents: DataFrame) -> DataFrame:
        """Documents (doc_id, text, text_hash, chars, passthrough) to schemas.RECOGNISED, in one pass over the model."""
        segmented = segmentation.segment(documents, self._detector)
        return openvino.recognise(segmented, self._model, self._settings.recognition.precision, self._threads)


def open_recogniser(spark: SparkSession, settings: Settings) -> Recogniser:
    """Load and check model and detector, and send the model to the executors.

    Raises:
        ModelError: either is missing, altered, or does not fit the settings.
    """
    detector = segmentation.load_detector(spark, settings.segmentation)
    model = openvino.ship_model(spark, settings.model.path)
    openvino.check_precision(model, settings.recognition.precision)
    parts = {
        "detector": segmentation.identity(spark, settings.segmentation),
        "model": model.manifest.digest(),
        "max_length": model.manifest.max_length,
        "recognition": settings.recognition.model_dump(),
        "results": RESULTS_VERSION,
        "schema": schemas.VERSION,
    }
    fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    threads = int(spark.conf.get("spark.task.cpus", "1") or "1")
    return Recogniser(model.manifest.name, fingerprint, detector, model, settings, threads)
