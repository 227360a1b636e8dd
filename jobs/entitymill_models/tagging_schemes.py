"""Convert the tags of any known tagging scheme to the tags of a bundle: O, and B- or I- followed by a label.

A tagging scheme says how the prefixes of tags show where mentions begin and end. Some schemes have more prefixes than B-
and I-: a prefix for a mention's last token becomes I-, and a prefix for a mention of one token becomes B-. If several tags
become the same tag, their probabilities are added.
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
from entitymill_models.imported_classifier import Parts

LabelScheme = Literal["iob1", "iob2", "plain"]
LABEL_SCHEMES = get_args(LabelScheme)
OUTSIDE = "O"
_BEGINS, _CONTINUES = "BSUW", "IMLE"
"""First letters of tags in BILOU, IOBES, BMES and BMEWO: begin, single, unit and whole become B-; inside, middle, last and
end become I-."""
_PREFIXED = re.compile(rf"([{_BEGINS}{_CONTINUES}])[-_](.+)")
_IMPOSSIBLE = np.float32(-1e9)
"""A logit so low that its probability is 0."""


def convert_labels(found: Parts, where: str, specified: LabelScheme | None = None) -> tuple[Parts, Scheme]:
    """Convert the tags of a model (`Parts.labels`) to tags of a bundle; return the changed model and its tagging scheme.

    Args:
        found: the model; its network is changed and must not be used again.
        where: path of the model, for error messages.
        specified: the scheme that the user specified; in the scheme "plain", a tag is O or a label without a prefix such as
            B-. None to detect the scheme, which may go wrong: tags do not always show whether they are IOB1 or IOB2.

    Raises:
        ModelError: the tags follow no known scheme, or a label cannot be the name of a directory; the `entities` table has
            one directory for each label.
    """
    labels, scheme = _convert(found.labels, where, specified)
    bundle.check_labels_as_directory_names(labels, where)
    names = tuple(dict.fromkeys(labels))
    if len(names) < len(labels):
        _join_outputs(found.network, [[i for i, label in enumerate(labels) if label == name] for name in names])
    return replace(found, labels=names), scheme


def _convert(labels: Sequence[str], where: str, specified: LabelScheme | None) -> tuple[list[str], Scheme]:
    """Return a bundle's tag for each tag of a model (`labels`), in the same order, and the scheme of the returned tags.

    - If `specified` is "plain", or no tag has a prefix such as B-: I- is put before each tag except O. The scheme is IOB1.
    - If every tag except O has a prefix, and `specified` is not "plain": each prefix becomes B- or I-. The scheme is
      `specified`. If `specified` is None, the scheme is IOB2 if every label has a tag with B-, and IOB1 if not.

    Raise ModelError if there is no tag O or no other tag, a tag occurs twice, or only some tags have prefixes and
    `specified` is not "plain".
    """
    outside = [label for label in labels if label.upper() == OUTSIDE]
    if len(outside) != 1 or len(set(labels)) != len(labels) or len(labels) < 2:
        raise ModelError(
            f"The tags of {where} must be {OUTSIDE} and at least one other tag, none of them twice, but are "
            f"{_list_first_labels(labels)}. Correct id2label in config.json, or labels.json: it must list the tags that "
            "the model was trained with."
        )
    parts = {label: _PREFIXED.fullmatch(label) for label in labels if label not in outside}
    if specified == "plain" or not any(parts.values()):
        return [OUTSIDE if label in outside else f"I-{label}" for label in labels], "iob1"
    unprefixed = [label for label, match in parts.items() if match is None]
    if unprefixed:
        raise ModelError(
            f"The tags of {where} ({_list_first_labels(labels)}) mix two schemes: {bundle.shorten_label(unprefixed[0])} "
            "has no prefix such as B- or I-. Correct the tags, or pass `--labels plain` if letters such as B- are part of "
            "the labels."
        )
    converted, begun = [], set()
    for label in labels:
        match = parts.get(label)
        if match is None:
            converted.append(OUTSIDE)
        else:
            letter = "B" if match[1] in _BEGINS else "I"
            begun |= {match[2]} if letter == "B" else set()
            converted.append(f"{letter}-{match[2]}")
    # In IOB1, B- occurs only between adjacent mentions of one label, so some labels may have no tag with B-.
    each = begun == {label[2:] for label in converted if label != OUTSIDE}
    return converted, specified or ("iob2" if each else "iob1")


def _list_first_labels(labels: Sequence[str]) -> str:
    """Return the first six tags of `labels`, separated by commas, for an error message."""
    return ", ".join(map(bundle.shorten_label, labels[:6])) + (", …" if len(labels) > 6 else "")


def _join_outputs(network: ov.Model, groups: list[list[int]]) -> None:
    """Change a network, in place, to return one logit for each group of tags.

    Each item of `groups` lists the indices of a group's tags. The logit of a group is the log-sum-exp of its tags'
    logits. So the group's probability is the sum of its tags' probabilities.
    """
    result = network.get_results()[0]
    logits = result.input_value(0)
    names = result.output(0).get_names()
    largest = max(map(len, groups))
    picked = np.array([group + group[:1] * (largest - len(group)) for group in groups], np.int64)
    padding = np.array([[0] * len(group) + [_IMPOSSIBLE] * (largest - len(group)) for group in groups], np.float32)
    members = ops.add(ops.gather(logits, ops.constant(picked), ops.constant(np.int64(2))), ops.constant(padding))
    last = ops.constant(np.int64(3))
    top = ops.reduce_max(members, last, keep_dims=True)
    summed = ops.reduce_sum(ops.exp(ops.subtract(members, top)), last, keep_dims=False)
    joined = ops.add(ops.log(summed), ops.squeeze(top, last))
    result.input(0).replace_source_output(joined.output(0))
    logits.get_tensor().set_names(set())
    result.output(0).get_tensor().set_names(names)
    network.validate_nodes_and_infer_types()
