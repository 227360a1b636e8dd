"""Arrow batches of segmented blocks to flat arrays of tokens, and what was found in these back to documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql.pandas.types import to_arrow_type

from entitymill import schemas
from entitymill.engines import annotation
from entitymill.engines.places import Places
from entitymill.recognition.mentions import Spans, TagScheme
from entitymill.recognition.offsets import code_points, utf16_length
from entitymill.recognition.tagger.tags import Tags

_FAILURE = to_arrow_type(schemas.FAILURE)


@dataclass(frozen=True)
class Segments:
    """Sentences and tokens of a batch of blocks, flat, in code points.

    tokens: the text of every token.
    token_begin, token_end: [tokens] int32, in the token's own block; end exclusive.
    unit_begin, unit_end: [tokens] int64, the same as Spark NLP counts: in UTF-16 units, end inclusive.
    sentence_of: [tokens] int64, index of the token's sentence among all sentences of the batch.
    sentence_begin, sentence_end: [sentences] int32, in their own block, white space trimmed; end exclusive.
    sentence_tokens: [sentences] int64.
    sentence_starts: [blocks + 1] int64; block b has sentences sentence_starts[b]..sentence_starts[b + 1] - 1.
    """

    tokens: list[str]
    token_begin: NDArray[np.int32]
    token_end: NDArray[np.int32]
    unit_begin: NDArray[np.int64]
    unit_end: NDArray[np.int64]
    sentence_of: NDArray[np.int64]
    sentence_begin: NDArray[np.int32]
    sentence_end: NDArray[np.int32]
    sentence_tokens: NDArray[np.int64]
    sentence_starts: NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """What was recognised in a batch of blocks; `texts` are theirs.

    tokens: [tagged] int64, in order, each once.
    spans: over these.
    labels: that tags count in.
    """

    texts: list[str]
    segments: Segments
    tags: Tags
    tokens: NDArray[np.int64]
    spans: Spans
    labels: Sequence[str]
    kinds: list[str]


def found(texts: list[str], segments: Segments, tags: Tags, labels: Sequence[str]) -> Found:
    """Join the tags of a batch's tokens to spans. A token without a tag ends a span, as it does in NerConverter."""
    scheme = TagScheme(labels)
    # The encoding sparknlp may tag a token again, or out of order; the first tag counts.
    tokens, first = np.unique(tags.tokens, return_index=True)
    run = segments.sentence_of[tokens] + tokens - np.arange(len(tokens))  # grows at a new sentence, and at a gap
    spans = scheme.spans(tags.tags[first], tags.confidences[first], run)
    return Found(texts, segments, tags, tokens, spans, labels, scheme.kinds)


def read_segments(batch: pa.RecordBatch, texts: list[str]) -> Segments:
    """Turn a batch's offsets (UTF-16, inclusive) into segments (code points, exclusive, sentences trimmed)."""
    sentence_rows, token_rows = _starts(batch.column("sentence_begin")), _starts(batch.column("token_begin"))
    sb, se, tb, te = (
        batch.column(name).flatten().to_numpy() for name in ("sentence_begin", "sentence_end", "token_begin", "token_end")
    )
    tokens: list[str] = []
    begins, ends, lengths, sentence_of = [], [], [], []
    trimmed: list[tuple[int, int]] = []
    kept = np.zeros(len(texts) + 1, np.int64)
    for row, text in enumerate(texts):
        mine = slice(token_rows[row], token_rows[row + 1])
        own = slice(sentence_rows[row], sentence_rows[row + 1])
        of = np.searchsorted(sb[own], tb[mine], side="right") - 1
        begin, end = code_points(text, tb[mine]), code_points(text, te[mine] + 1)
        tokens += [text[b:e] for b, e in zip(begin.tolist(), end.tolist(), strict=True)]
        counts = np.bincount(of, minlength=own.stop - own.start)
        full = np.flatnonzero(counts)
        units = utf16_length(text)
        first = code_points(text, np.minimum(sb[own], units)[full]).tolist()
        last = code_points(text, np.minimum(se[own] + 1, units)[full]).tolist()
        trimmed += [_trim(text, b, e) for b, e in zip(first, last, strict=True)]
        renumbered = np.cumsum(counts > 0) - 1 + kept[row]
        sentence_of.append(renumbered[of])
        lengths.append(counts[full])
        begins.append(begin)
        ends.append(end)
        kept[row + 1] = kept[row] + len(full)
    edges = np.array(trimmed, np.int32).reshape(-1, 2)
    token_begin, token_end, counts = _joined(begins, np.int32), _joined(ends, np.int32), _joined(lengths, np.int64)
    after = np.cumsum(counts)
    return Segments(
        tokens,
        token_begin,
        token_end,
        tb.astype(np.int64),
        te.astype(np.int64),
        _joined(sentence_of, np.int64),
        # Java and Python differ on what white space is; a sentence always holds its tokens.
        np.minimum(edges[:, 0], token_begin[after - counts]),
        np.maximum(edges[:, 1], token_end[after - 1]),
        counts,
        kept,
    )


