import io
import json
import stat
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entitymill.errors import ModelError
from entitymill.recognition import model_loading_limits
from entitymill_models import sparknlp_saved
from entitymill_models.sparknlp_saved import Allowance
from unit import tiny
from unit.damage import repacked


def test_a_saved_onnx_model_is_read(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = sparknlp_saved.read_saved_model(tiny.saved_onnx(tmp_path / "saved"), scratch, "here")

    assert (found.labels, found.casing, found.max_length) == (tuple(tiny.LABELS), "uncased", 48)
    np.testing.assert_allclose(tiny.logits(found.network, "bert"), tiny.expected_logits("bert"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "org.apache.spark.ml.PipelineModel"}, "is a saved PipelineModel; supported classes are DistilBert"),
        ({"paramMap": {}}, "saved with engine tensorflow"),
        ({"paramMap": {"engine": "onnx", "maxSentenceLength": "48"}}, "lacks maxSentenceLength"),
        ({"paramMap": {"engine": "onnx", "maxSentenceLength": True}}, "lacks maxSentenceLength"),
        ({"paramMap": {"engine": "openvino"}}, "has no bert_classification_openvino"),
        ({"paramMap": []}, "contains no parameters"),
    ],
)
def test_saved_models_that_cannot_be_read_say_why(tmp_path: Path, change: dict[str, object], message: str) -> None:
    directory = tiny.saved_onnx(tmp_path / "saved")
    file = directory / "metadata" / "part-00000"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        sparknlp_saved.read_saved_model(directory, tmp_path, "here")


def test_a_vocabulary_with_a_part_missing_has_gaps(tmp_path: Path) -> None:
    directory = tiny.saved_onnx(tmp_path / "saved")
    (directory / "fields" / "vocabulary" / "part-00001").unlink()
    with pytest.raises(ModelError, match="vocabulary of here must be numbered 0, 1, 2"):
        sparknlp_saved.read_saved_model(directory, tmp_path, "here")


def test_a_directory_in_the_place_of_a_part_is_refused(tmp_path: Path) -> None:
    directory = tiny.saved_onnx(tmp_path / "saved")
    (directory / "fields" / "labels" / "part-00002").mkdir()
    with pytest.raises(ModelError, match="part-00002 cannot be read"):
        sparknlp_saved.read_saved_model(directory, tmp_path, "here")


@given(st.data())
@settings(max_examples=60)
def test_a_saved_model_damaged_anywhere_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory, scratch = tmp_path_factory.mktemp("saved"), tmp_path_factory.mktemp("scratch")
    tiny.saved_onnx(directory)
    file = data.draw(st.sampled_from(sorted(path for path in directory.rglob("*") if path.is_file())))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert"])):
        case "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[at:]
        case "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=12))
    file.write_bytes(content)
    try:
        found = sparknlp_saved.read_saved_model(directory, scratch, "here")
    except ModelError:
        return
    assert len(found.labels) == 5 and found.vocabulary is not None


FILES = {"metadata/part-00000": b'{"class": "x"}\n' * 20, "network": bytes(range(256)) * 8, "empty": b""}


packed = partial(repacked, method=zipfile.ZIP_DEFLATED)


def unpack(content: bytes, directory: Path) -> Path:
    file, into = directory / "model.zip", directory / "into"
    file.write_bytes(content)
    into.mkdir()
    sparknlp_saved.unpack(file, into, "model.zip", Allowance.for_archive(file))
    return into


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    into = unpack(packed(FILES), tmp_path)
    assert {name: (into / name).read_bytes() for name in FILES} == FILES


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "..\\out", "C:/out"])  # noqa: S108
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="leads out of the archive"):
        unpack(packed({name: b"x"}), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "model.zip"]
    assert not list((tmp_path / "into").iterdir())


def test_a_link_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match="link"):
        unpack(buffer.getvalue(), tmp_path)


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    content = packed({"zeros": bytes(64 * 2**20)})
    with pytest.raises(ModelError, match="far more than its own size"):
        unpack(content, tmp_path)
    assert (tmp_path / "into" / "zeros").stat().st_size < 2**20 + model_loading_limits.MAX_UNPACKED_RATIO * len(content)


def test_a_member_that_is_said_to_begin_at_the_end_is_refused(tmp_path: Path) -> None:
    content = bytearray(packed({"a": b"x"}))
    entry = content.index(b"PK\x01\x02")
    content[entry + 42 : entry + 46] = (len(content) - 10).to_bytes(4, "little")
    with pytest.raises(ModelError, match="not a readable zip archive"):
        unpack(bytes(content), tmp_path)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_loading_limits, "MAX_UNPACKED_FILES", 2)
    with pytest.raises(ModelError, match="more than 2 files"):
        unpack(packed(FILES), tmp_path)


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(repacked(FILES, data.draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                content[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[max(at, 1) :]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=12))
    directory = tmp_path_factory.mktemp("damaged")
    try:
        into = unpack(bytes(content), directory)
    except ModelError:
        return
    assert sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) <= 2**20
