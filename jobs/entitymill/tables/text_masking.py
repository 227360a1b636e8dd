"""Mask mentions in texts, one Arrow batch at a time; executors import this module, so it imports only pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

LABEL = "{label}"
"""Placeholder for the mention's label in a mask."""


def mask_text(text: str, spans: Sequence[tuple[int, int, str]], mask: str) -> str:
    """Return a text in which the mentions at `spans` are replaced by a mask.

    Args:
        text: text of the document.
        spans: (begin, end, label) of each mention to mask, in any order; begin and end are offsets in code points, and end
            is exclusive. Overlapping spans are masked as one span, with the label of the span that begins first.
        mask: replacement for each mention; `{label}` in it stands for the mention's label. A mask of one character is
            repeated to the mention's length, so that offsets do not change.
    """
    pieces, at = [], 0
    for begin, end, label in _merge_overlapping(spans):
        pieces += [text[at:begin], mask * (end - begin) if len(mask) == 1 else mask.replace(LABEL, label)]
        at = end
    return "".join([*pieces, text[at:]])


def _merge_overlapping(spans: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Return the spans sorted by begin, with overlapping spans merged.

    A merged span has the label of the span that begins first, or of the longest one if several begin there.
    """
    merged: list[tuple[int, int, str]] = []
    for begin, end, label in sorted(spans, key=lambda span: (span[0], -span[1], span[2])):
        if merged and begin < merged[-1][1]:
            first, last, outer = merged[-1]
            merged[-1] = (first, max(last, end), outer)
        else:
            merged.append((begin, end, label))
    return merged


@dataclass(frozen=True)
class Masker:
    """Function, for `DataFrame.mapInArrow`, that masks texts; `mask` is the replacement for a mention, as in `mask_text`."""

    mask: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield each batch with the mentions at `spans` masked in the column `text`, and without the column `spans`."""
        for batch in batches:
            spans = [[tuple(span.values()) for span in row] for row in batch.column("spans").to_pylist()]
            texts = map(mask_text, batch.column("text").to_pylist(), spans, [self.mask] * len(spans))
            columns = {name: batch.column(name) for name in batch.schema.names if name != "spans"}
            columns["text"] = pa.array(texts, pa.string())
            yield pa.RecordBatch.from_pydict(columns)
