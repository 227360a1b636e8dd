"""A token classifier's network made to take several sentences in a row.

Two inputs take the place of attention_mask: `positions`, which count anew in each sentence, and `segments`, which say which
sentence of its row a piece belongs to. Where a mask met the attention, "the same segment" stands now: a sentence sees itself
alone. Nothing is known of the architecture but that: masks and positions are found by what they depend on, and tried out.
(Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination", for the idea.)
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from entitymill.recognition.tagger import network

IDS, MASK = "input_ids", "attention_mask"
POSITIONS, SEGMENTS = "positions", "segments"


class _NotPackableError(Exception):
    pass


def pack(model: ov.Model, max_length: int, piece: int) -> NDArray[np.int64] | None:
    """Change a network to take packed rows; none where it is of an unknown build, and stays as it was.

    Args:
        model: takes input_ids and attention_mask.
        max_length: pieces of the longest sentence it is given.
        piece: id of any piece that is not padding.

    Returns:
        [max_length] what the network calls the first, second, … piece of a sentence. It takes input_ids, positions and
        segments then, all int64 [rows, length].
    """
    needs = network.dependencies(model)
    masks, tables = _mask_ports(model, needs), _table_ports(model, needs)
    ids = np.full((1, max_length), piece, np.int64)
    first_alone = np.zeros_like(ids)
    first_alone[0, 0] = 1
    if not masks or not tables:
        return None
    try:
        outputs = [port.get_source_output() for port in (*masks, *tables)]
        values = network.evaluate(outputs, {IDS: ids, MASK: first_alone})
        shown = [_seen_and_hidden(value, max_length) for value in values[: len(masks)]]
        table, numbers = _positions(tables, values[len(masks) :], max_length)
    except (_NotPackableError, RuntimeError):
        return None
    places, segments = (ops.parameter([-1, -1], np.int64, name=name) for name in (POSITIONS, SEGMENTS))
    for node, name in ((places, POSITIONS), (segments, SEGMENTS)):
        node.output(0).get_tensor().set_names({name})
    one, two = ops.constant(np.int64(1)), ops.constant(np.int64(2))
    same = ops.unsqueeze(ops.equal(ops.unsqueeze(segments, two), ops.unsqueeze(segments, one)), one)
    for port, (seen, hidden) in zip(masks, shown, strict=True):
        if port.get_element_type() == ov.Type.boolean:
            joined = same if seen else ops.logical_not(same)
        else:
            kind = port.get_element_type().to_dtype()
            joined = ops.select(same, ops.constant(np.array(seen, kind)), ops.constant(np.array(hidden, kind)))
        port.replace_source_output(joined.output(0))
    table.replace_source_output(ops.convert(places, table.get_element_type().to_string()).output(0))
    parameter = model.input(MASK).get_node()
    for target in parameter.output(0).get_target_inputs():  # what asks for its shape alone
        target.replace_source_output(model.input(IDS).get_node().output(0))
    model.remove_parameter(parameter)
    model.add_parameters([places, segments])
    model.validate_nodes_and_infer_types()
    return numbers


def _mask_ports(model: ov.Model, needs: dict[str, frozenset[str]]) -> list[ov.Input]:
    """Where what the mask alone decides meets what the ids decide."""
    return [
        port
        for node in model.get_ordered_ops()
        if needs[node.get_friendly_name()] == {IDS, MASK}
        for port in node.inputs()
        if needs[network.source(port)] == {MASK}
    ]


def _seen_and_hidden(value: NDArray[np.generic], length: int) -> tuple[float, float]:
    """What stands in a mask for a piece that is seen, and for one that is hidden, the first one alone being seen."""
    if value.ndim != 4 or value.shape[1] != 1 or value.shape[-1] != length or length < 2:
        raise _NotPackableError
    seen, hidden = value[..., 0], value[..., 1:]
    if seen.min() != seen.max() or hidden.min() != hidden.max() or seen.flat[0] == hidden.flat[0]:
        raise _NotPackableError
    return seen.flat[0].item(), hidden.flat[0].item()


def _table_ports(model: ov.Model, needs: dict[str, frozenset[str]]) -> list[ov.Input]:
    """The ports that pick rows of tables: words, positions, token types."""
    found = []
    for node in model.get_ordered_ops():
        if (
            node.get_type_name() != "Gather"
            or needs[network.source(node.input(0))]
            or MASK in needs[node.get_friendly_name()]
        ):
            continue
        table, picked = node.input(0).get_partial_shape(), node.input(1).get_partial_shape()
        if table.is_static and table.rank.get_length() == 2 and picked.rank.is_static and picked.rank.get_length() == 2:
            found.append(node.input(1))
    return found


def _positions(ports: list[ov.Input], values: list[NDArray[np.generic]], length: int) -> tuple[ov.Input, NDArray[np.int64]]:
    """The port that picks positions, and those of the pieces of one sentence."""
    found = []
    for port, value in zip(ports, values, strict=True):
        numbers = value.reshape(-1).astype(np.int64)
        # The word embedding's rows are the ids themselves; token types are all the same.
        if len(numbers) == length and (np.diff(numbers) == 1).all():
            found.append((port, numbers))
    if len(found) != 1:
        raise _NotPackableError
    return found[0]
