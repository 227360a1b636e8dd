"""Predict the tags of tokens, such as B-PER, with a token classifier on OpenVINO, without Spark.

This module defines the options (`Execution`) and the result (`Tags`). `bundle` reads and checks the model's files. `network`
reads and compiles the network, and `inference` runs it. `tokens_to_model_input` splits tokens into pieces (subwords in the
model's vocabulary), and puts the pieces of each sentence into one or more rows. `sequence_packing` packs several of these
rows into one row of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from entitymill.errors import ModelError, SettingsError

if TYPE_CHECKING:  # settings import this module, and must not load numpy
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["f32", "bf16", "int8"]
Encoding = Literal["complete", "sparknlp"]
Decoding = Literal["viterbi", "argmax"]
Markup = Literal["none", "html"]


@dataclass(frozen=True)
class Execution:
    """The options with which a model is run.

    precision: number format of the computation. It is never left to OpenVINO, whose default depends on the processor.
    encoding: how tokens become pieces (subwords): `complete` keeps all tokens; `sparknlp` drops parts of long sentences and
        of some tokens, as Spark NLP does.
    threads: number of threads for inference, at most the number of cores of a Spark task.
    decoding: `viterbi` for the most probable valid sequence of tags; `argmax`, like Spark NLP, for each token's most
        probable tag.
    """

    precision: Precision = "f32"
    encoding: Encoding = "complete"
    threads: int = 1
    decoding: Decoding = "argmax"


def list_precisions(stored: str) -> tuple[Precision, ...]:
    """Return the precisions in which a model can run; `stored` is the precision (number format) of its stored weights."""
    return ("f32", "bf16", "int8") if stored == "int8" else ("f32", "bf16")


def check_choice(option: str, value: str, allowed: Any) -> None:
    """Raise a SettingsError if `value` is not one of the values of `allowed`, a Literal type such as Precision.

    `option` is the option's name, for the message.
    """
    if value not in get_args(allowed):
        raise SettingsError(f"{option}: {value!r} is not one of {', '.join(get_args(allowed))}.")


def check_flags(**flags: object) -> None:
    """Raise a SettingsError if an option is neither True nor False; each keyword argument is an option's name and value."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise SettingsError(f"{name} must be True or False, not {value!r}.")


def check_precision(precision: Precision, stored: str) -> None:
    """Raise a ModelError if `precision` is int8, but the model's weights are stored in another precision, `stored`."""
    if precision == "int8" and stored != "int8":
        raise ModelError(
            f"The precision is `int8`, but the model's weights are {stored}. Choose another `recognition.precision`, or "
            "prepare the model with int8 weights (entitymill prepare --precision int8)."
        )


@dataclass(frozen=True)
class Tags:
    """The tags that a model predicts for a list of sentences.

    tokens: int64, shape [tagged]; the tagged tokens, as indices into the argument `tokens` of `Tagger.tag`. Every token
        occurs exactly once. But with encoding sparknlp, a token may be missing, or occur more than once.
    tags: int16, shape [tagged]; the assigned tags, as indices into `Tagger.labels`.
    confidences: float32, shape [tagged]; the probability of the assigned tag.
    scores: float32, shape [tagged, labels]; the probability of every tag in `Tagger.labels`. None if not requested.
    split: bool, shape [sentences]; whether a sentence was longer than the model's limit. Encoding sparknlp truncates such
        sentences.
    """

    tokens: NDArray[np.int64]
    tags: NDArray[np.int16]
    confidences: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    split: NDArray[np.bool_]
