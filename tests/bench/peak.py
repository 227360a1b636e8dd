"""Measure the machine's peak speed with matrix products like those of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import machine
import nncf
import numpy as np
import openvino as ov
from openvino import opset13 as ops

WIDTH, HIDDEN, ROWS = 768, 3072, 512
Kind = Literal["f32", "bf16", "int8"]


def chain(kind: Kind) -> ov.CompiledModel:
    """Build a network of four of DistilBERT-base's matrix products, one after the other, in one precision."""
    rng = np.random.default_rng(0)
    data = ops.parameter([ROWS, WIDTH], np.float32)
    node = data
    for rows, columns in ((WIDTH, HIDDEN), (HIDDEN, WIDTH)) * 2:
        weight = ops.constant(rng.normal(0, 0.02, (columns, rows)).astype(np.float32))
        node = ops.matmul(node, weight, transpose_a=False, transpose_b=True)
    model = ov.Model([node], [data], "peak")
    if kind == "int8":
        feeds = [rng.normal(size=(ROWS, WIDTH)).astype(np.float32) for _ in range(4)]
        model = nncf.quantize(model, nncf.Dataset(feeds), subset_size=4)
    hint = "f32" if kind == "f32" else "bf16"
    options = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": hint}
    return ov.Core().compile_model(model, "CPU", {**options, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0})


def measurement(kind: Kind, rounds: int) -> Callable[[], float]:
    """Return a function that measures floating-point (or integer) operations per CPU second."""
    request = chain(kind).create_infer_request()
    data = np.random.default_rng(1).normal(size=(ROWS, WIDTH)).astype(np.float32)
    operations = 4 * 2 * ROWS * WIDTH * HIDDEN

    def measure() -> float:
        request.infer([data])
        spent = machine.spend(lambda: [request.infer([data]) for _ in range(rounds)])
        return operations * rounds / max(spent.cpu, 0.01)

    return measure
