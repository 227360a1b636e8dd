"""Test Spark NLP's engine: which models it runs and which it refuses, and that both engines can run the same model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import openvino as ov
import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from entitymill import settings
from entitymill.errors import ModelError, SettingsError
from entitymill.spark.session import has_class
from entitymill.workers.engine_choice import open_engine
from entitymill_models import prepare_command
from entitymill_sparknlp import pipeline_stages
from integration.class_path import class_path_without
from spark_sessions import use_unreachable_file_system

from .conftest import MODELS, ROOT, Job, recognized

TINY = ROOT / "tests" / "golden" / "tiny_models"
TEXTS = {
    "a": "😀 Angela Merkel met Emmanuel Macron in Paris. The well-known U.N. envoy, José Pérez, came from São Paulo.",
    "b": "",
    "c": "Nobody else came.",
    "d": "Apple Inc. opened a plant in Austin, Texas. " * 30,
}


def engine(saved: Path | str, *others: str) -> tuple[str, ...]:
    return ("recognition.engine=sparknlp", f"recognition.sparknlp_model={saved}", *others)


@pytest.fixture(scope="module")
def saved_pipeline(spark: SparkSession, saved_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the four stages of the model card as one PipelineModel with its own column names, and return its path."""
    around = pipeline_stages.build_stages(spark, "dl", f"{ROOT}/models/sentence_detector")
    loaded = pipeline_stages.load_pipeline(pipeline_stages.inspect_model(spark, str(saved_demo)), around)
    path = tmp_path_factory.mktemp("pipeline") / "saved"
    loaded.stages.write().save(str(path))
    return path


