"""Make models for benchmarks, with any DistilBERT's shape and random weights, because weights do not affect speed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov
import texts
from safetensors.numpy import save_file

from entitymill.recognition.tagger import bundle, network
from entitymill.recognition.tagger.inference import read_tokenizer
from entitymill.recognition.tagger.tokens_to_model_input import SPECIAL_PIECES, Encoder
from entitymill_models import huggingface, lower_precision
from entitymill_models import imported_classifier as parts_module

DEMO = texts.ROOT / "models" / "demo"
POSITIONS = 512
CALIBRATION_SENTENCES = 64
Kind = Literal["f32", "weights", "calibrated"]
"""How the model is stored: floats, 8-bit weights, or 8-bit weights and activations."""


@dataclass(frozen=True)
class Shape:
    """The sizes that determine the speed of an encoder."""

    layers: int
    width: int
    hidden: int
    heads: int = 12

    def operations(self, lengths: np.ndarray) -> float:
        """Return the number of arithmetic operations for sentences with these numbers of pieces, without padding."""
        dense = 2 * self.layers * (4 * self.width**2 + 2 * self.width * self.hidden)
        return float((lengths * dense + self.layers * 4 * self.width * lengths**2).sum())


BASE, TINY = Shape(6, 768, 3072), Shape(2, 48, 96)
"""The shape of DistilBERT-base, and a small one for smoke tests."""


def read_shape(directory: Path) -> Shape:
    """Return the shape of a bundle's network, by the sizes of its matrix products."""
    model = network.read_network(directory / bundle.NETWORK, directory / bundle.WEIGHTS, str(directory))
    width = network.get_embedding_shape(model)[1]
    products = Counter(_weight_shapes(model))
    hidden = max(max(shape) for shape in products)
    return Shape(products[width, width] // 4, width, hidden)


def _weight_shapes(model: ov.Model) -> list[tuple[int, ...]]:
    needs = network.find_dependencies(model)
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
    return [tuple(node.input(1).get_shape()) for node in products if not needs[network.get_source_name(node.input(1))]]


def write_random_model(directory: Path, shape: Shape, outside: float = 3.0) -> None:
    """Write a Hugging Face directory with random weights and the demo model's vocabulary and labels.

    Args:
        directory: the directory to create.
        shape: sizes of the network.
        outside: added to the logit of the tag O; the larger, the fewer mentions.
    """
    directory.mkdir()
    labels = bundle.read_tags(DEMO / bundle.LABELS)
    shutil.copy(DEMO / bundle.TOKENIZER, directory / bundle.TOKENIZER)
    vocabulary = len(json.loads((DEMO / bundle.TOKENIZER).read_text(encoding="utf8"))["model"]["vocab"])
    save_file(_tensors(shape, vocabulary, len(labels), outside), directory / "model.safetensors", {"format": "pt"})
    config = {
        "model_type": "distilbert",
        "architectures": ["DistilBertForTokenClassification"],
        "activation": "gelu",
        "dim": shape.width,
        "hidden_dim": shape.hidden,
        "n_heads": shape.heads,
        "n_layers": shape.layers,
        "max_position_embeddings": POSITIONS,
        "vocab_size": vocabulary,
        "sinusoidal_pos_embds": False,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    (directory / "config.json").write_text(json.dumps(config))


def _tensors(shape: Shape, vocabulary: int, labels: int, outside: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary, shape.width),
        "embeddings.position_embeddings.weight": (POSITIONS, shape.width),
    }
    linear: dict[str, tuple[int, ...]] = {
        f"attention.{part}_lin": (shape.width, shape.width) for part in ("q", "k", "v", "out")
    }
    linear |= {"ffn.lin1": (shape.hidden, shape.width), "ffn.lin2": (shape.width, shape.hidden)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(shape.layers):
        inside = f"transformer.layer.{layer}"
        sizes |= {f"{inside}.{name}.weight": size for name, size in linear.items()}
        sizes |= {f"{inside}.{name}.bias": size[:1] for name, size in linear.items()}
        norms += [f"{inside}.{name}" for name in ("sa_layer_norm", "output_layer_norm")]
    tensors = {f"distilbert.{name}": rng.normal(0, 0.02, size).astype(np.float32) for name, size in sizes.items()}
    for name in norms:
        tensors[f"distilbert.{name}.weight"] = np.ones(shape.width, np.float32)
        tensors[f"distilbert.{name}.bias"] = np.zeros(shape.width, np.float32)
    # Scaled so that the logits spread as with width 768.
    tensors["classifier.weight"] = rng.normal(0, 0.02 * (768 / shape.width) ** 0.5, (labels, shape.width)).astype(np.float32)
    tensors["classifier.bias"] = np.eye(labels, dtype=np.float32)[0] * outside
    return tensors


def make_bundle(saved: Path, directory: Path, kind: Kind) -> Path:
    """Make a bundle from a Hugging Face directory, without measuring its accuracy, which is meaningless here."""
    found = huggingface.read_directory(saved, str(saved))
    directory.mkdir()
    manifest = {
        "name": f"random {kind}",
        "source": "random weights",
        "licence": "none",
        "casing": found.casing,
        "max_length": POSITIONS,
        "precision": "f32" if kind == "f32" else "int8",
        "calibrated": kind == "calibrated",
    }
    if kind != "f32":
        feeds = _calibration_inputs(saved) if kind == "calibrated" else []
        found = replace(found, network=lower_precision.convert_precision(found.network, "int8", feeds))
    parts_module.write_parts(found, directory)
    bundle.write_manifest(directory, manifest)
    return directory


def _calibration_inputs(saved: Path) -> list[dict[str, np.ndarray]]:
    """Return sentences as inputs of the network."""
    manifest, files = bundle.read_directory(DEMO)
    encoder = Encoder(read_tokenizer({**files, bundle.TOKENIZER: saved / bundle.TOKENIZER}, manifest), POSITIONS)
    feeds = []
    for tokens in texts.sentences(CALIBRATION_SENTENCES):
        pieces = encoder.encode(tokens).ids[: POSITIONS - SPECIAL_PIECES]
        ids = np.array([[encoder.cls_id, *pieces, encoder.sep_id]], np.int64)
        feeds.append(dict(zip(network.INPUTS, (ids, np.ones_like(ids)), strict=True)))
    return feeds
