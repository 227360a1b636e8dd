import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entitymill.errors import ModelError
from entitymill.models import sparknlp_saved
from unit import tiny


def test_a_saved_onnx_model_is_read(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = sparknlp_saved.read(tiny.saved_onnx(tmp_path / "saved"), scratch, "here")

    assert (found.labels, found.casing, found.max_length) == (tuple(tiny.LABELS), "uncased", 48)
    np.testing.assert_allclose(tiny.logits(found.network, "bert"), tiny.expected_logits("bert"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "org.apache.spark.ml.PipelineModel"}, "is a saved PipelineModel; readable are DistilBert"),
        ({"paramMap": {}}, "saved with engine tensorflow"),
        ({"paramMap": {"engine": "onnx", "maxSentenceLength": "48"}}, "lacks maxSentenceLength"),
        ({"paramMap": {"engine": "onnx", "maxSentenceLength": True}}, "lacks maxSentenceLength"),
        ({"paramMap": {"engine": "openvino"}}, "has no bert_classification_openvino"),
        ({"paramMap": []}, "holds no parameters"),
    ],
)
def test_saved_models_that_cannot_be_read_say_why(tmp_path: Path, change: dict[str, object], message: str) -> None:
    directory = tiny.saved_onnx(tmp_path / "saved")
    file = directory / "metadata" / "part-00000"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        sparknlp_saved.read(directory, tmp_path, "here")


def test_a_vocabulary_with_a_part_missing_has_gaps(tmp_path: Path) -> None:
    directory = tiny.saved_onnx(tmp_path / "saved")
    (directory / "fields" / "vocabulary" / "part-00001").unlink()
    with pytest.raises(ModelError, match="vocabulary of here is empty or numbered with gaps"):
        sparknlp_saved.read(directory, tmp_path, "here")


def test_a_directory_in_the_place_of_a_part_is_refused(tmp_path: Path) -> None:
    directory = tiny.saved_onnx(tmp_path / "saved")
    (directory / "fields" / "labels" / "part-00002").mkdir()
    with pytest.raises(ModelError, match="part-00002 cannot be read"):
        sparknlp_saved.read(directory, tmp_path, "here")


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
        found = sparknlp_saved.read(directory, scratch, "here")
    except ModelError:
        return
    assert len(found.labels) == 5 and found.vocabulary is not None
