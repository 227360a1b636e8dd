"""The OpenVINO network: reading, checking it against vocabulary and labels, compiling it; what depends on what in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import passes

from entitymill.errors import ModelError
from entitymill.recognition.model_loading import loading
from entitymill.recognition.tagger import Precision, bundle

INPUTS = ("input_ids", "attention_mask")
FEWEST_POSITIONS = 8
"""A table of fewer rows is of something else."""
CACHED_SHAPES = 64
"""Primitives OpenVINO keeps per compiled model; enough for the shapes that `packing` makes."""


def read(xml: Path, weights: Path, where: str) -> ov.Model:
    """Read an OpenVINO network, its weights mapped into memory and shared between processes.

    Raises:
        ModelError: the files are not an OpenVINO network.
    """
    with loading(f"{where}/{bundle.NETWORK}"):
        try:
            return ov.Core().read_model(xml, weights)
        except RuntimeError as error:
            raise ModelError(
                f"{bundle.NETWORK} of the model at {where} is not an OpenVINO network that can be read: prepare it again."
            ) from error


def check(model: ov.Model, *, vocabulary: dict[str, int], labels: int, where: str) -> None:
    """Check that a network has the inputs of a token classifier and fits its vocabulary and labels.

    OpenVINO takes piece ids beyond the embedding table without complaint and returns nonsense.

    Raises:
        ModelError: it does not fit.
    """
    names = {name for port in model.inputs for name in port.get_names()}
    if names != set(INPUTS):
        raise ModelError(f"The model at {where} takes {sorted(names)}, expected {list(INPUTS)}.")
    outputs = model.output(0).get_partial_shape()
    width = outputs[len(outputs) - 1]
    if width.is_static and width.get_length() != labels:
        raise ModelError(f"The model at {where} scores {width.get_length()} tags, its labels.json lists {labels}.")
    rows = embedding_shape(model)[0]
    if max(vocabulary.values()) >= rows:
        raise ModelError(
            f"The vocabulary of the model at {where} has piece ids up to {max(vocabulary.values())}, "
            f"its embedding table has {rows} rows: they belong to different models."
        )


def embedding_shape(model: ov.Model) -> tuple[int, int]:
    """Rows and width of the word embedding: the table that `input_ids` picks rows of.

    Raises:
        ModelError: there is no such table.
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
    raise ModelError("The network has no word embedding that input_ids selects from.")


def check_window(model: ov.Model, max_length: int, where: str) -> None:
    """Check that a network has a position for each piece of the longest window.

    Raises:
        ModelError: it has fewer.
    """
    found = positions(model)
    if found is not None and max_length > found:
        raise ModelError(
            f"The manifest of the model at {where} says max_length {max_length}, its {bundle.NETWORK} has positions for "
            f"{found} pieces: prepare the model again."
        )


def positions(model: ov.Model) -> int | None:
    """Rows of the position embedding, or None if there is no such table.

    OpenVINO takes positions beyond it without complaint. It is a table as wide as the word embedding, and the smallest,
    token types apart, which are folded or at most a few.

    Raises:
        ModelError: there is no word embedding.
    """
    width = embedding_shape(model)[1]
    rows = []
    for node in model.get_ops():
        if node.get_type_name() == "Gather":
            table = node.input(0).get_partial_shape()
            if table.is_static and table.rank.get_length() == 2 and table[1].get_length() == width:
                rows.append(table[0].get_length())
    return min((count for count in rows if count >= FEWEST_POSITIONS), default=None)


def compile_model(model: ov.Model, precision: Precision, threads: int) -> ov.CompiledModel:
    """Compile for one task: one stream, no more threads than the task has cores.

    Args:
        model: a checked network, of weights that run in the precision (`check_precision`).
        precision: of execution. int8 without calibration quantizes activations per piece, so neighbours do not matter.
        threads: of inference.
    """
    options = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Pinned, every worker of a host would sit on the same first core.
        "ENABLE_CPU_PINNING": False,
        **precision_properties(precision, embedding_shape(model)[1]),
        "CPU_RUNTIME_CACHE_CAPACITY": CACHED_SHAPES,
    }
    if precision != "int8":
        without_quantized_activations(model)
        unfold(model)
    return ov.Core().compile_model(model, "CPU", options)


def without_quantized_activations(model: ov.Model) -> None:
    """Take a calibrated network's activations back to floats: its 8-bit weights alone stay."""
    needs = dependencies(model)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and needs[source(node.input(0))]:
            node.output(0).replace(node.input_value(0))


def unfold(model: ov.Model) -> None:
    """Make the 8-bit weights of matrix products floats once, at load: left compressed they are unpacked at every call.

    The embeddings stay as they are: of these a call unpacks no more than the rows it picks.
    """
    needs = dependencies(model)
    ports = [
        port
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        for port in node.inputs()
        if not needs[source(port)] and port.get_source_output().get_node().get_type_name() != "Constant"
    ]
    if ports:
        # Of a part of the network, which shares its nodes with the whole: what is folded there is folded here.
        folding = passes.Manager()
        folding.register_pass(passes.ConstantFolding())
        folding.run_passes(ov.Model([port.get_source_output() for port in ports], [], "weights"))


def precision_properties(precision: Precision, group: int) -> dict[str, str | int]:
    """The properties by which OpenVINO runs a network in a precision.

    Args:
        precision: of execution.
        group: activations that share a scale in int8, where the network has not fixed their ranges itself.
    """
    return {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "f32" else "bf16",
        # On by default for 8-bit weights, whatever the precision hint; without effect on a calibrated network.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group if precision == "int8" else 0,
    }


def dependencies(model: ov.Model) -> dict[str, frozenset[str]]:
    """Friendly name of every node -> the inputs whose values, not only shapes, it depends on."""
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


def source(port: ov.Input) -> str:
    """Friendly name of the node that a port reads."""
    return str(port.get_source_output().get_node().get_friendly_name())


def evaluate(
    model: ov.Model, outputs: Sequence[ov.Output], inputs: dict[str, NDArray[np.int64]]
) -> list[NDArray[np.generic]]:
    """The values of some outputs inside a network, computed in f32.

    Args:
        model: the network; it stays as it is.
        outputs: of its nodes.
        inputs: name -> value, of all inputs.
    """
    part = ov.Model(list(outputs), model.get_parameters(), "part")
    found = ov.Core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)
    return [np.array(found[place]) for place in range(len(outputs))]
