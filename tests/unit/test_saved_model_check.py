"""Test that saved Spark NLP models that would run code are refused before Spark or Spark NLP reads any of their files."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from entitymill.errors import ModelError
from entitymill.spark import spark_connect, storage
from entitymill_models import java_stream_check, sparknlp_field_files
from entitymill_sparknlp import saved_model_check
from unit import hostile, tiny
from unit.damage import repacked

TOKENIZER = hostile.ROOT / "tests" / "golden" / "saved_rules" / "part-00000"
"""The rules of a tokenizer, as Spark NLP 5.5.3 saved them in a pipeline."""


@pytest.fixture(autouse=True)
def local_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace functions of `storage` by functions for local files that need no session."""
    monkeypatch.setattr(storage, "qualify", lambda _, path: f"file:{path}")
    monkeypatch.setattr(
        storage,
        "list_files",
        lambda _, path: sorted((f"file:{name}", *more) for name, *more in spark_connect.list_local_files(Path(path))),
    )


def check(directory: Path) -> dict[str, Any]:
    return saved_model_check.check_model_files(None, str(directory), "recognition.sparknlp_model")  # type: ignore[arg-type]


def test_good_models_pass(tmp_path: Path) -> None:
    assert str(check(tiny.saved_onnx(tmp_path / "onnx"))["class"]).endswith("BertForTokenClassification")
    assert check(hostile.DETECTOR)["class"] == saved_model_check.DETECTOR
    directory = hostile.pipeline(tmp_path / "pipeline", "com.johnsnowlabs.nlp.annotators.TokenizerModel")
    (directory / "stages" / "0_a" / "fields" / "rules").mkdir(parents=True)
    (directory / "stages" / "0_a" / "fields" / "rules" / "part-00000").write_bytes(TOKENIZER.read_bytes())
    assert check(directory)["class"] == saved_model_check.PIPELINE


@pytest.mark.parametrize("name", ["java.net.URL", "java.util.HashMap", "[Ljava.net.URL;", "evil.Gadget", "x" * 99])
def test_a_java_object_of_another_class_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ModelError, match=r"fields/vocabulary/part-00001 contains a Java object \(class .{1,300}may run code"
    ):
        check(hostile.saved_model(tmp_path / "model", field=hostile.java_object(name)))


@pytest.mark.parametrize("tail", [b"r\0\x0cscala.Tuple2" + bytes(8) + b"\2\0\0x", b"q\0\x7e\0\0"], ids=["long", "endless"])
def test_a_long_chain_of_superclasses_is_refused(tmp_path: Path, tail: bytes) -> None:
    """An object's check takes as long as the chain, and a small file could have thousands of objects."""
    chain = hostile.java_object("scala.Tuple2").removesuffix(b"p") + tail * (11 if tail.startswith(b"r") else 1)
    with pytest.raises(ModelError, match="part-00001 is not a readable stream of Java objects"):
        check(hostile.saved_model(tmp_path / "model", field=chain + b"p" * tail.startswith(b"r")))


def test_a_record_that_hadoop_alone_would_see_is_refused(tmp_path: Path) -> None:
    content = hostile.smuggled_field(hostile.java_object("java.net.URL"))
    directory = hostile.saved_model(tmp_path / "model", **{"fields__vocabulary__part-00002": content})
    with pytest.raises(ModelError, match="part-00002 is a damaged SequenceFile"):
        check(directory)


@pytest.mark.parametrize("name", ["a", "part-00001", "part-00000.gz", "a.crc", "part-00000 copy", "sub/part-00000"])
def test_a_second_file_of_metadata_is_refused(tmp_path: Path, name: str) -> None:
    directory = hostile.saved_model(tmp_path / "model")
    (directory / "metadata" / name).parent.mkdir(exist_ok=True)
    (directory / "metadata" / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match="copy the model again from a source that you trust"):
        check(directory)