def output(
    batch: pa.RecordBatch,
    found: Found,
    seconds: tuple[float, float],
    carried: Sequence[str],
    *,
    with_annotations: bool = False,
) -> pa.RecordBatch:
    """The batch that goes back to Spark: schemas.RECOGNISED, the carried columns untouched, annotations if wanted.

    Args:
        batch: as it came.
        found: in it.
        seconds: spent on it, encoding and inference.
        carried: names of columns to pass on.
        with_annotations: whether to add those schemas.ANNOTATIONS that are not carried.
    """
    # A document's blocks are next to each other, so its first ones cut the batch into documents.
    opens = batch.column("block").to_numpy() == 0
    first = np.flatnonzero(opens)
    segments, spans = found.segments, found.spans
    starts = np.append(segments.sentence_starts[first], segments.sentence_starts[-1])
    timing = np.zeros((2, len(first)))
    timing[:, :1] = np.array(seconds)[:, None]
    documents = batch.take(pa.array(first))
    places = Places(segments.sentence_of[found.tokens[spans.first]], segments.sentence_starts, opens)
    written = _written(found, places)
    columns = {name: documents.column(name) for name in ("doc_id", "text_hash", "chars", *carried)} | {
        "sentences": pa.array(np.diff(starts), pa.int32()),
        "tokens": pa.array(_summed(segments.sentence_tokens, starts), pa.int32()),
        "split_sentences": pa.array(_summed(found.tags.split.astype(np.int64), starts), pa.int32()),
        "mentions": _mentions(documents.column("doc_id").to_pylist(), found, places, written),
        "encoding_seconds": pa.array(timing[0], pa.float64()),
        "inference_seconds": pa.array(timing[1], pa.float64()),
        "failure": pa.nulls(len(first), _FAILURE),
    }
    if with_annotations:
        columns = {**annotation.annotate(found, opens, places, written), **columns}
    # Spark takes them by place: as schemas.RECOGNISED, what is carried, schemas.ANNOTATIONS.
    added = [field.name for field in schemas.ANNOTATIONS if with_annotations and field.name not in carried]
    names = [*(field.name for field in schemas.RECOGNISED), *carried, *added]
    return pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)


def failed(
    document: pa.RecordBatch, code: str, detail: str, carried: Sequence[str], *, with_annotations: bool = False
) -> pa.RecordBatch:
    """What goes back to Spark in the place of a document's results: one row that says why there are none.

    Args:
        document: its blocks, as they came.
        code: why, one word.
        detail: why, with numbers; never text.
        carried: names of columns to pass on.
        with_annotations: as in `output`.
    """
    none, few, flags = np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.bool_)
    segments = Segments([], few, few, none, none, none, few, few, none, np.zeros(2, np.int64))
    tags = Tags(none, none.astype(np.int16), none.astype(np.float32), np.zeros((0, 0), np.float32), flags)
    nothing = Found([""], segments, tags, none, Spans(none, none, none, none.astype(np.float64)), (), [])
    row = output(document.slice(0, 1), nothing, (0.0, 0.0), carried, with_annotations=with_annotations)
    at = row.schema.get_field_index("failure")
    return row.set_column(at, "failure", pa.array([{"code": code, "detail": detail}], _FAILURE))


def _written(found: Found, places: Places) -> list[str]:
    """The text of every span."""
    begin = found.segments.token_begin[found.tokens[found.spans.first]].tolist()
    end = found.segments.token_end[found.tokens[found.spans.last - 1]].tolist()
    return [found.texts[block][b:e] for block, b, e in zip(places.block.tolist(), begin, end, strict=True)]


def _mentions(doc_ids: list[str], found: Found, places: Places, written: list[str]) -> pa.ListArray:
    """Per document its mentions, in order.

    Args:
        doc_ids: of every document of the batch.
        found: in it.
        places: of the spans.
        written: their text.
    """
    segments, spans = found.segments, found.spans
    opening, closing = found.tokens[spans.first], found.tokens[spans.last - 1]
    sentence = segments.sentence_of[opening]
    shift = places.before([len(text) for text in found.texts])
    begin, end = segments.token_begin[opening] + shift, segments.token_end[closing] + shift
    named = zip(places.document.tolist(), begin.tolist(), end.tolist(), strict=True)
    fields = {
        "mention_id": pa.array([f"{doc_ids[d]}:{b}-{e}" for d, b, e in named], pa.string()),
        "sentence_id": pa.array(places.sentence, pa.int32()),
        "sentence_begin": pa.array(segments.sentence_begin[sentence] + shift, pa.int32()),
        "sentence_end": pa.array(segments.sentence_end[sentence] + shift, pa.int32()),
        "begin": pa.array(begin, pa.int32()),
        "end": pa.array(end, pa.int32()),
        "entity": pa.array(written, pa.string()),
        "label": pa.array([found.kinds[kind] for kind in spans.kinds.tolist()], pa.string()),
        "confidence": pa.array(spans.confidences, pa.float32()),
        "token_count": pa.array(spans.last - spans.first, pa.int32()),
    }
    return places.listed(fields)


def _starts(column: pa.ListArray) -> NDArray[np.int64]:
    """[rows + 1] where each row's values start in the flattened column."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0]


def _summed(values: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[rows] sum of values[starts[i]:starts[i + 1]]."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    return sums[starts[1:]] - sums[starts[:-1]]


def _joined(parts: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *parts])


def _trim(text: str, begin: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends."""
    inner = text[begin:end]
    stripped = inner.strip()
    begin += len(inner) - len(inner.lstrip())
    return begin, begin + len(stripped)
