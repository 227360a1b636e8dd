"""Pack several sentences into one row of the network's input, and change the network to accept such packed rows.

The rows have only a few lengths, so there is little padding, and the network is compiled only for a few shapes. In this
module, a sentence is a row of `tokens_to_model_input`: a complete sentence, or a window of a long sentence. Pieces are
subwords in the model's vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from entitymill.recognition.tagger import network

ROW_PIECES = 64
"""Length of an input row, in pieces. A longer sentence gets a row of 2, 4, 8, … times this length. AMX, the matrix unit of
some processors, needs multiples of 16. With AMX, lengths of 64 and 128 are equally fast; without AMX, 64 is faster."""
BATCH_PIECES = 768
"""Size of a batch in pieces. The activations of more than about 1,000 pieces do not fit in the cache of a processor core."""
IDS, MASK = "input_ids", "attention_mask"
POSITIONS, SEGMENTS = "positions", "segments"
"""Names of the network's inputs. `convert_to_packed` replaces MASK by POSITIONS and SEGMENTS."""


@dataclass(frozen=True)
class Batch:
    """A batch: the rows of the network's input that the network processes together.

    items: int64, shape [items]; the sentences in the batch, as indices into the argument `lengths` of `plan_batches`.
    row: int64, shape [items]; the row of each sentence, counted from 0 in the batch.
    column: int64, shape [items]; the position of each sentence's first piece in its row, counted from 0.
    rows, length: number of rows in the batch, and number of pieces in a row.
    """

    items: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    rows: int
    length: int


def plan_batches(lengths: NDArray[np.int64], limit: int, *, packed: bool) -> Iterator[Batch]:
    """Yield the batches in which the network processes sentences; each sentence is in exactly one batch.

    Args:
        lengths: number of pieces of each sentence, including special pieces, shape [sentences]; at most `limit`.
        limit: maximum number of pieces that the model accepts in a sentence. A row of several sentences may be longer.
        packed: whether sentences may share a row. Otherwise each sentence has its own row, in a batch of similar lengths.
    """
    return _plan_packed_batches(lengths) if packed else _plan_unpacked_batches(lengths, limit)


