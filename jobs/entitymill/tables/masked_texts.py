"""Mentions masked in their texts, batch by batch: what executors do of a redaction, with nothing but Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

LABEL = "{label}"
"""In a mask, stands for the mention's label."""


def mask_text(text: str, spans: Sequence[tuple[int, int, str]], mask: str) -> str:
    """A text without some of its mentions.

    Args:
        text: the document.
        spans: begin and end in code points, end exclusive, and label of each, in any order. Spans that overlap are masked
            as one, under the label of the one that begins first.
        mask: in their place, with the label for `{label}`; one character is repeated, so that offsets stay as they are.
    """
    pieces, at = [], 0
    for begin, end, label in _merge_overlapping(spans):
        pieces += [text[at:begin], mask * (end - begin) if len(mask) == 1 else mask.replace(LABEL, label)]
        at = end
    return "".join([*pieces, text[at:]])


def _merge_overlapping(spans: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Return the spans in order, with those that share a character joined.

    The first of them gives the label; of several that begin together, the longest.
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
    """Rows of texts and spans to rows of masked texts, batch by batch."""

    mask: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Batches with text and spans to the same without spans, the text masked."""
        for batch in batches:
            spans = [[tuple(span.values()) for span in row] for row in batch.column("spans").to_pylist()]
            texts = map(mask_text, batch.column("text").to_pylist(), spans, [self.mask] * len(spans))
            columns = {name: batch.column(name) for name in batch.schema.names if name != "spans"}
            columns["text"] = pa.array(texts, pa.string())
            yield pa.RecordBatch.from_pydict(columns)
