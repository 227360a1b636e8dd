"""3  tokens -> tags -> mentions: picks the engine, and says what decides its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from entitymill import schemas, segmentation, session, storage
from entitymill.engines import openvino, sparknlp, sparknlp_model
from entitymill.settings import Settings

RESULTS_VERSION = 1
"""Raised whenever a change of this code changes what a given model finds in a given text."""


@dataclass(frozen=True)
class Recogniser:
    """A checked model and detector, ready for documents.

    name: of the model.
    fingerprint: of everything but the text that decides the result.
    recognise: documents (doc_id, text, text_hash, chars, passthrough) to schemas.RECOGNISED, in one pass over the model;
        with schemas.ANNOTATIONS where `output.annotations` is set.
    """

    name: str
    fingerprint: str
    recognise: Callable[[DataFrame], DataFrame]


def open_recogniser(spark: SparkSession, settings: Settings) -> Recogniser:
    """Load and check model and detector, and make the model reach the executors.

    Raises:
        ModelError: either is missing, altered, or does not fit the settings.
    """
    return (_open_openvino if settings.recognition.engine == "openvino" else _open_sparknlp)(spark, settings)


def _open_openvino(spark: SparkSession, settings: Settings) -> Recogniser:
    detector = segmentation.load_detector(spark, settings.segmentation)
    model = openvino.ship_model(spark, settings.model.path)
    wanted = settings.recognition
    openvino.check_precision(model, wanted.precision)
    manifest = model.manifest
    threads = int(spark.conf.get("spark.task.cpus", "1") or "1")
    run = openvino.Run(wanted.precision, wanted.encoding, threads, settings.output.annotations)
    parts = {
        "detector": segmentation.identity(spark, settings.segmentation),
        "model": manifest.digest(),
        "max_length": manifest.max_length if wanted.encoding == "complete" else manifest.sparknlp_max_length,
        "engine": wanted.engine,
        "encoding": wanted.encoding,
        "precision": wanted.precision,
    }
    return Recogniser(
        manifest.name,
        _fingerprint(parts),
        lambda rows: openvino.recognise(segmentation.segment(rows, detector), model, run),
    )


def _open_sparknlp(spark: SparkSession, settings: Settings) -> Recogniser:
    wanted = settings.recognition
    saved = sparknlp_model.inspect(spark, wanted.sparknlp_model or "")
    classes, binding = (session.has_class(spark, f"org.intel.openvino.{name}") for name in ("Core", "OpenvinoC"))
    sparknlp_model.check(saved, wanted.precision, classes=classes, binding=binding)
    sparknlp_model.configure(spark, wanted.precision)
    alone = saved.kind != "PipelineModel"
    detector = segmentation.load_detector(spark, settings.segmentation) if alone else None
    around = segmentation.stages(detector, spark.createDataFrame([], "text string")) if detector is not None else []
    pipeline = sparknlp_model.load(saved, around)
    parts = {
        "detector": segmentation.identity(spark, settings.segmentation) if alone else "the pipeline's",
        "model": saved.address if saved.pretrained else storage.digest(spark, saved.address),
        "engine": wanted.engine,
        "precision": wanted.precision if binding or saved.engine != "openvino" else "as jsl-openvino chooses",
    }
    return Recogniser(
        saved.name,
        _fingerprint(parts),
        lambda rows: sparknlp.recognise(rows, pipeline, annotations=settings.output.annotations),
    )


def _fingerprint(parts: dict[str, Any]) -> str:
    everything = {**parts, "results": RESULTS_VERSION, "schema": schemas.VERSION}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]
