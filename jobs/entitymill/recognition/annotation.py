"""What was found, as Spark NLP's own annotations: the columns `ner` and `ner_chunk`, for pipelines that read these.

Fields and metadata are those of Spark NLP 5.5.3's DistilBertForTokenClassification and NerConverter; offsets are theirs too:
UTF-16 units of the document, both ends inclusive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from entitymill.engines.places import Places
from entitymill.recognition.offsets import utf16_length

if TYPE_CHECKING:
    from entitymill.engines.documents import Found

_METADATA = pa.map_(pa.string(), pa.string())
_LEAST_PLAIN = 1e-3
"""java.lang.Float.toString writes smaller numbers with an exponent."""


def annotate(found: Found, opens: NDArray[np.bool_], spans: Places, written: list[str]) -> dict[str, pa.ListArray]:
    """The columns `ner_chunk` and, where the tags carry scores, `ner`.

    Args:
        found: in a batch of blocks.
        opens: [blocks] whether a block is its document's first.
        spans: where the spans are.
        written: the text of each.
    """
    columns = {"ner_chunk": _chunks(found, spans, written)}
    if found.tags.scores is not None:
        segments = found.segments
        tagged = Places(segments.sentence_of[found.tags.tokens], segments.sentence_starts, opens)
        columns["ner"] = _tags(found, tagged, found.tags.scores)
    return columns


def _tags(found: Found, places: Places, scores: NDArray[np.float32]) -> pa.ListArray:
    names, tokens = found.labels, found.tags.tokens
    metadata = [
        [("sentence", str(sentence)), ("word", found.segments.tokens[token]), *zip(names, map(java_float, row), strict=True)]
        for sentence, token, row in zip(places.sentence.tolist(), tokens.tolist(), scores, strict=True)
    ]
    results = [names[tag] for tag in found.tags.tags.tolist()]
    return _column("named_entity", found, places, (tokens, tokens), results, metadata)


def _chunks(found: Found, places: Places, written: list[str]) -> pa.ListArray:
    spans = found.spans
    number = np.arange(len(written)) - np.searchsorted(places.document, places.document)
    confidences = spans.confidences.astype(np.float32)
    described = zip(places.sentence.tolist(), number.tolist(), spans.kinds.tolist(), confidences, strict=True)
    metadata = [
        [("sentence", str(s)), ("chunk", str(n)), ("entity", found.kinds[kind]), ("confidence", java_float(confidence))]
        for s, n, kind, confidence in described
    ]
    edges = found.tokens[spans.first], found.tokens[spans.last - 1]
    return _column("chunk", found, places, edges, written, metadata)


def _column(
    kind: str,
    found: Found,
    places: Places,
    edges: tuple[NDArray[np.int64], NDArray[np.int64]],
    results: list[str],
    metadata: list[list[tuple[str, str]]],
) -> pa.ListArray:
    """Annotations in order, per document; `edges` are the first and last token of each."""
    shift = places.before([utf16_length(text) for text in found.texts])
    return places.listed(
        {
            "annotatorType": pa.array([kind] * len(results), pa.string()),
            "begin": pa.array(found.segments.unit_begin[edges[0]] + shift, pa.int32()),
            "end": pa.array(found.segments.unit_end[edges[1]] + shift, pa.int32()),
            "result": pa.array(results, pa.string()),
            "metadata": pa.array(metadata, _METADATA),
            "embeddings": pa.array([[]] * len(results), pa.list_(pa.float32())),
        }
    )


def java_float(value: np.float32) -> str:
    """A probability as Java writes a float: the fewest digits that tell it apart, with an exponent below a thousandth."""
    if value >= _LEAST_PLAIN or value == 0:
        return np.format_float_positional(value, unique=True, trim="0")
    return np.format_float_scientific(value, unique=True, trim="0", exp_digits=1).replace("e", "E")
