"""Labels of other tagging schemes brought to those of a bundle: O, and B-X and I-X of each kind X of entity.

What other letters say, that a mention ends or stands alone, is a part of what B- and I- say: their probabilities are added.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from entitymill.errors import ModelError
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.bundle import Scheme
from entitymill_models.token_classifier import Parts

Given = Literal["iob1", "iob2", "plain"]
GIVEN = get_args(Given)
OUTSIDE = "O"
_BEGINS, _GOES_ON = "BSUW", "IMLE"
"""First letters of BILOU, IOBES, BMES and BMEWO: begin, single, unit, whole; inside, middle, last, end."""
_PREFIXED = re.compile(rf"([{_BEGINS}{_GOES_ON}])[-_](.+)")
_NEVER = np.float32(-1e9)


def bring(found: Parts, where: str, given: Given | None = None) -> tuple[Parts, Scheme]:
    """A model with the labels of a bundle, and how its tags join to mentions.

    Args:
        found: as it was read; its network is changed and must not be used again.
        where: its address, for messages.
        given: what the user says of the labels; IOB1 is not always to be told from IOB2 by them.

    Raises:
        ModelError: the labels are of no scheme that is known, or one cannot name a directory of the table `entities`.
    """
    labels, scheme = _brought(found.labels, where, given)
    bundle.check_labels(labels, where)
    names = tuple(dict.fromkeys(labels))
    if len(names) < len(labels):
        _join_outputs(found.network, [[i for i, label in enumerate(labels) if label == name] for name in names])
    return replace(found, labels=names), scheme


def _brought(labels: Sequence[str], where: str, given: Given | None) -> tuple[list[str], Scheme]:
    """The bundle's label for each of a model's, and the scheme."""
    outside = [label for label in labels if label.upper() == OUTSIDE]
    if len(outside) != 1 or len(set(labels)) != len(labels) or len(labels) < 2:
        raise ModelError(
            f"The labels of {where} are not {OUTSIDE} and names of entities, each once, but {_some(labels)}: name them as "
            "the model was trained, in id2label of config.json or in labels.json."
        )
    parts = {label: _PREFIXED.fullmatch(label) for label in labels if label not in outside}
    if given == "plain" or not any(parts.values()):
        return [OUTSIDE if label in outside else f"I-{label}" for label in labels], "iob1"
    strange = [label for label, found in parts.items() if found is None]
    if strange:
        raise ModelError(
            f"The labels of {where} are of two schemes, {_some(labels)}: "
            f"{bundle.shorten_label(strange[0])} has no letter before it."
        )
    brought, begun = [], set()
    for label in labels:
        found = parts.get(label)
        if found is None:
            brought.append(OUTSIDE)
        else:
            letter = "B" if found[1] in _BEGINS else "I"
            begun |= {found[2]} if letter == "B" else set()
            brought.append(f"{letter}-{found[2]}")
    # In IOB1 a B- is only between neighbours of one kind, which some kinds never have.
    each = begun == {label[2:] for label in brought if label != OUTSIDE}
    return brought, given or ("iob2" if each else "iob1")


def _some(labels: Sequence[str]) -> str:
    return ", ".join(map(bundle.shorten_label, labels[:6])) + (", …" if len(labels) > 6 else "")


def _join_outputs(network: ov.Model, groups: list[list[int]]) -> None:
    """Have a network score groups of its outputs: by the logarithm of their summed exponentials, so that probabilities add.

    Args:
        network: float32 logits [batch, length, labels] come out of it.
        groups: [groups] outputs of each.
    """
    result = network.get_results()[0]
    logits = result.input_value(0)
    names = result.output(0).get_names()
    most = max(map(len, groups))
    picked = np.array([group + group[:1] * (most - len(group)) for group in groups], np.int64)
    padding = np.array([[0] * len(group) + [_NEVER] * (most - len(group)) for group in groups], np.float32)
    members = ops.add(ops.gather(logits, ops.constant(picked), ops.constant(np.int64(2))), ops.constant(padding))
    last = ops.constant(np.int64(3))
    top = ops.reduce_max(members, last, keep_dims=True)
    summed = ops.reduce_sum(ops.exp(ops.subtract(members, top)), last, keep_dims=False)
    joined = ops.add(ops.log(summed), ops.squeeze(top, last))
    result.input(0).replace_source_output(joined.output(0))
    logits.get_tensor().set_names(set())
    result.output(0).get_tensor().set_names(names)
    network.validate_nodes_and_infer_types()
