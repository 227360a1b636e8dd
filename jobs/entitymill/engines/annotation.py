"""What was found, as Spark NLP's own annotations: the columns `ner` and `ner_chunk`, for pipelines that read these.

Fields and metadata are those of Spark NLP 5.5.3's DistilBertForTokenClassification and NerConverter; offsets are theirs too:
UTF-16 units of the document, both ends inclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from entitymill.engines.documents import Found

_METADATA = pa.map_(pa.string(), pa.string())
_LEAST_PLAIN = 1e-3
"""java.lang.Float.toString writes smaller numbers with an exponent."""


def annotate(found: Found, opens: NDArray[np.bool_], starts: NDArray[np.int64]) -> dict[str, pa.ListArray]:
    """The columns `ner_chunk` and, where the tags carry scores, `ner`.

    Args:
        found: in a batch of blocks.
        opens: [blocks] whether a block is its document's first.
        starts: [documents + 1] where each document's sentences start.
    """
    columns = {"ner_chunk": _chunks(found, _Place(found, found.tokens, opens, starts))}
    if found.tags.scores is not None:
        columns["ner"] = _tags(found, _Place(found, found.tags.tokens, opens, starts))
    return columns


class _Place:
    """Where each of some tokens is; all arrays are [tokens]: document, sentence in it, begin and end in it."""

    def __init__(self, found: Found, tokens: NDArray[np.int64], opens: NDArray[np.bool_], starts: NDArray[np.int64]) -> None:
        segments = found.segments
        units = np.array([len(text.encode("utf-16-le", "surrogatepass")) // 2 for text in found.texts], np.int64)
        before = np.cumsum(units) - units
        document_of = np.cumsum(opens) - 1
        sentence = segments.sentence_of[tokens]
        block = np.searchsorted(segments.sentence_starts, sentence, side="right") - 1
        shift = before[block] - before[np.flatnonzero(opens)][document_of[block]]
        self.documents = int(opens.sum())
        self.document = document_of[block]
        self.sentence = sentence - starts[self.document]
        self.begin = segments.unit_begin[tokens] + shift
        self.end = segments.unit_end[tokens] + shift


def _tags(found: Found, place: _Place) -> pa.ListArray:
    scores: Any = [] if found.tags.scores is None else found.tags.scores
    names = found.labels
    metadata = [
        [("sentence", str(sentence)), ("word", found.segments.tokens[token]), *zip(names, map(java_float, row), strict=True)]
        for sentence, token, row in zip(place.sentence.tolist(), found.tags.tokens.tolist(), scores, strict=True)
    ]
    results = [names[tag] for tag in found.tags.tags.tolist()]
    return _column("named_entity", place.document, place.documents, (place.begin, place.end, results, metadata))


def _chunks(found: Found, place: _Place) -> pa.ListArray:
    spans, tokens, segments = found.spans, found.tokens, found.segments
    opening, closing = spans.first, spans.last - 1
    block = np.searchsorted(segments.sentence_starts, segments.sentence_of[tokens[opening]], side="right") - 1
    begins, ends = segments.token_begin[tokens[opening]].tolist(), segments.token_end[tokens[closing]].tolist()
    results = [found.texts[row][b:e] for row, b, e in zip(block.tolist(), begins, ends, strict=True)]
    document = place.document[opening]
    number = np.arange(len(document)) - np.searchsorted(document, document)
    confidences = spans.confidences.astype(np.float32)
    described = zip(place.sentence[opening].tolist(), number.tolist(), spans.kinds.tolist(), confidences, strict=True)
    metadata = [
        [("sentence", str(s)), ("chunk", str(n)), ("entity", found.kinds[kind]), ("confidence", java_float(confidence))]
        for s, n, kind, confidence in described
    ]
    return _column("chunk", document, place.documents, (place.begin[opening], place.end[closing], results, metadata))


def _column(kind: str, document: NDArray[np.int64], documents: int, values: Sequence[Any]) -> pa.ListArray:
    """Annotations in order, per document."""
    begin, end, results, metadata = values
    fields = {
        "annotatorType": pa.array([kind] * len(results), pa.string()),
        "begin": pa.array(begin, pa.int32()),
        "end": pa.array(end, pa.int32()),
        "result": pa.array(results, pa.string()),
        "metadata": pa.array(metadata, _METADATA),
        "embeddings": pa.array([[]] * len(results), pa.list_(pa.float32())),
    }
    structs = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    offsets = np.searchsorted(document, np.arange(documents + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)


def java_float(value: np.float32) -> str:
    """A probability as Java writes a float: the fewest digits that tell it apart, with an exponent below a thousandth."""
    if value >= _LEAST_PLAIN or value == 0:
        return np.format_float_positional(value, unique=True, trim="0")
    return np.format_float_scientific(value, unique=True, trim="0", exp_digits=1).replace("e", "E")
