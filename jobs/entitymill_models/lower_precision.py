"""Reduce the precision of a network's weights to bfloat16, or to 8-bit integers, and calibrate a network.

`f32` stores the weights as float32. `bf16` rounds the weights, which halves the size of the file. `int8` stores matrices as
8-bit integers with one scale per row; the resulting network can run in any precision. Calibration (post-training
quantization with the package NNCF) also stores the ranges of activations. A calibrated network is the fastest in int8. In
other precisions, the ranges are ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from entitymill.errors import ModelError, SettingsError
from entitymill.recognition.tagger import Precision, bundle
from entitymill.recognition.tagger.inference import read_tokenizer
from entitymill.recognition.tagger.network import INPUTS
from entitymill.recognition.tagger.tokens_to_model_input import SPECIAL_PIECES, Encoder
from entitymill.spark import installation

Stored = Literal["f32", "bf16", "int8", "calibrated"]
MIN_WEIGHT_ELEMENTS = 1024
"""A constant with at least this many elements counts as a weight; reducing smaller constants would save nothing."""
_HALF_FLOATS = (ov.Type.f16, ov.Type.bf16)
_BYTES = (ov.Type.i8, ov.Type.u8)


def detect_stored_precision(network: ov.Model, where: str) -> Stored:
    """Return the precision in which the weights of a network are stored.

    - "calibrated" (int8 with quantized activations): the network has a FakeQuantize operation. No weight is examined.
    - "int8": no FakeQuantize operation, and at least one weight has 8 bits.
    - "bf16": no FakeQuantize operation, at least one weight is bfloat16, and none has 8 bits.
    - "f32": every other network, also one with float16 weights.

    Raise ModelError if an examined weight has an unsupported type. `where` is the model's path, for error messages.
    """
    operations = network.get_ops()
    if any(node.get_type_name() == "FakeQuantize" for node in operations):
        return "calibrated"
    types = {node.get_element_type() for node in _find_weights(operations)}
    if unsupported := types - {ov.Type.f32, ov.Type.i64, ov.Type.i32, *_HALF_FLOATS, *_BYTES}:
        kind = unsupported.pop().to_string()
        raise ModelError(f"{where} has weights of type {kind}, which are not supported: export the model as f32.")
    if types & set(_BYTES):
        return "int8"
    return "bf16" if ov.Type.bf16 in types else "f32"


def convert_precision(
    network: ov.Model, precision: Precision, calibration: Sequence[dict[str, NDArray[np.int64]]] = ()
) -> ov.Model:
    """Convert the weights of a network to the requested precision, and return the resulting network.

    Args:
        network: a network with float weights, which is changed and must not be used again.
        precision: the new precision of the weights. With f32, only half-precision weights change: they become float32.
        calibration: for int8, the network inputs on which activations are measured; if empty, activations are not quantized.
            Each item is a dict from the names of the network's inputs to arrays of shape [1, length].

    Raises:
        SettingsError: `precision` is int8, but NNCF is not installed.
    """
    widen_weights(network)
    if precision == "bf16":
        _round_to_bfloat16(network)
        return network
    if precision == "int8":
        return _quantize(network, calibration)
    return network


def widen_weights(network: ov.Model) -> None:
    """Convert the half-precision weights of a network to float32, in place; this conversion is exact.

    Only weights that the network itself converts to float32 (with Convert) change; the new weights bypass this operation.
    """
    for node in _find_weights(network.get_ops()):
        if node.get_element_type() not in _HALF_FLOATS:
            continue
        for target in node.output(0).get_target_inputs():
            convert = target.get_node()
            if convert.get_type_name() == "Convert" and convert.get_element_type() == ov.Type.f32:
                wide = ops.constant(_read_as_float32(node), name=node.get_friendly_name())
                for user in convert.output(0).get_target_inputs():
                    user.replace_source_output(wide.output(0))


def _read_as_float32(constant: ov.Node) -> NDArray[np.float32]:
    """Return the values of a float16 or bfloat16 constant as float32."""
    if constant.get_element_type() == ov.Type.f16:
        return constant.data.astype(np.float32)
    raw = constant.get_data(dtype=np.float32)
    return np.asarray(raw, np.float32)


def _round_to_bfloat16(network: ov.Model) -> None:
    """Round the float32 weights of a network to bfloat16, in place: to nearest, ties to even.

    The network converts the weights back to float32 whenever it runs.
    """
    for node in _find_weights(network.get_ops()):
        if node.get_element_type() != ov.Type.f32:
            continue
        bits = node.data.view(np.uint32).astype(np.uint64)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        tensor = ov.Tensor(ov.Type.bf16, ov.Shape(list(rounded.shape)))
        tensor.data.view(np.uint16)[...] = rounded
        narrow = ops.constant(tensor, name=f"{node.get_friendly_name()}/bf16")
        wide = ops.convert(narrow, "f32")
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(wide.output(0))


def _quantize(network: ov.Model, calibration: Sequence[dict[str, NDArray[np.int64]]]) -> ov.Model:
    """Return the network with 8-bit weights and, if there are calibration inputs, also with quantized activations.

    The argument `network` is changed and must not be used again. Raise SettingsError if NNCF is not installed.
    """
    nncf = _import_nncf()
    if not calibration:
        return nncf.compress_weights(network, mode=nncf.CompressWeightsMode.INT8_SYM)
    return quantize_calibrated(network, [{name: feed[name] for name in INPUTS} for feed in calibration])


def quantize_calibrated(network: ov.Model, feeds: Sequence[dict[str, NDArray[np.int64]]]) -> ov.Model:
    """Return the network with 8-bit weights (one scale per row) and 8-bit activations (one scale per tensor).

    Attention is not quantized. Smooth quantization and bias correction are off, because they did not improve accuracy.
    Without them, removing the FakeQuantize operations of the activations yields exactly the network in which only the
    weights are quantized.

    Args:
        network: a network with float weights, which is changed and must not be used again.
        feeds: the network inputs on which activations are measured. Each item is a dict from the names of the network's
            inputs to arrays of shape [1, length].

    Raises:
        SettingsError: NNCF is not installed.
    """
    nncf = _import_nncf()
    smooth = nncf.quantization.advanced_parameters.AdvancedSmoothQuantParameters(matmul=-1)
    quantized = nncf.quantize(
        network,
        nncf.Dataset(list(feeds)),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(feeds),
        # OpenVINO's fused attention runs on floats, so quantizing queries and keys would only reduce accuracy.
        ignored_scope=nncf.IgnoredScope(types=["ScaledDotProductAttention"], validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True, smooth_quant_alphas=smooth),
    )
    _merge_equal_quantizers(quantized)
    return quantized


def _merge_equal_quantizers(network: ov.Model) -> None:
    """Merge FakeQuantize operations that have the same input and ranges, in place.

    For example, query, key and value each have a FakeQuantize operation with the same input.
    """
    quantizers: dict[tuple[object, ...], ov.Node] = {}
    for node in network.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        source = node.input_value(0)
        ranges = [node.input_value(index).get_node().data.tobytes() for index in range(1, 5)]
        first = quantizers.setdefault((source.get_node().get_friendly_name(), source.get_index(), *ranges), node)
        if first is not node:
            node.output(0).replace(first.output(0))


def _import_nncf() -> Any:
    """Import nncf, let it log only errors, and return the module; raise SettingsError if it is not installed."""
    try:
        import nncf  # noqa: PLC0415  - slow to import, and needed only for int8
    except ImportError as error:
        raise SettingsError(f"--precision int8 needs {installation.PREPARE}.") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _find_weights(operations: Sequence[ov.Node]) -> list[Any]:
    """Return the constants that count as weights, because they have at least MIN_WEIGHT_ELEMENTS elements."""
    constants = (node for node in operations if node.get_type_name() == "Constant")
    return [node for node in constants if np.prod(node.get_output_shape(0)) >= MIN_WEIGHT_ELEMENTS]


def encode_sentences(directory: Path, sentences: Sequence[Sequence[str]]) -> list[dict[str, NDArray[np.int64]]]:
    """Return the network inputs for each sentence: a dict from the names of the inputs to arrays of shape [1, length].

    `sentences` has the tokens of each sentence. The tokenizer of the bundle `directory` splits tokens into pieces
    (subwords). [CLS] and [SEP] are added. Pieces are dropped from the end if there would be more than the `max_length` of
    the bundle's manifest, which includes [CLS] and [SEP]. attention_mask is all ones.
    """
    manifest, files = bundle.read_directory(directory)
    capacity = manifest.max_length - SPECIAL_PIECES
    encoder = Encoder(read_tokenizer(files, manifest), capacity)
    feeds = []
    for sentence in sentences:
        ids = np.array([[encoder.cls_id, *encoder.encode(sentence).ids[:capacity], encoder.sep_id]], np.int64)
        feeds.append(dict(zip(INPUTS, (ids, np.ones_like(ids)), strict=True)))
    return feeds
