"""Read, check, change and compile an OpenVINO network, and find out which of its inputs each node depends on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import passes

from entitymill.errors import ModelError
from entitymill.recognition.model_loading_limits import convert_loading_errors
from entitymill.recognition.tagger import Precision, bundle

INPUTS = ("input_ids", "attention_mask")
MIN_POSITIONS = 8
"""Minimum number of rows of a position embedding (see `count_positions`): a table with a vector for each position."""
MAX_CACHED_SHAPES = 64
"""Maximum number of primitives (code for one input shape) that OpenVINO caches per compiled model. The packed batches of
`sequence_packing` have fewer different shapes."""


def read_network(xml: Path, weights: Path, where: str) -> ov.Model:
    """Return the OpenVINO network that two files contain; raise a ModelError if they cannot be read as a network.

    `where` is the bundle's path or URI, for error messages. The weights are memory-mapped, so processes on one
    machine share them.
    """
    with convert_loading_errors(f"{where}/{bundle.NETWORK}"):
        return ov.Core().read_model(xml, weights)


def check_signature(model: ov.Model, *, vocabulary: dict[str, int], labels: int, where: str) -> None:
    """Raise a ModelError unless a network has the inputs of a token classifier and fits its vocabulary and tags.

    OpenVINO accepts ids of pieces (subwords) beyond the embedding table, and then returns wrong results without an error. So
    the ids in the vocabulary are checked here. The number of tags is checked only if the network has a fixed number of tags.

    Args:
        vocabulary: dict from each piece to its id.
        labels: number of the model's tags.
        where: path or URI of the bundle, for error messages.
    """
    names = {name for port in model.inputs for name in port.get_names()}
    if names != set(INPUTS):
        raise ModelError(
            f"The network of the model at {where} has inputs {sorted(names)}, but a token classifier has {list(INPUTS)}. "
            "Prepare the model again."
        )
    outputs = model.output(0).get_partial_shape()
    width = outputs[len(outputs) - 1]
    if width.is_static and width.get_length() != labels:
        raise ModelError(
            f"The network of the model at {where} scores {width.get_length()} tags, but its labels.json lists {labels}: the "
            "numbers must be equal. Prepare the model again."
        )
    rows = get_embedding_shape(model)[0]
    if max(vocabulary.values()) >= rows:
        raise ModelError(
            f"The vocabulary of the model at {where} has piece ids up to {max(vocabulary.values())}, but the network's "
            f"embedding table has only {rows} rows: they belong to different models. Prepare the model again."
        )


def get_embedding_shape(model: ov.Model) -> tuple[int, int]:
    """Return the number of rows and of columns of the word embedding, the table from which `input_ids` selects rows.

    Raise a ModelError if the network has no such table.
    """
    waiting = list(model.input("input_ids").get_target_inputs())
    while waiting:
        port = waiting.pop(0)
        node = port.get_node()
        if node.get_type_name() == "Gather" and port.get_index() == 1:
            shape = node.input(0).get_partial_shape()
            return shape[0].get_length(), shape[1].get_length()
        if node.get_type_name() == "Convert":
            waiting += node.output(0).get_target_inputs()
    raise ModelError(
        "The network is not a supported token classifier: it has no table of word embeddings for input_ids. Use another "
        "model."
    )


def check_max_length(model: ov.Model, max_length: int, where: str) -> None:
    """Raise a ModelError if a network has positions for fewer than `max_length` pieces, according to `count_positions`.

    `where` is the bundle's path or URI, for the error message.
    """
    available = count_positions(model)
    if available is not None and max_length > available:
        raise ModelError(
            f"The manifest of the model at {where} says max_length {max_length}, but its {bundle.NETWORK} has positions for "
            f"only {available} pieces. Prepare the model again."
        )


def count_positions(model: ov.Model) -> int | None:
    """Return the number of rows of a network's position embedding; no sentence may have more pieces than this.

    OpenVINO accepts longer sentences without an error, so callers must check the length. RoBERTa's real limit is lower,
    because some rows are never used. The smallest table that is as wide as the word embedding and has at least MIN_POSITIONS
    rows is taken for the position embedding. (The embedding of token types has fewer rows, or was folded into a constant.)
    If the network has no position embedding, the word embedding is taken for it. If no table has enough rows, return None.

    Raise a ModelError if the network has no word embedding.
    """
    width = get_embedding_shape(model)[1]
    rows = []
    for node in model.get_ops():
        if node.get_type_name() == "Gather":
            table = node.input(0).get_partial_shape()
            if table.is_static and table.rank.get_length() == 2 and table[1].get_length() == width:
                rows.append(table[0].get_length())
    return min((count for count in rows if count >= MIN_POSITIONS), default=None)


def compile_model(model: ov.Model, precision: Precision, threads: int) -> ov.CompiledModel:
    """Return a network compiled for one Spark task, with one inference stream.

    Unless the precision is int8, `model` is changed in place: activations are no longer quantized, and the compressed
    weights (8-bit or bf16) of matrix products become f32.

    Args:
        model: the network. Call `check_precision` before, because this function does not check the precision.
        precision: number format of the computation. In int8, the activations of a network that is not calibrated are
            quantized separately for each piece (subword). So the results of a sentence hardly depend on the other sentences
            in its batch.
        threads: number of threads for inference, at most the number of cores of the task.
    """
    options = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # With pinning, all workers of a machine would run on the same first core.
        "ENABLE_CPU_PINNING": False,
        **build_precision_properties(precision, get_embedding_shape(model)[1]),
        "CPU_RUNTIME_CACHE_CAPACITY": MAX_CACHED_SHAPES,
    }
    if precision != "int8":
        remove_activation_quantization(model)
        decompress_weights(model)
    return ov.Core().compile_model(model, "CPU", options)


def remove_activation_quantization(model: ov.Model) -> None:
    """Remove the quantization of activations, if any, from a network, in place; 8-bit weights are not changed."""
    dependencies = find_dependencies(model)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and dependencies[get_source_name(node.input(0))]:
            node.output(0).replace(node.input_value(0))


def decompress_weights(model: ov.Model) -> None:
    """Convert the compressed weights (8-bit or bf16) of matrix products to f32, in place, so that no inference has to.

    The embeddings remain compressed, because an inference converts only the rows that it selects.
    """
    dependencies = find_dependencies(model)
    ports = [
        port
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        for port in node.inputs()
        if not dependencies[get_source_name(port)] and port.get_source_output().get_node().get_type_name() != "Constant"
    ]
    if ports:
        # This part of the network shares its nodes with the complete network, so folding changes both.
        folding = passes.Manager()
        folding.register_pass(passes.ConstantFolding())
        folding.run_passes(ov.Model([port.get_source_output() for port in ports], [], "weights"))


def build_precision_properties(precision: Precision, group: int) -> dict[str, str | int]:
    """Return OpenVINO's properties for running a network in a precision, as a dict from names to values.

    In int8, the operations that are not quantized run in bf16, if the processor supports it.

    Args:
        group: number of activations that share a scale in int8; has no effect on a calibrated network.
    """
    return {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "f32" else "bf16",
        # By default, OpenVINO uses dynamic quantization for 8-bit weights, even if the hint is f32. This property does not
        # affect a calibrated network.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group if precision == "int8" else 0,
    }


def find_dependencies(model: ov.Model) -> dict[str, frozenset[str]]:
    """Return a dict from the name of each node to the names of the network inputs on which its output depends.

    A node does not depend on an input if it uses only the input's shape, not its values.
    """
    found: dict[str, frozenset[str]] = {}
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == "Parameter":
            found[name] = frozenset(node.output(0).get_names())
        elif kind == "ShapeOf":
            found[name] = frozenset()
        else:
            sources = [port.get_source_output().get_node().get_friendly_name() for port in node.inputs()]
            found[name] = frozenset().union(*(found[source] for source in sources))
    return found


def get_source_name(port: ov.Input) -> str:
    """Return the friendly name of the node whose output a port (an input of a node) reads."""
    return str(port.get_source_output().get_node().get_friendly_name())


def evaluate(
    model: ov.Model, outputs: Sequence[ov.Output], inputs: dict[str, NDArray[np.int64]]
) -> list[NDArray[np.generic]]:
    """Compute, in f32, the values of `outputs`, which belong to nodes inside a network; do not change the network.

    Args:
        inputs: dict from the name of every input of the network to its value.
    """
    part = ov.Model(list(outputs), model.get_parameters(), "part")
    values = ov.Core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)
    return [np.array(values[index]) for index in range(len(outputs))]
