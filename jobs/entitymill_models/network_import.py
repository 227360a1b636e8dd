"""Read networks from ONNX or OpenVINO files, and give them the inputs and the output that this program expects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from entitymill.errors import ModelError
from entitymill.recognition.model_loading_limits import convert_loading_errors
from entitymill.recognition.tagger.network import INPUTS, count_positions
from entitymill_models import labels_and_tokenizer_files
from entitymill_models.imported_classifier import Casing, Parts
from entitymill_models.labels_and_tokenizer_files import MAX_PIECES, read_max_length

SEGMENTS = "token_type_ids"


def read_directory(directory: Path, where: str, casing: Casing | None = None) -> Parts:
    """Read a model from a directory that contains one network, a tokenizer and a list of tags.

    The network is one *.onnx file or, if there is none, one *.xml file with its *.bin file. *.xml files with "tokenizer" in
    their names are ignored. The tokenizer and the tags are in the same directory or in its folder assets/.

    Args:
        where: path of the model, for error messages.
        casing: the casing that the user specified, or None to read it from the tokenizer's files.

    Raises:
        ModelError: a file is missing or damaged, there are several networks, or the network is not a token classifier.
        SettingsError: `casing` is None although no file states the casing, or `casing` contradicts the tokenizer.
    """
    onnx, xml = sorted(directory.glob("*.onnx")), sorted(directory.glob("*.xml"))
    networks = onnx or [path for path in xml if "tokenizer" not in path.name]
    if len(networks) != 1:
        raise ModelError(
            f"{where} contains {len(networks)} networks, but must contain exactly one (*.onnx, or *.xml without "
            "tokenizer in its name): add the network, or move the others elsewhere."
        )
    network = read_network(networks[0], None if onnx else networks[0].with_suffix(".bin"), where)
    labels = labels_and_tokenizer_files.read_tags(directory, where)
    tokenizer = labels_and_tokenizer_files.read_tokenizer(directory, where, casing)
    network = normalize_inputs_and_output(network, len(labels), where)
    limit = count_positions(network)
    return Parts(
        network=network,
        labels=labels,
        tokenizer=tokenizer.tokenizer,
        vocabulary=tokenizer.vocabulary,
        casing=tokenizer.casing,
        max_length=min(read_max_length(directory), limit or MAX_PIECES),
        source="an ONNX network" if onnx else "an OpenVINO network",
        limit=limit,
    )


def read_network(file: Path, weights: Path | None, where: str) -> ov.Model:
    """Read a network with OpenVINO; raise ModelError if a file is missing or cannot be read.

    `file` is the *.onnx or *.xml file, and `weights` the *.bin file that belongs to an *.xml file; None for *.onnx.
    """
    for path in (file, weights):
        if path is not None and not path.is_file():
            raise ModelError(f"{where} has no {path.name}: copy the model again.")
    core = ov.Core()
    with convert_loading_errors(f"{where}/{file.name}"):
        try:
            return core.read_model(file) if weights is None else core.read_model(file, weights)
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{file.name} of {where} is not a network that OpenVINO can read: copy the model again."
            ) from error


def normalize_inputs_and_output(network: ov.Model, labels: int, where: str) -> ov.Model:
    """Give a network the inputs and the output that this program expects, and return the changed network.

    The inputs become input_ids and attention_mask, int64, shape [batch, length] of any size. An input token_type_ids is
    replaced by zeros. The logits become the only output, float32, shape [batch, length, tags]; other outputs are removed.

    Args:
        network: the network, which is changed and must not be used again.
        labels: number of tags that the network predicts.
        where: path of the model, for error messages.

    Raises:
        ModelError: an input is missing, unknown, or of a fixed size; or no output, or more than one, can be the logits.
    """
    inputs = {name: port for port in network.inputs for name in port.get_names() if name in (*INPUTS, SEGMENTS)}
    if len(inputs) != len(network.inputs) or not set(INPUTS) <= set(inputs):
        names = sorted(name for port in network.inputs for name in port.get_names())
        raise ModelError(
            f"The network of {where} has the inputs {names}, but must have {list(INPUTS)}, with or without {SEGMENTS}: "
            "export it again."
        )
    logits = _find_logits(network, labels, where)
    try:
        network.reshape({port: ov.PartialShape([-1, -1]) for port in network.inputs})
        new_inputs = {name: ops.parameter([-1, -1], np.int64, name=name) for name in INPUTS}
        for name, node in new_inputs.items():
            node.output(0).get_tensor().set_names({name})
        zeros = ops.broadcast(ops.constant(np.int64(0)), ops.shape_of(new_inputs[INPUTS[0]], "i64"))
        for name, port in inputs.items():
            new, old = new_inputs.get(name, zeros), port.get_node()
            if old.get_element_type() != ov.Type.i64:
                new = ops.convert(new, old.get_element_type().to_string())
            for target in old.output(0).get_target_inputs():
                target.replace_source_output(new.output(0))
        scores = logits.get_node().input_value(0)
        # Exporters may have given the name "logits" to this tensor, and names must be unique.
        scores.get_tensor().set_names(set())
        result = ops.result(ops.convert(scores, "f32") if scores.get_element_type() != ov.Type.f32 else scores)
        result.output(0).get_tensor().set_names({"logits"})
        rebuilt = ov.Model([result], list(new_inputs.values()), "token_classifier")
        rebuilt.validate_nodes_and_infer_types()
    except RuntimeError as error:
        raise ModelError(
            f"The network of {where} accepts only a fixed batch size or sequence length: export it with dynamic axes."
        ) from error
    shape = rebuilt.output(0).get_partial_shape()
    if shape.rank.get_length() != 3 or shape[0].is_static or shape[1].is_static:
        raise ModelError(
            f"The network of {where} accepts only a fixed batch size or sequence length: export it with dynamic axes."
        )
    return rebuilt


def _find_logits(network: ov.Model, labels: int, where: str) -> ov.Output:
    """Return the network's output of shape [batch, length, labels]; if several have this shape, the one named logits.

    `labels` is the number of tags. An output whose last dimension is dynamic also counts. Raise ModelError if no output has
    this shape, or several have it and not exactly one of them is named logits.
    """
    shaped = []
    for port in network.outputs:
        shape = port.get_partial_shape()
        if (
            shape.rank.is_static
            and shape.rank.get_length() == 3
            and (shape[2].is_dynamic or shape[2].get_length() == labels)
        ):
            shaped.append(port)
    named = [port for port in shaped if "logits" in port.get_names()]
    chosen = named or shaped
    if len(chosen) != 1:
        raise ModelError(
            f"The network of {where} must have exactly one output that scores {labels} tags for every piece, but has "
            f"{len(chosen)}: export a token classifier with an output named logits."
        )
    return chosen[0]