def test_what_spark_hides_is_no_second_file(tmp_path: Path) -> None:
    directory = hostile.saved_model(tmp_path / "model")
    for name in ("_SUCCESS", ".part-00000.crc", "._SUCCESS.crc"):
        (directory / "metadata" / name).write_bytes(b"x")
    check(directory)


@pytest.mark.parametrize(
    "text", ['{"class": "a"}\n{"class": "b"}\n', '{"class": "a", "class": "b"}\n', "[]\n", "{\n}\n", ""]
)
def test_metadata_that_could_be_read_in_two_ways_are_refused(tmp_path: Path, text: str) -> None:
    directory = hostile.saved_model(tmp_path / "model")
    (directory / "metadata" / "part-00000").write_text(text)
    with pytest.raises(ModelError, match="metadata/part-00000 is not"):
        check(directory)


@pytest.mark.parametrize(
    ("kind", "metadata", "said"),
    [
        (
            "org.apache.spark.ml.feature.SQLTransformer",
            {},
            "has a stage of class org.apache.spark.ml.feature.SQLTransformer",
        ),
        (saved_model_check.PIPELINE, {}, "has a stage of class org.apache.spark.ml.PipelineModel"),
        ("os.system", {"paramMap": {"stageUids": ["a"], "language": "Python"}}, "a stage written in Python"),
        ("x", {"paramMap": {"stageUids": ["x/../../elsewhere"]}}, "does not list its stages"),
        ("x", {"paramMap": {}}, "does not list its stages"),
    ],
)
def test_a_pipeline_with_another_stage_is_refused(tmp_path: Path, kind: str, metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check(hostile.pipeline(tmp_path / "pipeline", kind, **metadata))


def test_an_archive_that_would_be_unpacked_elsewhere_is_refused(tmp_path: Path) -> None:
    directory = hostile.saved_model(tmp_path / "model", bert_classification_onnx=repacked({"../../out": b"x"}))
    with pytest.raises(ModelError, match="whose path leads out of the archive"):
        check(directory)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**26))
    (directory / "bert_classification_onnx").write_bytes(bomb.getvalue())
    with pytest.raises(ModelError, match="unpacks to far more than its own size"):
        check(directory)


RULES = next(sparknlp_field_files.read_records(TOKENIZER.read_bytes(), "here"))


@pytest.mark.parametrize("name", sorted(java_stream_check.ALLOWED))
def test_an_allowed_class_has_to_be_written_as_it_writes_itself(name: str) -> None:
    """An allowed class must be refused if its flags are not the usual ones: Java might then read the rest differently."""
    for flags in {0, 1, 2, 3, 4, 12} - {java_stream_check.ALLOWED[name]}:
        with pytest.raises(ModelError, match="contains a Java object"):
            java_stream_check.check_stream(hostile.java_object(name, flags), "here")


def test_the_function_of_another_class_is_refused() -> None:
    java_stream_check.check_stream(RULES, "here")
    reference, other = b"vq\0~\0\2", b"com.johnsnowlabs.nlp.util.regex.RegexRule"
    assert reference in RULES
    described = b"vr" + struct.pack(">H", len(other)) + other + bytes(8) + b"\2\0\0xp"
    with pytest.raises(ModelError, match=r"contains a Java object \(java\.lang\.Class\)"):
        java_stream_check.check_stream(RULES.replace(reference, described, 1), "here")


@pytest.mark.parametrize("at", [*range(0, len(RULES), 97), len(RULES) - 1])
def test_no_byte_of_a_stream_can_be_missing(at: int) -> None:
    with pytest.raises(ModelError):
        java_stream_check.check_stream(RULES[:at], "here")


def test_a_stream_may_not_nest_without_end() -> None:
    description = b"ur\0\x13[Ljava.lang.Object;" + bytes(8) + b"\2\0\0xp"
    deep = b"\xac\xed\0\5" + description + b"\0\0\0\1" + b"uq\0~\0\0\0\0\0\1" * 5000 + b"p"
    with pytest.raises(ModelError, match="not a readable stream of Java objects"):
        java_stream_check.check_stream(deep, "here")
