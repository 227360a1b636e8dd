"""Functions for the tiny models of tests/golden, and for models in other formats that are made from them without Spark."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import openvino as ov

from entitymill_models import sparknlp_field_files, sparknlp_saved

TINY = Path(__file__).parents[1] / "golden" / "tiny_models"
EXPECTED = json.loads((TINY / "expected.json").read_text(encoding="utf8"))
SENTENCES: list[list[str]] = EXPECTED["sentences"]
KINDS = ("distilbert", "bert", "roberta", "xlm-roberta")
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def logits(network: ov.Model, kind: str) -> np.ndarray:
    """Return the logits for the batch of which expected.json has the logits of transformers."""
    batch = {name: np.array(EXPECTED["models"][kind][name], np.int64) for name in ("input_ids", "attention_mask")}
    return ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)[0]


def expected_logits(kind: str) -> np.ndarray:
    return np.array(EXPECTED["models"][kind]["logits"], np.float32)


def copied(kind: str, into: Path) -> Path:
    return Path(shutil.copytree(TINY / kind, into / kind))


def change_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def onnx_directory(into: Path) -> Path:
    """Write the tiny BERT as an ONNX directory."""
    into.mkdir()
    shutil.copy(TINY / "bert.onnx", into / "model.onnx")
    shutil.copy(TINY / "bert" / "vocab.txt", into / "vocab.txt")
    (into / "labels.json").write_text(json.dumps(LABELS))
    return into


def saved_onnx(into: Path, **parameters: object) -> Path:
    """Write the tiny BERT in the format in which Spark NLP saves it with the ONNX engine."""
    vocabulary = (TINY / "bert" / "vocab.txt").read_text(encoding="utf8").split("\n")[:-1]
    for name, values in (("vocabulary", vocabulary), ("labels", LABELS)):
        field = into / "fields" / name
        field.mkdir(parents=True)
        pairs = [(value, number) for number, value in enumerate(values)]
        for part in (0, 1):
            content = sparknlp_field_files.write_records([sparknlp_field_files.write_pairs(pairs[part::2])])
            (field / f"part-0000{part}").write_bytes(content)
    (into / "metadata").mkdir()
    chosen = {"engine": "onnx", "caseSensitive": False, "maxSentenceLength": 48, **parameters}
    defaults = {"engine": "tensorflow", "caseSensitive": True, "maxSentenceLength": 128}
    metadata = {
        "class": f"{sparknlp_saved.PACKAGE}.BertForTokenClassification",
        "paramMap": chosen,
        "defaultParamMap": defaults,
    }
    (into / "metadata" / "part-00000").write_text(json.dumps(metadata) + "\n")
    with zipfile.ZipFile(into / "bert_classification_onnx", "w") as packed:
        packed.write(TINY / "bert.onnx", "abcdefmodel.onnx")
    return into
