"""Lower precision of a network's weights: bfloat16, or 8-bit integers with or without calibration.

`f32` keeps every weight as it is. `bf16` halves the file by rounding them. `int8` stores matrices as 8-bit integers with
one scale a row, which runs in any precision; with calibration (NNCF post-training quantization) the activations' ranges
are fixed too, which is fastest in int8; other precisions leave those out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from entitymill.errors import ModelError, SettingsError
from entitymill.recognition.tagger import Precision
from entitymill.recognition.tagger.network import INPUTS
from entitymill.spark import requirements

Stored = Literal["f32", "bf16", "int8", "calibrated"]
LARGE = 1024
"""Numbers in a constant from which on it is a weight; smaller ones cost nothing to keep exactly."""
_FLOATS = (ov.Type.f16, ov.Type.bf16)
_BYTES = (ov.Type.i8, ov.Type.u8)


def stored(network: ov.Model, where: str) -> Stored:
    """What the weights of a network are stored as.

    Raises:
        ModelError: as something this program does not run.
    """
    operations = network.get_ops()
    if any(node.get_type_name() == "FakeQuantize" for node in operations):
        return "calibrated"
    found = {node.get_element_type() for node in _large(operations)}
    if strange := found - {ov.Type.f32, ov.Type.i64, ov.Type.i32, *_FLOATS, *_BYTES}:
        kind = strange.pop().to_string()
        raise ModelError(f"{where} has weights of type {kind}, which are not supported: export them as f32.")
    if found & set(_BYTES):
        return "int8"
    return "bf16" if ov.Type.bf16 in found else "f32"


def reduce(network: ov.Model, precision: Precision, calibration: Sequence[dict[str, NDArray[np.int64]]] = ()) -> ov.Model:
    """The network with its weights in a lower precision.

    Args:
        network: of float weights; is changed and must not be used again.
        precision: of the weights.
        calibration: inputs on which activations are measured, for int8; none leaves activations alone.

    Raises:
        SettingsError: the library that does it is not installed.
    """
    widen(network)
    if precision == "bf16":
        _round(network)
        return network
    if precision == "int8":
        return _quantized(network, calibration)
    return network


def widen(network: ov.Model) -> None:
    """Store half-precision weights as float32, exactly."""
    for node in _large(network.get_ops()):
        if node.get_element_type() not in _FLOATS:
            continue
        for target in node.output(0).get_target_inputs():
            convert = target.get_node()
            if convert.get_type_name() == "Convert" and convert.get_element_type() == ov.Type.f32:
                wide = ops.constant(_float32(node), name=node.get_friendly_name())
                for user in convert.output(0).get_target_inputs():
                    user.replace_source_output(wide.output(0))


def _float32(constant: ov.Node) -> NDArray[np.float32]:
    if constant.get_element_type() == ov.Type.f16:
        return constant.data.astype(np.float32)
    raw = constant.get_data(dtype=np.float32)
    return np.asarray(raw, np.float32)


def _round(network: ov.Model) -> None:
    """Large float32 constants as bfloat16, rounded to nearest, ties to even, and widened again where they are used."""
    for node in _large(network.get_ops()):
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


def _quantized(network: ov.Model, calibration: Sequence[dict[str, NDArray[np.int64]]]) -> ov.Model:
    nncf = _nncf()
    if not calibration:
        return nncf.compress_weights(network, mode=nncf.CompressWeightsMode.INT8_SYM)
    return calibrated(network, [{name: feed[name] for name in INPUTS} for feed in calibration])


def calibrated(network: ov.Model, feeds: Sequence[dict[str, NDArray[np.int64]]]) -> ov.Model:
    """8-bit weights, one scale a row, and 8-bit activations, one scale a tensor.

    Smooth quantization and bias correction stay off: they gained nothing where it was measured, and without them the
    network is the one with 8-bit weights alone once the activations' FakeQuantize are taken out.

    Args:
        network: of float weights; is changed and must not be used again.
        feeds: inputs on which activations are measured.

    Raises:
        SettingsError: the library that does it is not installed.
    """
    nncf = _nncf()
    smooth = nncf.quantization.advanced_parameters.AdvancedSmoothQuantParameters(matmul=-1)
    quantized = nncf.quantize(
        network,
        nncf.Dataset(list(feeds)),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(feeds),
        # OpenVINO's fused attention runs on floats: 8-bit queries and keys would be quantized for nothing.
        ignored_scope=nncf.IgnoredScope(types=["ScaledDotProductAttention"], validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True, smooth_quant_alphas=smooth),
    )
    _share(quantized)
    return quantized


def _share(network: ov.Model) -> None:
    """Quantize what queries, keys and values are made of once, not three times."""
    kept: dict[tuple[object, ...], ov.Node] = {}
    for node in network.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        source = node.input_value(0)
        ranges = [node.input_value(place).get_node().data.tobytes() for place in range(1, 5)]
        first = kept.setdefault((source.get_node().get_friendly_name(), source.get_index(), *ranges), node)
        if first is not node:
            node.output(0).replace(first.output(0))


def _nncf() -> Any:
    try:
        import nncf  # noqa: PLC0415  - slow, and needed for 8 bits alone
    except ImportError as error:
        raise SettingsError(f"--precision int8 needs {requirements.PREPARE}.") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _large(operations: Sequence[ov.Node]) -> list[Any]:
    """Constants that are weights."""
    return [node for node in operations if node.get_type_name() == "Constant" and np.prod(node.get_output_shape(0)) >= LARGE]