@pytest.fixture(scope="module")
def saved_onnx(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny BERT for Spark NLP's ONNX engine, and return its path."""
    from sparknlp.annotator import BertForTokenClassification  # noqa: PLC0415

    directory = tmp_path_factory.mktemp("onnx")
    (directory / "source" / "assets").mkdir(parents=True)
    shutil.copy(TINY / "bert.onnx", directory / "source" / "model.onnx")
    shutil.copy(TINY / "bert" / "vocab.txt", directory / "source" / "assets" / "vocab.txt")
    labels = json.loads((TINY / "bert" / "config.json").read_text())["id2label"].values()
    (directory / "source" / "assets" / "labels.txt").write_text("\n".join(labels) + "\n")
    model = BertForTokenClassification.loadSavedModel(str(directory / "source"), spark)
    model.setCaseSensitive(False).setMaxSentenceLength(64).write().save(str(directory / "model"))
    return directory / "model"


def mentions(rows: dict[str, Row]) -> list[tuple[str, int, int, str, str]]:
    return [(key, m.begin, m.end, m.entity, m.label) for key in sorted(rows) for m in rows[key].mentions]


def confidences(rows: dict[str, Row]) -> list[float]:
    return [mention.confidence for key in sorted(rows) for mention in rows[key].mentions]


@pytest.fixture(scope="module")
def alone(spark: SparkSession, saved_demo: Path) -> dict[str, Row]:
    """Return the results of a classifier that was saved without a pipeline, with annotations and a passthrough column."""
    chosen = ["source.path=x", "output.path=y", "output.annotations=true", *MODELS, *engine(saved_demo)]
    rows = spark.createDataFrame(list(TEXTS.items()), "doc_id string, text string")
    carried = F.struct(F.col("text").alias("whole")).alias("passthrough")
    rows = rows.select("*", F.sha2("text", 256).alias("text_hash"), F.length("text").alias("chars"), carried)
    recognize = open_engine(spark, settings.load(None, chosen, {})).load()
    return {row.doc_id: row for row in recognize(rows.repartition(2, "doc_id")).collect()}


def test_a_pipeline_saved_whole_gives_the_same_as_its_classifier(
    spark: SparkSession, saved_pipeline: Path, alone: dict[str, Row]
) -> None:
    assert mentions(recognized(spark, TEXTS, *engine(saved_pipeline))) == mentions(alone)
    assert {"Angela Merkel", "Emmanuel Macron", "Paris"} <= {row[3] for row in mentions(alone)}


def test_the_cards_zip_goes_in_and_either_engine_finds_the_same(
    spark: SparkSession, saved_demo: Path, alone: dict[str, Row], tmp_path: Path
) -> None:
    zipped = shutil.make_archive(str(tmp_path / "distilbert_ner_en_5.5.1_3.0_1748182871053"), "zip", saved_demo)
    assert prepare_command.main([zipped, str(tmp_path / "bundle")]) == 0
    with pytest.raises(ModelError, match="unpack the zip first"):
        pipeline_stages.inspect_model(spark, zipped)
    shutil.unpack_archive(zipped, tmp_path / "unpacked")
    unpacked = pipeline_stages.inspect_model(spark, str(tmp_path / "unpacked"))

    # The unpacked model is the one whose results are in `alone`.
    assert replace(unpacked, address=str(saved_demo)) == pipeline_stages.inspect_model(spark, str(saved_demo))
    ours = recognized(spark, TEXTS, f"model.path={tmp_path}/bundle", "recognition.encoding=sparknlp")
    assert mentions(alone) == mentions(ours) != []


def test_an_onnx_model_runs_in_either_engine(spark: SparkSession, saved_onnx: Path, tmp_path: Path) -> None:
    assert prepare_command.main([str(saved_onnx), str(tmp_path / "bundle")]) == 0

    ours = recognized(spark, TEXTS, f"model.path={tmp_path}/bundle", "recognition.encoding=sparknlp")
    assert mentions(recognized(spark, TEXTS, *engine(saved_onnx))) == mentions(ours) != []


@pytest.mark.skipif(
    "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor computes bf16 and dynamic int8 in f32: nothing could be seen",
)
def test_precision_reaches_openvino_in_the_jvm(spark: SparkSession, saved_demo: Path, alone: dict[str, Row]) -> None:
    found = {"f32": confidences(alone)}
    for precision in ("bf16", "int8"):
        rows = recognized(spark, TEXTS, *engine(saved_demo, f"recognition.precision={precision}"))
        found[precision] = confidences(rows)

    # With AMX, OpenVINO computes a calibrated model in bf16 for both bf16 and int8 (dynamic quantization).
    amx = "amx_int8" in Path("/proc/cpuinfo").read_text()
    assert len({tuple(confidences) for confidences in found.values()}) == (2 if amx else 3)
    assert found["bf16"] != found["f32"]
    assert found["bf16"][:3] == pytest.approx(found["f32"][:3], abs=0.05)


def test_passthrough_and_annotations_come_along(alone: dict[str, Row]) -> None:
    assert {key: row.passthrough.whole for key, row in alone.items()} == TEXTS
    assert [chunk.result for chunk in alone["a"].ner_chunk][:2] == ["Angela Merkel", "Emmanuel Macron"]
    assert [tag.result for tag in alone["c"].ner] == ["O"] * 4
    assert alone["b"].ner == []


@pytest.mark.parametrize(("address", "name"), [("pretrained:onto_bert/en", "onto_bert"), ("s3a://lake/models/ner/", "ner")])
def test_a_model_is_named_after_its_address(address: str, name: str) -> None:
    assert pipeline_stages.SavedModel(address, "DistilBertForTokenClassification", "unknown").name == name


def test_a_missing_model_is_named(main: Callable[..., tuple[int, str]], job: Job) -> None:
    job.texts(list(TEXTS.items()))
    code, printed = main(*engine("/nowhere/model"))
    assert (code, "recognition.sparknlp_model: /nowhere/model does not exist" in printed) == (5, True)


@pytest.mark.parametrize("chosen", ["entities.labels=[PER, PERSON]", "entities.min_confidence={PERSON: 0.5}"])
def test_a_label_that_the_model_does_not_have_is_named(spark: SparkSession, saved_demo: Path, chosen: str) -> None:
    options = ["source.path=x", "output.path=y", *MODELS, *engine(saved_demo)]
    with pytest.raises(
        SettingsError, match=r"^entities: the model \S+ has no label PERSON; its labels are LOC, MISC, ORG, PER\.$"
    ):
        open_engine(spark, settings.load(None, [*options, chosen], {}))
    open_engine(spark, settings.load(None, [*options, "entities.labels=[PER, LOC]"], {}))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (ROOT / "models" / "sentence_detector", "is a SentenceDetectorDLModel, neither a token classifier nor"),
        (ROOT / "models" / "demo", "is not a saved Spark NLP model: it has no metadata"),
        ("pretrained:no language", "not of the form pretrained:NAME/LANGUAGE"),
    ],
)
def test_what_is_no_classifier_is_named(spark: SparkSession, path: Path | str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        pipeline_stages.inspect_model(spark, str(path))


def test_a_pipeline_without_a_classifier_is_refused(spark: SparkSession, saved_pipeline: Path, tmp_path: Path) -> None:
    from pyspark.ml import PipelineModel  # noqa: PLC0415

    PipelineModel(PipelineModel.load(str(saved_pipeline)).stages[:3]).write().save(str(tmp_path / "half"))
    with pytest.raises(ModelError, match=r"has the stages DocumentAssembler, .*; expected"):
        pipeline_stages.load_pipeline(pipeline_stages.inspect_model(spark, str(tmp_path / "half")), [])


def test_the_inputs_of_a_classifier_may_be_in_any_order(
    spark: SparkSession, saved_pipeline: Path, tmp_path: Path, alone: dict[str, Row]
) -> None:
    """Spark NLP's own examples name the tokens first."""
    from pyspark.ml import PipelineModel  # noqa: PLC0415

    stages: list[Any] = PipelineModel.load(str(saved_pipeline)).stages
    stages[-1].setInputCols(stages[-1].getInputCols()[::-1])
    PipelineModel(stages).write().save(str(tmp_path / "turned"))
    turned = recognized(spark, TEXTS, *engine(tmp_path / "turned"))
    assert mentions(turned) == mentions(alone)


@pytest.mark.parametrize(
    ("stage", "parameter", "said"),
    [
        (0, "cleanupMode", "cleanupMode=shrink, but only disabled"),
        (1, "explodeSentences", "explodeSentences=True, but"),
    ],
)
def test_a_stage_that_changes_rows_or_texts_is_refused(
    spark: SparkSession, saved_pipeline: Path, tmp_path: Path, stage: int, parameter: str, said: str
) -> None:
    from pyspark.ml import PipelineModel  # noqa: PLC0415

    stages = PipelineModel.load(str(saved_pipeline)).stages
    stages[stage]._set(**{parameter: True if stage else "shrink"})
    PipelineModel(stages).write().save(str(tmp_path / "changed"))
    with pytest.raises(ModelError, match=said):
        pipeline_stages.load_pipeline(pipeline_stages.inspect_model(spark, str(tmp_path / "changed")), [])


def test_an_onnx_model_has_one_precision(spark: SparkSession, saved_onnx: Path) -> None:
    saved = pipeline_stages.inspect_model(spark, str(saved_onnx))
    with pytest.raises(ModelError, match="runs on onnx, which supports only f32"):
        pipeline_stages.check_runnable(saved, "bf16", has_classes=True, is_own_binding=True)


def test_the_vendors_jar_cannot_set_a_precision(spark: SparkSession, saved_demo: Path) -> None:
    saved = pipeline_stages.inspect_model(spark, str(saved_demo))
    pipeline_stages.check_runnable(saved, "f32", has_classes=True, is_own_binding=False)
    with pytest.raises(ModelError, match="cannot be set with jsl-openvino-cpu"):
        pipeline_stages.check_runnable(saved, "bf16", has_classes=True, is_own_binding=False)


def test_a_class_is_looked_for_without_loading_it(spark: SparkSession) -> None:
    assert has_class(spark, "org.intel.openvino.Core")
    assert not has_class(spark, "org.intel.openvino.Nothing")


@pytest.mark.parametrize(
    ("without", "code", "said"),
    [
        (
            "entitymill-openvino",
            5,
            "the classes org.intel.openvino are not on Spark's class path. Run `make jars-sparknlp`",
        ),
        ("spark-nlp", 1, "needs Spark NLP, whose jars cannot be found: the jars come with `make jars-sparknlp`"),
    ],
)
def test_a_missing_jar_is_one_sentence(
    main: Callable[..., tuple[int, str]], job: Job, saved_demo: Path, without: str, code: int, said: str
) -> None:
    job.texts(list(TEXTS.items()))
    with class_path_without(job.spark, without):
        ended, printed = main(*engine(saved_demo))
    assert (ended, said in printed) == (code, True)
    assert "Traceback" not in printed
    assert not job.output.exists()


def test_a_detector_is_found_whatever_the_default_file_system_and_a_blank_in_its_path_is_named(
    spark: SparkSession, tmp_path: Path
) -> None:
    """On YARN, the default file system is not the local one. Spark NLP's own reader refuses paths with a space."""
    for place in ("ä", "ä b"):
        shutil.copytree(ROOT / "models" / "sentence_detector", tmp_path / place / "detector")
    with use_unreachable_file_system(spark):
        pipeline_stages.load_detector(spark, "dl", str(tmp_path / "ä" / "detector"))
    with pytest.raises(ModelError, match="cannot read a path with white space"):
        pipeline_stages.load_detector(spark, "dl", str(tmp_path / "ä b" / "detector"))
