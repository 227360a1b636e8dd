"""A text goes in, its mentions come out: sentences, tokens, tags and mentions of many texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from entitymill.recognition import offsets, tokens
from entitymill.recognition.decoding import choose_labels
from entitymill.recognition.mentions import Found, Spans, TagScheme, trimmed
from entitymill.recognition.offsets import PARTING, Texts
from entitymill.recognition.sentences import Detector
from entitymill.recognition.tagger import Tags
from entitymill.recognition.tagger.bundle import Scheme
from entitymill.recognition.tagger.inference import Seconds, Tagger
from entitymill.recognition.tokens import Segments

_METADATA = pa.map_(pa.string(), pa.string())
_LEAST_PLAIN = 1e-3
"""java.lang.Float.toString writes smaller numbers with an exponent."""


@dataclass(frozen=True)
class Recognised:
    """What was recognised in some texts; all arrays have one value a text, in their order.

    sentences, tokens: int32, how many there are; a sentence has at least one token.
    split_sentences: int32, those longer than the model's limit, or in the encoding sparknlp cut short by it.
    mentions: list of structs of sentence_id, sentence_begin, sentence_end, begin, end (int32, code points of the text, ends
        exclusive), entity, label (strings), confidence (float32), token_count (int32), in order.
    annotations: Spark NLP's `ner` and `ner_chunk`, where they were asked for.
    """

    sentences: pa.Int32Array
    tokens: pa.Int32Array
    split_sentences: pa.Int32Array
    mentions: pa.ListArray
    annotations: dict[str, pa.ListArray] = field(default_factory=dict)


class Recogniser:
    """A sentence detector and a tagger; one per process, not shared between threads."""

    def __init__(self, detector: Detector, tagger: Tagger, *, trim: bool, consistent_labels: bool = False) -> None:
        """Take what it works with.

        Args:
            detector: of sentences.
            tagger: of tokens.
            trim: whether mentions lose a possessive ending and stray punctuation at their ends.
            consistent_labels: whether mentions of one document that are spelled alike get one label.
        """
        self._detector = detector
        self._tagger = tagger
        self._options = {"trim": trim, "consistent_labels": consistent_labels}

    @property
    def seconds(self) -> Seconds:
        """Wall seconds spent so far on encoding and on inference."""
        return self._tagger.seconds

    def __call__(self, texts: pa.Array, *, annotations: bool = False) -> Recognised:
        """Recognise.

        Args:
            texts: strings or large strings, none null.
            annotations: whether to return every tag and chunk as Spark NLP's annotations too.
        """
        whole = offsets.read(texts)
        segments = tokens.cut(whole, self._detector.breaks(whole))
        begins = segments.token_begin - whole.edges[whole.of(segments.token_begin)]
        written = whole.slices(segments.token_begin, segments.token_end)
        tags = self._tagger.tag(written, segments.sentence_tokens, begins, scores=annotations)
        found = join(whole, segments, tags, self._tagger.labels, self._tagger.scheme)
        return recognised(found, **self._options, annotations=annotations)


def join(texts: Texts, segments: Segments, tags: Tags, labels: Sequence[str], scheme: Scheme = "iob2") -> Found:
    """Join the tags of tokens to spans. A token without a tag ends a span, as it does in NerConverter.

    Args:
        texts: that were tagged.
        segments: of them.
        tags: of their tokens; the encoding sparknlp may tag a token again, or out of order: its first tag counts.
        labels: that the tags count in.
        scheme: of these.
    """
    meanings = TagScheme(labels, parts_kinds=scheme == "iob1")
    tagged, first = np.unique(tags.tokens, return_index=True)
    run = segments.sentence_of[tagged] + tagged - np.arange(len(tagged))  # grows at a new sentence, and at a gap
    spans = meanings.spans(tags.tags[first], tags.confidences[first], run)
    return Found(texts, segments, tags, tagged, spans, tuple(labels), tuple(meanings.kinds))


def recognised(found: Found, *, trim: bool, consistent_labels: bool = False, annotations: bool = False) -> Recognised:
    """Return what was found, text by text; options as `Recogniser` takes them."""
    segments = found.segments
    starts = segments.sentence_starts
    return Recognised(
        sentences=pa.array(np.diff(starts), pa.int32()),
        tokens=pa.array(_summed(segments.sentence_tokens, starts), pa.int32()),
        split_sentences=pa.array(_summed(found.tags.split.astype(np.int64), starts), pa.int32()),
        mentions=_mentions(found, trim=trim, consistent_labels=consistent_labels),
        annotations=annotate(found) if annotations else {},
    )


def _mentions(found: Found, *, trim: bool, consistent_labels: bool) -> pa.ListArray:
    texts, segments = found.texts, found.segments
    spans = _named(found) if trim else found.spans
    opening, closing = found.tokens[spans.first], found.tokens[spans.last - 1]
    begin, end = (texts.code_points(places) for places in (segments.token_begin[opening], segments.token_end[closing]))
    if trim:
        taken = [trimmed(texts.text[b:e]) for b, e in zip(begin.tolist(), end.tolist(), strict=True)]
        leading, trailing = np.array(taken, np.int64).reshape(-1, 2).T
        begin, end = begin + leading, end - trailing
    sentence = segments.sentence_of[opening]
    document = texts.of(segments.token_begin[opening])
    start = texts.code_points(texts.edges)[document]
    first = np.searchsorted(segments.token_end, texts.units_at(begin), side="right")
    last = np.searchsorted(segments.token_begin, texts.units_at(end), side="left")
    entities = [texts.text[b:e] for b, e in zip(begin.tolist(), end.tolist(), strict=True)]
    kinds, confidences = spans.kinds, spans.confidences
    if consistent_labels:
        kinds, confidences = choose_labels(list(zip(document.tolist(), entities, strict=True)), kinds, confidences)
    fields = {
        "sentence_id": pa.array(sentence - segments.sentence_starts[document], pa.int32()),
        "sentence_begin": pa.array(texts.code_points(segments.sentence_begin[sentence]) - start, pa.int32()),
        "sentence_end": pa.array(texts.code_points(segments.sentence_end[sentence]) - start, pa.int32()),
        "begin": pa.array(begin - start, pa.int32()),
        "end": pa.array(end - start, pa.int32()),
        "entity": pa.array(entities, pa.string()),
        "label": pa.array([found.kinds[kind] for kind in kinds.tolist()], pa.string()),
        "confidence": pa.array(confidences, pa.float32()),
        "token_count": pa.array(last - first, pa.int32()),
    }
    return found.listed(document, fields)


def _named(found: Found) -> Spans:
    """The spans with a letter or a digit in them: of any other nothing is left once it is trimmed."""
    segments, spans = found.segments, found.spans
    edges = segments.token_begin[found.tokens[spans.first]], segments.token_end[found.tokens[spans.last - 1]]
    # Of the parting character no token is made.
    named = (text.replace(PARTING, " ") for text in found.texts.slices(*edges))
    kept = [number for number, text in enumerate(named) if any(map(str.isalnum, text))]
    if len(kept) == len(spans.first):
        return spans
    return Spans(spans.first[kept], spans.last[kept], spans.kinds[kept], spans.confidences[kept])


def _summed(values: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[texts] sum of values[starts[i]:starts[i + 1]]."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    return sums[starts[1:]] - sums[starts[:-1]]


def annotate(found: Found) -> dict[str, pa.ListArray]:
    """What was found as Spark NLP's own annotations: `ner_chunk` and, where the tags carry scores, `ner`, one list a text.

    Fields and metadata are those of Spark NLP 5.5.3's DistilBertForTokenClassification and NerConverter; offsets are theirs
    too: UTF-16 units of the document, both ends inclusive. Chunks are as NerConverter makes them: never trimmed.
    """
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