def _plan_packed_batches(lengths: NDArray[np.int64]) -> Iterator[Batch]:
    """Yield batches in which a row may have several sentences; all rows of a batch have the same length."""
    rows, sizes = _assign_rows(lengths)
    for length in sorted(set(sizes)):
        same_length = [row for row, size in zip(rows, sizes, strict=True) if size == length]
        at_once = max(1, BATCH_PIECES // length)
        for first in range(0, len(same_length), at_once):
            part = same_length[first : first + at_once]
            items = np.array([item for row in part for item in row], np.int64)
            row = np.repeat(np.arange(len(part)), [len(row) for row in part])
            yield Batch(items, row, _compute_columns(lengths[items], row), len(part), length)


def _assign_rows(lengths: NDArray[np.int64]) -> tuple[list[list[int]], list[int]]:
    """Return two lists with one value per input row: its sentences, as indices into `lengths`, and its size in pieces.

    The size of a row includes room that stays empty. The size is ROW_PIECES, doubled until the row's longest sentence fits.

    `lengths` has the number of pieces of each sentence. Sentences are assigned from longest to shortest. Each goes to the
    row with the least room that is sufficient, or to a new row (best-fit decreasing). This fills the rows to about 99 %.
    """
    rows: list[list[int]] = []
    sizes: list[int] = []
    with_room: dict[int, list[int]] = {}
    rooms = 0  # bit n is set if some row has room for exactly n more pieces
    for item in np.argsort(-lengths, kind="stable").tolist():
        needed = int(lengths[item])
        fitting = rooms >> needed
        if fitting:
            room = needed + (fitting & -fitting).bit_length() - 1  # the least room that is sufficient
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            row, room = len(rows), ROW_PIECES
            while room < needed:
                room *= 2
            rows.append([])
            sizes.append(room)
        rows[row].append(item)
        with_room.setdefault(room - needed, []).append(row)
        rooms |= 1 << (room - needed)
    return rows, sizes


def _compute_columns(lengths: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position of each sentence's first piece in its row.

    `lengths` has the number of pieces of each sentence. `row` has the index of each sentence's row, and must be ascending.
    """
    before = np.cumsum(lengths) - lengths
    return before - before[np.searchsorted(row, row)]


def _plan_unpacked_batches(lengths: NDArray[np.int64], limit: int) -> Iterator[Batch]:
    """Yield batches of sentences of similar lengths, with one sentence per row.

    The length of a batch's rows is the length of its longest sentence, rounded up to a multiple of 8, at most `limit`.
    """
    order = np.argsort(lengths, kind="stable")
    padded = np.minimum(-(-lengths[order] // 8) * 8, limit)
    end = len(order)
    while end:
        length = int(padded[end - 1])
        count = min(end, max(1, BATCH_PIECES // length))
        items = order[end - count : end]
        yield Batch(items, np.arange(count), np.zeros(count, np.int64), count, length)
        end -= count


def find_distinct_rows(
    ids: NDArray[np.int32], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[list[int], NDArray[np.int64]]:
    """Return the indices of the distinct sentences, and for each sentence the position of its equal in this list.

    Of equal sentences, the list has only the first, so the caller runs the network only once for all of them.

    Args:
        ids: piece ids of all sentences, shape [pieces].
        begins: where the pieces of each sentence begin, shape [sentences].
        ends: where the pieces of each sentence end (exclusive), shape [sentences].
    """
    numbers: dict[bytes, int] = {}
    distinct: list[int] = []
    index = np.zeros(len(begins), np.int64)
    for sentence, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        number = numbers.setdefault(ids[begin:end].tobytes(), len(distinct))
        if number == len(distinct):
            distinct.append(sentence)
        index[sentence] = number
    return distinct, index


class _NotPackableError(Exception):
    """Raised if the masks or positions of a network cannot be identified; `convert_to_packed` then returns None."""


def convert_to_packed(model: ov.Model, max_length: int, piece_id: int) -> NDArray[np.int64] | None:
    """Change a network, in place, to accept rows of several sentences, none of which affects the results of another.

    Two inputs replace attention_mask: `positions`, which count from the start of each sentence, and `segments`, the number
    of each piece's sentence. A piece attends only to the pieces in its segment. The nodes to change are found not by name,
    but by the inputs on which they depend, and by their values for a test input. So different architectures are supported.
    (Source: Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination".)

    Args:
        model: network with the inputs input_ids and attention_mask. Afterwards, its inputs are input_ids, positions and
            segments, all int64 of shape [rows, length].
        max_length: maximum number of pieces of a sentence.
        piece_id: id of any piece except the padding piece.

    Returns:
        The values of the input `positions` for the first, second, … piece of a sentence, shape [max_length]. None if masks
        and positions cannot be identified, in which case the network is not changed.
    """
    dependencies = network.find_dependencies(model)
    masks, tables = _find_mask_ports(model, dependencies), _find_table_ports(model, dependencies)
    ids = np.full((1, max_length), piece_id, np.int64)
    first_only = np.zeros_like(ids)
    first_only[0, 0] = 1
    if not masks or not tables:
        return None
    try:
        outputs = [port.get_source_output() for port in (*masks, *tables)]
        values = network.evaluate(model, outputs, {IDS: ids, MASK: first_only})
        mask_values = [_read_mask_values(value, max_length) for value in values[: len(masks)]]
        table, numbers = _find_positions(tables, values[len(masks) :], max_length)
    except (_NotPackableError, RuntimeError):
        return None
    positions, segments = (ops.parameter([-1, -1], np.int64, name=name) for name in (POSITIONS, SEGMENTS))
    for node, name in ((positions, POSITIONS), (segments, SEGMENTS)):
        node.output(0).get_tensor().set_names({name})
    one, two = ops.constant(np.int64(1)), ops.constant(np.int64(2))
    same = ops.unsqueeze(ops.equal(ops.unsqueeze(segments, two), ops.unsqueeze(segments, one)), one)
    for port, (visible, hidden) in zip(masks, mask_values, strict=True):
        if port.get_element_type() == ov.Type.boolean:
            joined = same if visible else ops.logical_not(same)
        else:
            kind = port.get_element_type().to_dtype()
            joined = ops.select(same, ops.constant(np.array(visible, kind)), ops.constant(np.array(hidden, kind)))
        port.replace_source_output(joined.output(0))
    table.replace_source_output(ops.convert(positions, table.get_element_type().to_string()).output(0))
    parameter = model.input(MASK).get_node()
    for target in parameter.output(0).get_target_inputs():  # these nodes use only the shape, which the ids have, too
        target.replace_source_output(model.input(IDS).get_node().output(0))
    model.remove_parameter(parameter)
    model.add_parameters([positions, segments])
    model.validate_nodes_and_infer_types()
    return numbers


def _find_mask_ports(model: ov.Model, dependencies: dict[str, frozenset[str]]) -> list[ov.Input]:
    """Return the ports (inputs of nodes) at which a mask is combined with values that depend on the piece ids.

    A mask is a value that depends only on the network's input attention_mask. `dependencies` has, for each node's name, the
    network inputs on which the node depends.
    """
    return [
        port
        for node in model.get_ordered_ops()
        if dependencies[node.get_friendly_name()] == {IDS, MASK}
        for port in node.inputs()
        if dependencies[network.get_source_name(port)] == {MASK}
    ]


def _read_mask_values(value: NDArray[np.generic], length: int) -> tuple[float, float]:
    """Return the two numbers by which a mask tells the network that a piece is visible, and that it is hidden.

    Raise a _NotPackableError unless `value` is a mask of `length` pieces, of which only the first is visible.
    """
    if value.ndim != 4 or value.shape[1] != 1 or value.shape[-1] != length or length < 2:
        raise _NotPackableError
    visible, hidden = value[..., 0], value[..., 1:]
    if visible.min() != visible.max() or hidden.min() != hidden.max() or visible.flat[0] == hidden.flat[0]:
        raise _NotPackableError
    return visible.flat[0].item(), hidden.flat[0].item()


def _find_table_ports(model: ov.Model, dependencies: dict[str, frozenset[str]]) -> list[ov.Input]:
    """Return the ports (node inputs) that select rows of embedding tables, such as the tables of words and of positions.

    `dependencies` has, for each node's name, the network inputs on which the node depends.
    """
    ports = []
    for node in model.get_ordered_ops():
        if (
            node.get_type_name() != "Gather"
            or dependencies[network.get_source_name(node.input(0))]
            or MASK in dependencies[node.get_friendly_name()]
        ):
            continue
        table, picked = node.input(0).get_partial_shape(), node.input(1).get_partial_shape()
        if table.is_static and table.rank.get_length() == 2 and picked.rank.is_static and picked.rank.get_length() == 2:
            ports.append(node.input(1))
    return ports


def _find_positions(
    ports: list[ov.Input], values: list[NDArray[np.generic]], length: int
) -> tuple[ov.Input, NDArray[np.int64]]:
    """Return the port (node input) that selects rows of the position embedding, and the row numbers that it selects.

    `ports` select rows of any embedding. `values` has the row numbers that each port selects for a test input of `length`
    equal pieces. Raise a _NotPackableError unless exactly one port selects rows by position.
    """
    candidates = []
    for port, value in zip(ports, values, strict=True):
        numbers = value.reshape(-1).astype(np.int64)
        # Positions increase by 1. Piece ids and token types are constant, as all pieces of the test input are equal.
        if len(numbers) == length and (np.diff(numbers) == 1).all():
            candidates.append((port, numbers))
    if len(candidates) != 1:
        raise _NotPackableError
    return candidates[0]
