"""Provide a session with Spark NLP's jars, which no other test level loads, and a model saved by Spark NLP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openvino as ov
import pytest
from pyspark.sql import SparkSession
from tokenizers import Tokenizer

from entitymill.recognition.tagger import bundle, network
from entitymill_sparknlp import pipeline_stages
from integration.conftest import MODELS, ROOT, Job, job, main, module_job, recognized
from spark_sessions import open_test_session

__all__ = ["MODELS", "ROOT", "Job", "job", "main", "module_job", "recognized"]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Return the only Spark session of a test process."""
    session = open_test_session(tmp_path_factory.mktemp("warehouse"), sparknlp=True)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def saved_demo(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import and save the demo model with Spark NLP itself, and return the directory of the saved model."""
    from sparknlp.annotator import DistilBertForTokenClassification  # noqa: PLC0415

    demo, directory = ROOT / "models" / "demo", tmp_path_factory.mktemp("saved")
    (directory / "source" / "assets").mkdir(parents=True)
    model = network.read_network(demo / bundle.NETWORK, demo / bundle.WEIGHTS, "models/demo")
    network.remove_activation_quantization(model)  # as our engine runs it in f32
    ov.save_model(model, directory / "source" / bundle.NETWORK, compress_to_fp16=False)
    vocabulary = Tokenizer.from_file(str(demo / "tokenizer.json")).get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    (directory / "source" / "assets" / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf8")
    (directory / "source" / "assets" / "labels.txt").write_text("\n".join(json.loads((demo / "labels.json").read_text())))
    pipeline_stages.configure_openvino(spark, "f32")
    model = DistilBertForTokenClassification.loadSavedModel(str(directory / "source"), spark)
    model.setCaseSensitive(True).setMaxSentenceLength(128).write().save(str(directory / "model"))
    return directory / "model"
