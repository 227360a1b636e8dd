"""Tokens in, tags out: a token classifier on OpenVINO, independent of Spark. This module defines its options and its result.

`bundle` reads and checks the model's files; `encoding` splits tokens into pieces; `model_rows` arranges the pieces of
sentences in rows; `packing` puts several sentences into one row, and adapts the `network` to such rows; `inference` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from entitymill.errors import ModelError

if TYPE_CHECKING:  # settings import this module, and must not load numpy
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["f32", "bf16", "int8"]
Encoding = Literal["complete", "sparknlp"]
Decoding = Literal["viterbi", "argmax"]


@dataclass(frozen=True)
class Execution:
    """The options with which a model is run.

    precision: of execution; always set, because OpenVINO's default depends on the processor.
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
        ModelError: the precision is int8, but the weights are not.
    """
    if precision == "int8" and weights != "int8":
        raise ModelError("recognition.precision is int8, but the model's weights are not: prepare it with int8 weights.")


@dataclass(frozen=True)
class Tags:
    """The tags that a model predicts for a list of sentences.

    tokens: [tagged] int64, the tokens that have a tag: each exactly once, except in encoding sparknlp.
    tags: [tagged] int16, indices into the labels.
    confidences: [tagged] float32, the probability of the assigned tag.
    scores: [tagged, labels] float32, the probability of every label, if requested.
    split: [sentences] bool, whether a sentence was longer than the model's limit; encoding sparknlp truncates these.
    """

    tokens: NDArray[np.int64]
    tags: NDArray[np.int16]
    confidences: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    split: NDArray[np.bool_]
