"""Sentences end to end in rows of few lengths, so that next to nothing is padding and one compiled shape does for all.

A row holds several sentences; the network is told which piece belongs to which, so that none sees another. Two inputs take
the place of attention_mask: `positions`, which count anew in each sentence, and `segments`, which say which sentence of its
row a piece belongs to. Where a mask met the attention, "the same segment" stands now. Nothing is known of the architecture
but that: masks and positions are found by what they depend on, and tried out. (Krell et al. 2021, "Efficient Sequence
Packing without Cross-contamination", for the idea.)
First fit, longest first, fills the rows to some 99 %. Sentences that say the same are run once.
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
"""Pieces of a row. A longer sentence gets rows of twice the length, or four times, and so on. AMX wants multiples of 16:
there 64 and 128 are alike; without AMX 64 is the faster."""
BATCH_PIECES = 768
"""Pieces of a batch: beyond some 1,000 its activations leave the core's cache and each piece gets dearer."""
IDS, MASK = "input_ids", "attention_mask"
POSITIONS, SEGMENTS = "positions", "segments"


@dataclass(frozen=True)
class Batch:
    """Rows to run together.

    items: [items] int64, which sentences.
    row, column: [items] int64, the row each is in, and its first piece's place there.
    rows, length: the shape.
    """

    items: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    rows: int
    length: int


def plan(lengths: NDArray[np.int64], limit: int, *, packed: bool) -> Iterator[Batch]:
    """Partition sentences into batches.

    Args:
        lengths: [items] pieces of each, special pieces included; none above `limit`.
        limit: the model's longest input; no row is longer, unless several sentences share it.
        packed: whether sentences may share a row. Otherwise each has one, beside others of like length.
    """
    return _packed(lengths) if packed else _apart(lengths, limit)


def _packed(lengths: NDArray[np.int64]) -> Iterator[Batch]:
    rows, sizes = _first_fit(lengths)
    for length in sorted(set(sizes)):
        mine = [row for row, size in zip(rows, sizes, strict=True) if size == length]
        at_once = max(1, BATCH_PIECES // length)
        for first in range(0, len(mine), at_once):
            part = mine[first : first + at_once]
            items = np.array([item for row in part for item in row], np.int64)
            row = np.repeat(np.arange(len(part)), [len(row) for row in part])
            yield Batch(items, row, _columns(lengths[items], row), len(part), length)


def _first_fit(lengths: NDArray[np.int64]) -> tuple[list[list[int]], list[int]]:
    """The items of every row, and the length of each."""
    rows: list[list[int]] = []
    sizes: list[int] = []
    with_room: dict[int, list[int]] = {}
    rooms = 0  # bit n: some row has room for n pieces, and no more
    for item in np.argsort(-lengths, kind="stable").tolist():
        needed = int(lengths[item])
        fitting = rooms >> needed
        if fitting:
            room = needed + (fitting & -fitting).bit_length() - 1  # the least that is enough
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


def _columns(lengths: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the items of some rows starts in its own."""
    before = np.cumsum(lengths) - lengths
    return before - before[np.searchsorted(row, row)]


def _apart(lengths: NDArray[np.int64], limit: int) -> Iterator[Batch]:
    """One sentence a row, like lengths together, padded to the longest rounded up to 8."""
    order = np.argsort(lengths, kind="stable")
    padded = np.minimum(-(-lengths[order] // 8) * 8, limit)
    end = len(order)
    while end:
        length = int(padded[end - 1])
        count = min(end, max(1, BATCH_PIECES // length))
        items = order[end - count : end]
        yield Batch(items, np.arange(count), np.zeros(count, np.int64), count, length)
        end -= count


def distinct(
    ids: NDArray[np.int32], first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[list[int], NDArray[np.int64]]:
    """Sentences that differ, and for each sentence which of these it equals.

    Args:
        ids: [pieces] of all sentences.
        first: [sentences] where each one's pieces start.
        last: [sentences] where they end.
    """
    known: dict[bytes, int] = {}
    kept: list[int] = []
    same = np.zeros(len(first), np.int64)
    for number, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        found = known.setdefault(ids[begin:end].tobytes(), len(kept))
        if found == len(kept):
            kept.append(number)
        same[number] = found
    return kept, same


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
        values = network.evaluate(model, outputs, {IDS: ids, MASK: first_alone})
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
