"""Tokens in, tags out: a token classifier on OpenVINO, knowing nothing of Spark. Here: how it is run, and what it returns.

`bundle` reads and checks the model's files, `encoding` turns tokens into pieces, `model_rows` sentences into what the model
takes, `packing` puts many into one row and teaches the `network` to take them, `inference` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from entitymill.errors import ModelError

if TYPE_CHECKING:  # settings say how it is run, without numpy
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["f32", "bf16", "int8"]
Encoding = Literal["complete", "sparknlp"]
Decoding = Literal["viterbi", "argmax"]


@dataclass(frozen=True)
class Execution:
    """How a model is run.

    precision: of execution; always set, since OpenVINO left alone picks one by the processor.
    encoding: of tokens: complete, or as Spark NLP does it.
    threads: of inference; no more than the task has cores.
    decoding: the best valid sequence of tags (viterbi), or each token's best tag (argmax), as Spark NLP does it.
    """

    precision: Precision = "f32"
    encoding: Encoding = "complete"
    threads: int = 1
    decoding: Decoding = "argmax"


def check_precision(precision: Precision, weights: str) -> None:
    """Check that weights can be run in a precision.

    Raises:
        ModelError: int8 was asked of weights that are not 8-bit.
    """
    if precision == "int8" and weights != "int8":
        raise ModelError("recognition.precision is int8, but the model's weights are not: prepare it with int8 weights.")


@dataclass(frozen=True)
class Tags:
    """What a model says of a list of sentences, in order.

    tokens: [tagged] int64, which tokens got a tag: every one once, except in the encoding sparknlp.
    tags: [tagged] int16, indices into the labels.
    confidences: [tagged] float32, the probability of each one's own tag.
    scores: [tagged, labels] float32, the probability of every label; none unless asked for.
    split: [sentences] bool, which sentences were longer than the model's limit; in the encoding sparknlp, cut short by it.
    """

    tokens: NDArray[np.int64]
    tags: NDArray[np.int16]
    confidences: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    split: NDArray[np.bool_]
