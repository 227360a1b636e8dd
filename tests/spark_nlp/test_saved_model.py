"""Test that Spark NLP loads models that this project exports, and that this project reads models that Spark NLP saves."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import openvino as ov
import pytest
from pyspark.ml import Pipeline
from pyspark.sql import SparkSession
from tokenizers import Tokenizer as HubTokenizer

from entitymill.recognition.tagger import bundle, network
from entitymill.recognition.tagger.inference import read_tokenizer
from entitymill_models import precision_loss, prepare_command, sparknlp_saved
from entitymill_sparknlp import pipeline_stages

from .conftest import ROOT, recognized

DEMO = ROOT / "models" / "demo"


def run(*arguments: object) -> None:
    assert prepare_command.main([str(argument) for argument in arguments]) == 0


def constants(network: Path) -> list[str]:
    """Return the digest of each weight of a network."""
    operations = ov.Core().read_model(network).get_ops()
    large = (node.data for node in operations if node.get_type_name() == "Constant" and node.data.size > 100)
    return [hashlib.sha256(data.tobytes()).hexdigest() for data in large]


def test_an_export_has_no_calibration(saved_demo: Path) -> None:
    """The export must have no calibration, which Spark NLP would also apply in f32."""
    [packed] = saved_demo.glob("*_openvino")
    with zipfile.ZipFile(packed) as files:
        assert "FakeQuantize" not in files.read(bundle.NETWORK).decode("utf8")
    assert "FakeQuantize" in (DEMO / bundle.NETWORK).read_text(encoding="utf8")


@pytest.fixture(scope="module")
def resaved(spark: SparkSession, saved_demo: Path) -> Path:
    """Load the exported model with Spark NLP, save it again, and return the new directory."""
    from sparknlp.annotator import DistilBertForTokenClassification  # noqa: PLC0415

    directory = saved_demo.with_name("resaved")
    pipeline_stages.configure_openvino(spark, "f32")
    loaded = DistilBertForTokenClassification.load(str(saved_demo))
    loaded.write().overwrite().save(str(directory))
    return directory


@pytest.mark.parametrize("pack", [lambda path: path, lambda path: Path(shutil.make_archive(str(path), "zip", path))],
                         ids=["directory", "zip"])  # fmt: skip
def test_what_spark_nlp_saves_is_read(resaved: Path, tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    run(pack(resaved), tmp_path / "bundle")

    (manifest, files), (demo, demo_files) = (bundle.read_directory(path) for path in (tmp_path / "bundle", DEMO))
    assert (manifest.precision, manifest.casing, manifest.max_length) == (demo.precision, demo.casing, demo.max_length)
    assert manifest.files[bundle.LABELS] == demo.files[bundle.LABELS]
    assert read_tokenizer(files, manifest).get_vocab() == read_tokenizer(demo_files, demo).get_vocab()
    # OpenVINO may write constants in another order, but these are the same ones.
    weights = [sorted(constants(path[bundle.NETWORK])) for path in (files, demo_files)]
    assert weights[0] == weights[1] and len(weights[0]) > 50
    sentences = precision_loss.read_sample(ROOT / "data" / "state_union.parquet", "x").select_evenly(200).sentences
    assert precision_loss.find_mentions(tmp_path / "bundle", "f32", sentences) == precision_loss.find_mentions(
        DEMO, "f32", sentences
    )


def test_spark_nlp_finds_with_an_export_what_the_bundle_finds(spark: SparkSession, saved_demo: Path) -> None:
    from sparknlp.annotator import DistilBertForTokenClassification, NerConverter, Tokenizer  # noqa: PLC0415
    from sparknlp.base import DocumentAssembler  # noqa: PLC0415

    pipeline_stages.configure_openvino(spark, "f32")
    stages = [
        DocumentAssembler().setInputCol("text").setOutputCol("document"),
        Tokenizer().setInputCols(["document"]).setOutputCol("token"),
        DistilBertForTokenClassification.load(str(saved_demo)),
        NerConverter().setInputCols(["document", "token", "ner"]).setOutputCol("mention"),
    ]
    texts = spark.createDataFrame([("Angela Merkel met Emmanuel Macron in Paris",)], ["text"])
    row = Pipeline(stages=stages).fit(texts).transform(texts).select("mention").first()
    assert row is not None
    found = [(mention.result, mention.metadata["entity"]) for mention in row.mention]

    [written] = texts.limit(1).collect()
    tokens = written.text.split()
    expected = sorted(precision_loss.find_mentions(DEMO, "f32", [tokens]))
    assert found == [(" ".join(tokens[first:last]), label) for _, first, last, label in expected]
    assert found == [("Angela Merkel", "PER"), ("Emmanuel Macron", "PER"), ("Paris", "LOC")]


@pytest.fixture(scope="module")
def imported(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import and save the demo model with Spark NLP itself, and return the directory of the saved model."""
    from sparknlp.annotator import DistilBertForTokenClassification  # noqa: PLC0415

    directory = tmp_path_factory.mktemp("imported")
    assets = directory / "source" / "assets"
    assets.mkdir(parents=True)
    model = network.read_network(DEMO / bundle.NETWORK, DEMO / bundle.WEIGHTS, "models/demo")
    network.remove_activation_quantization(model)  # as our engine runs it in f32
    ov.save_model(model, directory / "source" / bundle.NETWORK, compress_to_fp16=False)
    vocabulary = HubTokenizer.from_file(str(DEMO / "tokenizer.json")).get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    (assets / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf8")
    (assets / "labels.txt").write_text("\n".join(json.loads((DEMO / "labels.json").read_text())))
    pipeline_stages.configure_openvino(spark, "f32")
    loaded = DistilBertForTokenClassification.loadSavedModel(str(directory / "source"), spark)
    loaded.setCaseSensitive(True).setMaxSentenceLength(128).write().save(str(directory / "model"))
    return directory / "model"


def test_an_export_equals_what_spark_nlp_itself_imports(spark: SparkSession, saved_demo: Path, imported: Path) -> None:
    found = []
    for path in (saved_demo, imported):
        chosen = ("recognition.engine=sparknlp", f"recognition.sparknlp_model={path}", "segmentation.detector=rules")
        rows = recognized(spark, {"a": "Angela Merkel met Emmanuel Macron of En Marche in Paris."}, *chosen)
        found.append([(mention.entity, mention.label, mention.confidence) for mention in rows["a"].mentions])
    assert found[0] == found[1]
    assert len(found[0]) >= 3
    assert sparknlp_saved.read_description(saved_demo, "x") == sparknlp_saved.read_description(imported, "x")


def test_a_resaved_model_says_what_the_export_said(saved_demo: Path, resaved: Path) -> None:
    first, second = (sparknlp_saved.read_description(path, "here") for path in (saved_demo, resaved))
    assert first == second
    assert len(first.vocabulary) > 30_000
