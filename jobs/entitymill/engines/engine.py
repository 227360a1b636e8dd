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
from entitymill.engines.worker import Run
from entitymill.settings import Settings

RESULTS_VERSION = 1
"""Raised whenever a change of this code changes what a given model finds in a given text."""


@dataclass(frozen=True)
class Recogniser:
    """A model and detector, looked at, and ready to be loaded.

    name: of the model.
    fingerprint: of everything but the text that decides the result.
    load: checks and loads both, makes the model reach the executors, and returns what takes documents (doc_id, text,
        text_hash, chars, passthrough) to schemas.RECOGNISED, in one pass over the model; with schemas.ANNOTATIONS where
        `output.annotations` is set. It raises ModelError where either is missing, altered, or does not fit the settings.
    """

    name: str
    fingerprint: str
    load: Callable[[], Callable[[DataFrame], DataFrame]]


def open_recogniser(spark: SparkSession, settings: Settings) -> Recogniser:
    """Look at model and detector, for a run that may have nothing to do: no weights are read yet.

    Raises:
        ModelError: either is missing, or does not fit the settings.
    """
    return (_open_openvino if settings.recognition.engine == "openvino" else _open_sparknlp)(spark, settings)


def _open_openvino(spark: SparkSession, settings: Settings) -> Recogniser:
    wanted = settings.recognition
    manifest = openvino.read_manifest(spark, settings.model.path)
    openvino.check_precision(manifest, wanted.precision)
    threads = int(spark.conf.get("spark.task.cpus", "1") or "1")
    run = Run(wanted.precision, wanted.encoding, threads, settings.output.annotations)
    parts = {
        "detector": segmentation.identity(spark, settings.segmentation),
        "model": manifest.digest(),
        "max_length": manifest.max_length if wanted.encoding == "complete" else manifest.sparknlp_max_length,
        "engine": wanted.engine,
        "encoding": wanted.encoding,
        "precision": wanted.precision,
        **_shape(settings),
    }

    def load() -> Callable[[DataFrame], DataFrame]:
        detector = segmentation.load_detector(spark, settings.segmentation)
        model = openvino.ship_model(spark, settings.model.path)
        seconds = settings.limits.batch_seconds
        return lambda rows: openvino.recognise(segmentation.segment(rows, detector), model, run, seconds)

    return Recogniser(manifest.name, _fingerprint(parts), load)


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
        **_shape(settings),
    }
    return Recogniser(
        saved.name,
        _fingerprint(parts),
        lambda: lambda rows: sparknlp.recognise(rows, pipeline, annotations=settings.output.annotations),
    )


def _shape(settings: Settings) -> dict[str, Any]:
    """Settings that decide what there is of a document's results."""
    carried = {"passthrough": list(settings.source.passthrough)} if settings.source.passthrough else {}
    return {**carried, **({"annotations": True} if settings.output.annotations else {})}


def _fingerprint(parts: dict[str, Any]) -> str:
    everything = {**parts, "results": RESULTS_VERSION, "schema": schemas.VERSION}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]
