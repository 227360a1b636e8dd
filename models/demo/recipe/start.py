"""Load the weights of a model bundle into PyTorch, to continue training from them: `load_bundle`, `read_weights`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from encoder import CasedEmbedding, build
from transformers import DistilBertForTokenClassification

from entitymill.recognition.tagger import bundle

WORDS = "distilbert.embeddings.word_embeddings"


def load_bundle(model: DistilBertForTokenClassification, directory: Path) -> None:
    """Load the weights of a bundle that this recipe exported earlier into `model`, an untrained `encoder.build()`.

    8-bit matrices are converted to floats. The embedding table is split into embeddings of words and of casings again.
    """
    network = ov.Core().read_model(directory / bundle.NETWORK)
    state = _matrices(network) | _vectors(network)
    table = torch.tensor(state.pop(f"{WORDS}.weight"))
    missing, strange = model.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=False)
    if strange or {name for name in missing if not name.startswith(WORDS)}:
        raise SystemExit(f"{directory} is no export of this recipe: {strange or missing}")
    embedding = model.distilbert.embeddings.word_embeddings
    if isinstance(embedding, CasedEmbedding):
        _unfold(embedding, table)
    else:
        embedding.weight.data.copy_(table)


def read_weights(path: Path, archive: Path | None) -> dict[str, torch.Tensor]:
    """Return weights by the names of parameters, from a file of train.py or from the directory of a bundle.

    archive is the Java archive of the weights' encoder; None for all-MiniLM-L6-v2.
    """
    if path.is_file():
        return torch.load(path, weights_only=True)
    model, _ = build(archive)
    load_bundle(model, path)
    return {name: value.detach() for name, value in model.named_parameters()}


def _matrices(network: ov.Model) -> dict[str, np.ndarray]:
    """Return the network's 8-bit matrices as floats, by the names of their parameters."""
    constants = {node.get_friendly_name(): node for node in network.get_ops() if node.get_type_name() == "Constant"}
    found = {}
    for name, node in constants.items():
        match = re.search(r"(distilbert\..*|classifier\.)weight$", name)
        if match and f"{name}/scale" in constants:
            found[match.group(0)] = node.data.astype(np.float32) * constants[f"{name}/scale"].data.astype(np.float32)
    return found


def _vectors(network: ov.Model) -> dict[str, np.ndarray]:
    """Return biases and layer norms: constants without useful names, recognized by the operations that use them."""
    found = {}
    for node in network.get_ops():
        match = re.search(r"model\.((?:distilbert\.|classifier).*?)/aten::(linear|layer_norm)", node.get_friendly_name())
        # A layer norm multiplies by its weight and adds its bias; in a linear layer, Multiply applies a matrix's scales.
        kinds = {"layer_norm": {"Multiply": "weight", "Add": "bias"}, "linear": {"Add": "bias"}}
        part = kinds[match.group(2)].get(node.get_type_name()) if match else None
        if part is None:
            continue
        for port in node.inputs():
            constant = port.get_source_output().get_node()
            if constant.get_type_name() == "Constant" and constant.get_element_type() == ov.Type.f32:
                found[f"{match.group(1)}.{part}"] = constant.data.reshape(-1).copy()
    return found


def _unfold(embedding: CasedEmbedding, table: torch.Tensor) -> None:
    """Split an embedding table, in which each row is the sum of a word's vector and a casing's vector.

    A casing's vector is the mean difference to the lower-case rows. A word's vector is the mean of its rows, after
    subtracting the casings' vectors.
    """
    base, casing = embedding.base, embedding.casing
    plain = table[: embedding.word.num_embeddings]
    with torch.no_grad():
        for case in (1, 2):
            chosen = casing == case
            embedding.case.weight[case] = (table[chosen] - plain[base[chosen]]).mean(0)
        count = torch.zeros(len(plain), 1).index_add_(0, base, torch.ones(len(base), 1))
        total = torch.zeros_like(plain).index_add_(0, base, table - embedding.case.weight[casing])
        embedding.word.weight.copy_(total / count)
