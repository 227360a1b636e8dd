"""Tag without packing, for comparison: sentences of similar length share a batch, padded to the longest sentence.

The planner and the loop around it are those of Entity Mill 0.1.0 (entitymill/tagger/batching.py). A batch of B rows of L
pieces costs about as much as B * L + OVERHEAD_PIECES pieces. The planner minimizes the total cost with a shortest path over
the sorted rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from entitymill.recognition.tagger import Precision, bundle, network
from entitymill.recognition.tagger.inference import SENTENCES_AT_ONCE, build_row_maker, read_tokenizer
from entitymill.recognition.tagger.tokens_to_model_input import SPECIAL_PIECES, Rows

OVERHEAD_PIECES = 10
MAX_BATCH_PIECES = 768
LENGTH_STEP = 2
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)


@dataclass(frozen=True)
class Batch:
    """Rows that are run together, padded to one length."""

    rows: NDArray[np.int64]
    length: int


def plan(lengths: NDArray[np.int64], limit: int) -> list[Batch]:
    """Partition rows into batches with the lowest total cost.

    Args:
        lengths: [rows] pieces of each row, special pieces included; none above `limit`.
        limit: the model's longest input; no batch is padded past it.
    """
    order = np.argsort(lengths, kind="stable")
    padded = np.minimum(-(-lengths[order] // LENGTH_STEP) * LENGTH_STEP, limit).tolist()
    count = len(padded)
    best = [0.0] * (count + 1)
    size_of = [1] * (count + 1)
    for end in range(1, count + 1):
        length = padded[end - 1]
        cheapest, chosen = float("inf"), 1
        for size in SIZES:
            if size > end or (size > 1 and size * length > MAX_BATCH_PIECES):
                break
            cost = best[end - size] + size * length + OVERHEAD_PIECES
            if cost < cheapest:
                cheapest, chosen = cost, size
        best[end], size_of[end] = cheapest, chosen
    batches = []
    end = count
    while end:
        size = size_of[end]
        batches.append(Batch(order[end - size : end], padded[end - 1]))
        end -= size
    return batches[::-1]


class PaddedTagger:
    """Tags sentences as version 0.1.0 did, with the same network compiled in the same way."""

    def __init__(self, directory: Path, precision: Precision) -> None:
        """Load the model of a bundle."""
        manifest, files = bundle.read_directory(directory)
        bundle.check_files(files, manifest, str(directory))
        self.labels = bundle.read_tags(files[bundle.LABELS])
        self._maker = build_row_maker(read_tokenizer(files, manifest), manifest, "complete")
        model = network.read_network(files[bundle.NETWORK], files[bundle.WEIGHTS], str(directory))
        self._request = network.compile_model(model, precision, 1).create_infer_request()

    def tag(self, tokens: list[str], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return [tokens] the tag of each token; no sentence may be empty."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        tags = []
        for at in range(0, len(lengths), SENTENCES_AT_ONCE):
            part = starts[at : at + SENTENCES_AT_ONCE + 1]
            tags.append(self._tag(tokens[part[0] : part[-1]], part - part[0]))
        return np.concatenate(tags)

    def _tag(self, tokens: list[str], starts: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = self._maker.make_rows(tokens, starts, np.zeros(len(tokens), np.int64))
        logits = np.zeros((len(rows.tokens), len(self.labels)), np.float32)
        for batch in plan(rows.end - rows.begin + SPECIAL_PIECES, self._maker.max_length):
            self._run(batch, rows, logits)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).argmax(axis=1)

    def _run(self, batch: Batch, rows: Rows, logits: NDArray[np.float32]) -> None:
        ids = np.full((len(batch.rows), batch.length), self._maker.pad_id, np.int64)
        mask = np.zeros_like(ids)
        ids[:, 0] = self._maker.cls_id
        into, at = [], []
        for line, row in enumerate(batch.rows):
            count = rows.end[row] - rows.begin[row]
            ids[line, 1 : count + 1] = rows.ids[rows.begin[row] : rows.end[row]]
            ids[line, count + 1] = self._maker.sep_id
            mask[line, : count + SPECIAL_PIECES] = 1
            tagged = slice(rows.starts[row], rows.starts[row + 1])
            into.append(np.arange(tagged.start, tagged.stop))
            at.append(rows.positions[tagged] + line * batch.length)
        found = self._request.infer(dict(zip(network.INPUTS, (ids, mask), strict=True)), share_inputs=True)[0]
        logits[np.concatenate(into)] = found.reshape(-1, found.shape[-1])[np.concatenate(at)]
