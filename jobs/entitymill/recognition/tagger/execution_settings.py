"""How a model is run: what settings may say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from entitymill.errors import ModelError

Precision = Literal["f32", "bf16", "int8"]
Encoding = Literal["complete", "sparknlp"]


@dataclass(frozen=True)
class Execution:
    """How a model is run.

    precision: of execution; always set, since OpenVINO left alone picks one by the processor.
    encoding: of tokens: complete, or as Spark NLP does it.
    threads: of inference; no more than the task has cores.
    """

    precision: Precision = "f32"
    encoding: Encoding = "complete"
    threads: int = 1


def check_precision(precision: Precision, weights: str) -> None:
    """Check that weights can be run in a precision.

    Raises:
        ModelError: int8 was asked of weights that are not 8-bit.
    """
    if precision == "int8" and weights != "int8":
        raise ModelError("recognition.precision is int8, but the model's weights are not: prepare it with int8 weights.")
