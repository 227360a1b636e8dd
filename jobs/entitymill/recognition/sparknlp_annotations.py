"""What was found, as Spark NLP's own annotations: the columns `ner` and `ner_chunk`, for pipelines that read these.

Fields and metadata are those of Spark NLP 5.5.3's DistilBertForTokenClassification and NerConverter; offsets are theirs too:
UTF-16 units of the document, both ends inclusive. Chunks are as NerConverter makes them: never trimmed.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from entitymill.recognition.mentions import Found

_METADATA = pa.map_(pa.string(), pa.string())
_LEAST_PLAIN = 1e-3
"""java.lang.Float.toString writes smaller numbers with an exponent."""


def annotate(found: Found) -> dict[str, pa.ListArray]:
    """The columns `ner_chunk` and, where the tags carry scores, `ner`, one list a text."""
    columns = {"ner_chunk": _chunks(found)}
    if found.tags.scores is not None:
        columns["ner"] = _tags(found, found.tags.scores)
    return columns


def _tags(found: Found, scores: NDArray[np.float32]) -> pa.ListArray:
    names, tokens = found.labels, found.tags.tokens
    segments = found.segments
    sentence = segments.sentence_of[tokens] - segments.sentence_starts[found.texts.of(segments.token_begin[tokens])]
    words = found.texts.slices(segments.token_begin[tokens], segments.token_end[tokens])
    metadata = [
        [("sentence", str(number)), ("word", word), *zip(names, map(java_float, row), strict=True)]
        for number, word, row in zip(sentence.tolist(), words, scores, strict=True)
    ]
    results = [names[tag] for tag in found.tags.tags.tolist()]
    return _column("named_entity", found, (tokens, tokens), results, metadata)


def _chunks(found: Found) -> pa.ListArray:
    spans, segments = found.spans, found.segments
    edges = found.tokens[spans.first], found.tokens[spans.last - 1]
    document = found.texts.of(segments.token_begin[edges[0]])
    sentence = segments.sentence_of[edges[0]] - segments.sentence_starts[document]
    number = np.arange(len(document)) - np.searchsorted(document, document)
    written = found.texts.slices(segments.token_begin[edges[0]], segments.token_end[edges[1]])
    confidences = spans.confidences.astype(np.float32)
    described = zip(sentence.tolist(), number.tolist(), spans.kinds.tolist(), confidences, strict=True)
    metadata = [
        [("sentence", str(s)), ("chunk", str(n)), ("entity", found.kinds[kind]), ("confidence", java_float(confidence))]
        for s, n, kind, confidence in described
    ]
    return _column("chunk", found, edges, written, metadata)


def _column(
    kind: str,
    found: Found,
    edges: tuple[NDArray[np.int64], NDArray[np.int64]],
    results: list[str],
    metadata: list[list[tuple[str, str]]],
) -> pa.ListArray:
    """Annotations in order, per text; `edges` are the first and last token of each."""
    segments = found.segments
    begin, end = segments.token_begin[edges[0]], segments.token_end[edges[1]] - 1
    document = found.texts.of(begin)
    before = found.texts.edges[document]
    return found.listed(
        document,
        {
            "annotatorType": pa.array([kind] * len(results), pa.string()),
            "begin": pa.array(begin - before, pa.int32()),
            "end": pa.array(end - before, pa.int32()),
            "result": pa.array(results, pa.string()),
            "metadata": pa.array(metadata, _METADATA),
            "embeddings": pa.array([[]] * len(results), pa.list_(pa.float32())),
        },
    )


def java_float(value: np.float32) -> str:
    """A probability as Java writes a float: the fewest digits that tell it apart, with an exponent below a thousandth."""
    if value >= _LEAST_PLAIN or value == 0:
        return np.format_float_positional(value, unique=True, trim="0")
    return np.format_float_scientific(value, unique=True, trim="0", exp_digits=1).replace("e", "E")
