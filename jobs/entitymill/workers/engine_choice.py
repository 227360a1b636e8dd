"""Select the engine that recognizes a run's documents, and compute the fingerprint of its results.

The fingerprint is a digest of everything, except the text, that decides a document's result. By default, a run recomputes
each document whose fingerprint in the tables differs from that of the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.errors import EntityMillError
from entitymill.recognition import hardware
from entitymill.recognition.tagger import Execution, check_precision
from entitymill.settings import Settings
from entitymill.settings.sections import EntitySettings
from entitymill.spark import installation
from entitymill.workers import engine_openvino
from entitymill.workers.worker import RecognitionOptions

log = logging.getLogger(__name__)
RESULTS_VERSION = 6
"""A part of every fingerprint. Increase this number when a change of the code changes the mentions that are found."""


@dataclass(frozen=True)
class Engine:
    """The model and the sentence detector of a run. The caller should call `load` only if there are documents to recognize.

    name: name of the model.
    fingerprint: digest of everything, except the text, that decides a document's result.
    load: function that checks and loads the model and the detector, sends them to the executors, and returns a second
        function. The second function takes a DataFrame of documents (doc_id, text, text_hash, chars, and optionally
        passthrough). It returns a DataFrame with the columns schemas.RECOGNIZED, passthrough if the documents have it, and,
        if `output.annotations` is set, schemas.ANNOTATIONS. `load` raises ModelError if the model or the detector is
        missing, altered or not usable, and EntityMillError if one was replaced after `open_engine`.
    """

    name: str
    fingerprint: str
    load: Callable[[], Callable[[DataFrame], DataFrame]]


def open_engine(spark: SparkSession, settings: Settings) -> Engine:
    """Return the engine that the settings select, after checking its model and its sentence detector.

    Engine openvino reads the model's weights only in `Engine.load`, since the run may have no documents to recognize.
    Engine sparknlp reads the weights in this function. If the section `entities` of the settings selects mentions, the
    column `mentions` of the engine's results contains only these. The columns schemas.ANNOTATIONS are not filtered.

    Raises:
        ModelError: the model or the detector is missing, or does not fit the settings.
        SettingsError: the settings name a label that the model does not have, or the engine is not installed.
    """
    open_selected = _open_openvino if settings.recognition.engine == "openvino" else _open_sparknlp
    engine = open_selected(spark, settings)
    if settings.entities == EntitySettings():
        return engine
    keep = _build_mention_filter(settings.entities)

    def load() -> Callable[[DataFrame], DataFrame]:
        """Load the engine, and return a function that recognizes documents and keeps only the selected mentions."""
        recognize = engine.load()
        return lambda rows: recognize(rows).withColumn("mentions", F.filter("mentions", keep))

    return replace(engine, load=load)


def _build_mention_filter(chosen: EntitySettings) -> Callable[[Column], Column]:
    """Return a function for `F.filter` that keeps the mentions with a chosen label and enough confidence.

    `chosen` is the section `entities` of the settings. If its `labels` are empty, mentions of every label are kept. Its
    `min_confidence` is one number, or a dict from labels to numbers. For labels not in the dict, the minimum is 0.
    """

    def keep(mention: Column) -> Column:
        """Return the condition that a mention (a column of structs) has a chosen label and enough confidence."""
        label = mention["label"]
        minimum = F.lit(0.0 if chosen.by_label else chosen.min_confidence)
        for name, confidence in chosen.by_label.items():
            minimum = F.when(label == name, F.lit(confidence)).otherwise(minimum)
        # Compare as floats, since the column has this type: the float 0.9 is less than the double 0.9.
        kept = mention["confidence"] >= minimum.cast("float")
        return kept & label.isin(*chosen.labels) if chosen.labels else kept

    return keep


def _open_openvino(spark: SparkSession, settings: Settings) -> Engine:
    """Return engine `openvino` for the model and the sentence detector in the settings, without reading the model's weights.

    `Engine.load` reads the weights, and sends all files to the executors. A warning is logged if Spark runs only on this
    machine, and the machine's processor is slow in the chosen precision. Raise ModelError if the model or the sentence
    detector is missing or does not fit the settings. Raise SettingsError if the settings name a label that the model does
    not have.
    """
    recognition = settings.recognition
    manifest = engine_openvino.read_manifest(spark, settings.model.path)
    engine_openvino.check_selected_labels(spark, settings.model.path, settings.entities.referenced_labels)
    check_precision(recognition.precision, manifest.precision)
    drawback = hardware.read_processor().find_drawback(recognition.precision)
    if drawback is not None and (spark.conf.get("spark.master", "") or "").startswith("local"):
        log.warning("recognition.precision: %s, such as this one; compare precisions with `entitymill benchmark`", drawback)
    threads = int(spark.conf.get("spark.task.cpus", "1") or "1")
    execution = Execution(recognition.precision, recognition.encoding, threads, settings.decoding)
    options = RecognitionOptions(
        execution,
        settings.detector,
        trim=settings.trims_mentions,
        annotations=settings.output.annotations,
        consistent_labels=settings.makes_labels_consistent,
        markup=settings.source.markup,
        memory_mb=settings.limits.tagger_mb,
        memory_share=engine_openvino.compute_memory_share(spark),
    )
    parts = {
        "detector": engine_openvino.identify_detector(spark, settings.detector, settings.detector_model),
        "model": manifest.digest(),
        "casing": manifest.casing,
        "max_length": manifest.max_length if recognition.encoding == "complete" else manifest.sparknlp_max_length,
        "engine": recognition.engine,
        "encoding": recognition.encoding,
        "precision": recognition.precision,
        **_list_result_settings(settings),
    }

    def load() -> Callable[[DataFrame], DataFrame]:
        """Send the model and the sentence detector to the executors, and return a function that recognizes documents.

        Raise EntityMillError if the detector or the model was replaced after the engine was opened.
        """
        detector = engine_openvino.ship_detector(spark, settings.detector, settings.detector_model)
        model = engine_openvino.ship_model(spark, settings.model.path)
        # The files may have been replaced while this run waited for another run. The error is not a ModelError, because
        # running again helps.
        if (model.manifest, detector.identity) != (manifest, parts["detector"]):
            raise EntityMillError(
                f"model.path, segmentation.model: the model at {settings.model.path} or the sentence detector was replaced "
                "while this run waited for another run; run again."
            )
        return lambda rows: engine_openvino.recognize(rows, model, detector, options, settings.limits.batch_seconds)

    return Engine(manifest.name, _compute_fingerprint(parts), load)


def _open_sparknlp(spark: SparkSession, settings: Settings) -> Engine:
    """Load the pipeline of engine `sparknlp`, and return the engine, whose `Engine.load` has nothing left to load.

    Raise ModelError if a model is missing or does not fit the settings. Raise SettingsError if the engine is not installed,
    or if the settings name a label that the model does not have.
    """
    extension = installation.import_extension(f"{installation.SPARKNLP}.engine_sparknlp", "recognition.engine: sparknlp")
    name, parts, recognize = extension.open_pipeline(spark, settings)
    return Engine(name, _compute_fingerprint({**parts, **_list_result_settings(settings)}), lambda: recognize)


def _list_result_settings(settings: Settings) -> dict[str, Any]:
    """Return a dict of settings that affect a document's rows in the output tables, as a part of the fingerprint.

    The dict always has `trim`, `decoding` and `consistent_labels`. It has other settings only if they are not the default.
    The caller adds the settings of the model, the sentence detector and the engine.
    """
    passthrough = {"passthrough": list(settings.source.passthrough)} if settings.source.passthrough else {}
    annotations = {"annotations": True} if settings.output.annotations else {}
    # Default values are left out, so that the fingerprints of older outputs stay the same.
    chosen = settings.entities.model_dump(mode="json", exclude_defaults=True)
    tags = {"decoding": settings.decoding, "consistent_labels": settings.makes_labels_consistent}
    markup = {} if settings.source.markup == "none" else {"markup": settings.source.markup}
    return {
        "trim": settings.trims_mentions,
        **tags,
        **markup,
        **passthrough,
        **annotations,
        **({"entities": chosen} if chosen else {}),
    }


def _compute_fingerprint(parts: dict[str, Any]) -> str:
    """Return a fingerprint: the first 16 hex digits of a SHA-256 of `parts`, RESULTS_VERSION and schemas.VERSION.

    `parts` contains the model, the settings and all else that decides a document's result, except the text.
    """
    everything = {**parts, "results": RESULTS_VERSION, "schema": schemas.VERSION}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]
