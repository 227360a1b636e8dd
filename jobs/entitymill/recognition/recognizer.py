"""Recognize many texts at once: find their sentences, tokens, tags and mentions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from entitymill.recognition import offsets, tokens
from entitymill.recognition.best_tags_and_confidence import Scaling, make_labels_consistent, scale_confidences
from entitymill.recognition.html_markup import blank_markup
from entitymill.recognition.offsets import NUMERIC_SEPARATOR, Texts
from entitymill.recognition.sentences import Detector
from entitymill.recognition.tagger import Markup, Tags
from entitymill.recognition.tagger.bundle import Scheme
from entitymill.recognition.tagger.inference import Seconds, Tagger
from entitymill.recognition.tags_to_mentions import Spans, TaggedTexts, TagScheme, measure_trim
from entitymill.recognition.tokens import Segments

_LINE_FEED = ord("\n")
_METADATA = pa.map_(pa.string(), pa.string())
_MIN_WITHOUT_EXPONENT = 1e-3
"""The smallest number that java.lang.Float.toString writes without an exponent."""


@dataclass(frozen=True)
class Recognition:
    """The results of recognition; each array has one value per text, in the order of the texts.

    sentences, tokens: int32, number of sentences and of tokens; a sentence has at least one token.
    split_sentences: int32, number of sentences longer than the model's limit. They are tagged in overlapping parts or, with
        `recognition.encoding: sparknlp`, truncated.
    mentions: list of the text's mentions in order; each is a struct with the fields of `python_api.Mention`. The fields
        entity and label are strings, confidence is float32, and all others are int32. Offsets are in code points of the
        text, and ends are exclusive. token_count is the number of tokens that the mention overlaps.
    annotations: the columns `ner` and `ner_chunk` in Spark NLP's format, by name; empty unless requested.
    """

    sentences: pa.Int32Array
    tokens: pa.Int32Array
    split_sentences: pa.Int32Array
    mentions: pa.ListArray
    annotations: dict[str, pa.ListArray] = field(default_factory=dict)


class Recognizer:
    """A sentence detector and a tagger that together find the mentions in texts. Not thread-safe.

    White space outside ASCII, such as a no-break space, separates words, unless `recognition.encoding` is sparknlp.
    """

    def __init__(
        self, detector: Detector, tagger: Tagger, *, trim: bool, consistent_labels: bool = False, markup: Markup = "none"
    ) -> None:
        """Combine a sentence detector and a tagger.

        Args:
            trim: whether to trim mentions (punctuation, HTML tags, emoji), and to drop those without a letter or digit.
            consistent_labels: whether all mentions with exactly the same characters in a document get the same label.
            markup: `html` to ignore HTML tags in the texts, `none` to treat them as text.
        """
        self._markup = markup
        self._detector = detector
        self._tagger = tagger
        self._options = {"trim": trim, "consistent_labels": consistent_labels}

    @property
    def seconds(self) -> Seconds:
        """Return the wall-clock seconds spent so far on each part of recognition."""
        return self._tagger.seconds

    def __call__(self, texts: pa.Array, *, annotations: bool = False) -> Recognition:
        """Return the mentions and the numbers of sentences and tokens of each text, and add the time spent to `seconds`.

        Args:
            texts: Arrow array of strings or large strings without nulls.
            annotations: whether to also return annotations: every tag and mention in Spark NLP's format.
        """
        began = perf_counter()
        original = offsets.read_texts(texts)
        visible = self._blank_markup_and_wide_spaces(texts, original)
        segments = tokens.tokenize(visible, self._find_breaks(visible, original))
        begins = segments.token_begin - visible.edges[visible.find_texts(segments.token_begin)]
        words = visible.extract_substrings(segments.token_begin, segments.token_end)
        segmented = perf_counter()
        model_seconds = self.seconds.encoding + self.seconds.inference
        tags = self._tagger.tag(words, segments.sentence_tokens, begins, scores=annotations)
        tagged = join_tags(visible, segments, tags, self._tagger.labels, self._tagger.scheme)
        recognition = build_recognition(
            tagged, **self._options, annotations=annotations, scalings=self._tagger.scalings, original=original
        )
        model_seconds = self.seconds.encoding + self.seconds.inference - model_seconds
        self.seconds.segmentation += segmented - began
        self.seconds.mentions += perf_counter() - segmented - model_seconds
        return recognition

    def _blank_markup_and_wide_spaces(self, texts: pa.Array, original: Texts) -> Texts:
        """Return texts with blanks or line feeds in place of HTML tags and white space outside ASCII; no position changes.

        `texts` and `original` contain the same texts. HTML tags are replaced only if the recognizer's `markup` is html,
        and white space outside ASCII only if the setting `recognition.encoding` is not sparknlp.
        """
        visible = original
        if self._markup == "html":
            visible = offsets.read_texts(pa.array([blank_markup(text) for text in texts.to_pylist()], pa.large_string()))
        return visible if self._tagger.encoding == "sparknlp" else visible.replace_wide_blanks()

    def _find_breaks(self, visible: Texts, original: Texts) -> NDArray[np.int64]:
        """Return the positions where sentences begin or end, from the sentence detector and from HTML tags such as <p>.

        `visible` has line feeds in place of these tags. Each of these line feeds becomes a break, because not every sentence
        detector ends a sentence at a line feed.
        """
        breaks = self._detector.find_breaks(visible)
        if self._markup == "none":
            return breaks
        return np.union1d(breaks, np.flatnonzero((visible.code_units == _LINE_FEED) & (original.code_units != _LINE_FEED)))


def join_tags(texts: Texts, segments: Segments, tags: Tags, labels: Sequence[str], scheme: Scheme = "iob2") -> TaggedTexts:
    """Join tagged tokens into spans (the tokens of one name), and return the texts with their tags and spans.

    A token missing in `tags` ends a span, as in Spark NLP. `labels` are the model's tags in the order of its outputs (O, …).

    Args:
        tags: the tags of tokens, in any order; if a token has several tags (with encoding sparknlp), the first is used.
    """
    tag_scheme = TagScheme(labels, splits_kinds=scheme == "iob1")
    tagged, first = np.unique(tags.tokens, return_index=True)
    # A number for each token that increases at the beginning of a sentence and after a token without a tag.
    group = segments.sentence_of[tagged] + tagged - np.arange(len(tagged))
    spans = tag_scheme.join_tags_to_spans(tags.tags[first], tags.confidences[first], group)
    return TaggedTexts(texts, segments, tags, tagged, spans, tuple(labels), tuple(tag_scheme.kinds))


def build_recognition(
    tagged: TaggedTexts,
    *,
    trim: bool,
    consistent_labels: bool = False,
    annotations: bool = False,
    scalings: Mapping[str, Scaling] | None = None,
    original: Texts | None = None,
) -> Recognition:
    """Build the results of recognition from tagged texts; `Recognizer.__init__` explains `trim` and `consistent_labels`.

    Args:
        annotations: whether to also build annotations, in Spark NLP's format.
        scalings: dict from a label to the scaling of its mentions' confidences. Annotations have unscaled confidences.
        original: the texts before blanks and line feeds replaced any characters; the text of a mention is copied from here.
            None for `tagged.texts`.
    """
    original = original or tagged.texts
    segments = tagged.segments
    starts = segments.sentence_starts
    return Recognition(
        sentences=pa.array(np.diff(starts), pa.int32()),
        tokens=pa.array(_sum_per_text(segments.sentence_tokens, starts), pa.int32()),
        split_sentences=pa.array(_sum_per_text(tagged.tags.split.astype(np.int64), starts), pa.int32()),
        mentions=_build_mentions(tagged, original, scalings or {}, trim=trim, consistent_labels=consistent_labels),
        annotations=build_annotations(tagged, original) if annotations else {},
    )


def _build_mentions(
    tagged: TaggedTexts, original: Texts, scalings: Mapping[str, Scaling], *, trim: bool, consistent_labels: bool
) -> pa.ListArray:
    """Return `Recognition.mentions`: one mention for each span in `tagged`. `build_recognition` explains the arguments."""
    texts, segments = tagged.texts, tagged.segments
    spans = _drop_nameless_spans(tagged) if trim else tagged.spans
    opening, closing = tagged.tokens[spans.begin], tagged.tokens[spans.end - 1]
    begin, end = (texts.to_code_points(edge) for edge in (segments.token_begin[opening], segments.token_end[closing]))
    if trim:
        trimmed = [measure_trim(texts.text[b:e]) for b, e in zip(begin.tolist(), end.tolist(), strict=True)]
        leading, trailing = np.array(trimmed, np.int64).reshape(-1, 2).T
        begin, end = begin + leading, end - trailing
    sentence = segments.sentence_of[opening]
    document = texts.find_texts(segments.token_begin[opening])
    start = texts.to_code_points(texts.edges)[document]
    first = np.searchsorted(segments.token_end, texts.to_positions(begin), side="right")
    last = np.searchsorted(segments.token_begin, texts.to_positions(end), side="left")
    entities = [original.text[b:e] for b, e in zip(begin.tolist(), end.tolist(), strict=True)]
    kinds, confidences = spans.kinds, spans.confidences
    if consistent_labels:
        kinds, confidences = make_labels_consistent(list(zip(document.tolist(), entities, strict=True)), kinds, confidences)
    confidences = scale_confidences(confidences, kinds, tagged.kinds, scalings)
    fields = {
        "sentence_id": pa.array(sentence - segments.sentence_starts[document], pa.int32()),
        "sentence_begin": pa.array(texts.to_code_points(segments.sentence_begin[sentence]) - start, pa.int32()),
        "sentence_end": pa.array(texts.to_code_points(segments.sentence_end[sentence]) - start, pa.int32()),
        "begin": pa.array(begin - start, pa.int32()),
        "end": pa.array(end - start, pa.int32()),
        "entity": pa.array(entities, pa.string()),
        "label": pa.array([tagged.kinds[kind] for kind in kinds.tolist()], pa.string()),
        "confidence": pa.array(confidences, pa.float32()),
        "token_count": pa.array(last - first, pa.int32()),
    }
    return tagged.group_by_text(document, fields)


def _drop_nameless_spans(tagged: TaggedTexts) -> Spans:
    """Return only the spans whose text contains a letter or a digit, since no other span can be a name."""
    segments, spans = tagged.segments, tagged.spans
    edges = segments.token_begin[tagged.tokens[spans.begin]], segments.token_end[tagged.tokens[spans.end - 1]]
    # NUMERIC_SEPARATOR counts as alphanumeric in Python, but belongs to no token.
    texts = (text.replace(NUMERIC_SEPARATOR, " ") for text in tagged.texts.extract_substrings(*edges))
    names = [number for number, text in enumerate(texts) if any(map(str.isalnum, text))]
    if len(names) == len(spans.begin):
        return spans
    return Spans(spans.begin[names], spans.end[names], spans.kinds[names], spans.confidences[names])


def _sum_per_text(values: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum of values[starts[t]:starts[t + 1]] for each text t; `starts` has the shape [texts + 1]."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    return sums[starts[1:]] - sums[starts[:-1]]


def build_annotations(tagged: TaggedTexts, original: Texts) -> dict[str, pa.ListArray]:
    """Return the columns `ner_chunk` (mentions) and, if `tagged.tags.scores` is set, `ner` (tags), in Spark NLP's format.

    Each column has one list of annotations per text. Fields, metadata and offsets equal the results of
    DistilBertForTokenClassification and NerConverter in Spark NLP 5.5.3. Offsets count UTF-16 code units of the document,
    and `begin` and `end` are both inclusive. Mentions in `ner_chunk` are never trimmed; their text is from `original`,
    which `build_recognition` explains.
    """
    columns = {"ner_chunk": _build_chunk_column(tagged, original)}
    if tagged.tags.scores is not None:
        columns["ner"] = _build_tag_column(tagged, tagged.tags.scores)
    return columns


def _build_tag_column(tagged: TaggedTexts, scores: NDArray[np.float32]) -> pa.ListArray:
    """Return the `ner` column: one annotation per entry of `tagged.tags`, with the tags' probabilities in its metadata."""
    names, tokens = tagged.labels, tagged.tags.tokens
    segments = tagged.segments
    sentence = segments.sentence_of[tokens] - segments.sentence_starts[tagged.texts.find_texts(segments.token_begin[tokens])]
    words = tagged.texts.extract_substrings(segments.token_begin[tokens], segments.token_end[tokens])
    metadata = [
        [("sentence", str(number)), ("word", word), *zip(names, map(format_java_float, row), strict=True)]
        for number, word, row in zip(sentence.tolist(), words, scores, strict=True)
    ]
    results = [names[tag] for tag in tagged.tags.tags.tolist()]
    return _build_annotation_column("named_entity", tagged, (tokens, tokens), results, metadata)


def _build_chunk_column(tagged: TaggedTexts, original: Texts) -> pa.ListArray:
    """Return the `ner_chunk` column: one annotation for each span, with its text from `original`."""
    spans, segments = tagged.spans, tagged.segments
    edges = tagged.tokens[spans.begin], tagged.tokens[spans.end - 1]
    document = tagged.texts.find_texts(segments.token_begin[edges[0]])
    sentence = segments.sentence_of[edges[0]] - segments.sentence_starts[document]
    number = np.arange(len(document)) - np.searchsorted(document, document)
    written = original.extract_substrings(segments.token_begin[edges[0]], segments.token_end[edges[1]])
    confidences = spans.confidences.astype(np.float32)
    described = zip(sentence.tolist(), number.tolist(), spans.kinds.tolist(), confidences, strict=True)
    metadata = [
        [
            ("sentence", str(s)),
            ("chunk", str(n)),
            ("entity", tagged.kinds[kind]),
            ("confidence", format_java_float(confidence)),
        ]
        for s, n, kind, confidence in described
    ]
    return _build_annotation_column("chunk", tagged, edges, written, metadata)


def _build_annotation_column(
    annotator: str,
    tagged: TaggedTexts,
    edges: tuple[NDArray[np.int64], NDArray[np.int64]],
    results: list[str],
    metadata: list[list[tuple[str, str]]],
) -> pa.ListArray:
    """Return a column of annotations, one list per text.

    `annotator` is the value of the annotations' field annotatorType in Spark NLP, such as `chunk`.

    Args:
        edges: two arrays, with the index of each annotation's first token and of its last token.
        results: the field `result` of each annotation: a tag, or the text of a mention.
        metadata: (key, value) pairs of each annotation.
    """
    segments = tagged.segments
    begin, end = segments.token_begin[edges[0]], segments.token_end[edges[1]] - 1
    document = tagged.texts.find_texts(begin)
    before = tagged.texts.edges[document]
    return tagged.group_by_text(
        document,
        {
            "annotatorType": pa.array([annotator] * len(results), pa.string()),
            "begin": pa.array(begin - before, pa.int32()),
            "end": pa.array(end - before, pa.int32()),
            "result": pa.array(results, pa.string()),
            "metadata": pa.array(metadata, _METADATA),
            "embeddings": pa.array([[]] * len(results), pa.list_(pa.float32())),
        },
    )


def format_java_float(value: np.float32) -> str:
    """Return a probability as Java writes it: with the fewest digits that identify the float, such as 0.25 or 1.5E-4."""
    if value >= _MIN_WITHOUT_EXPONENT or value == 0:
        return np.format_float_positional(value, unique=True, trim="0")
    return np.format_float_scientific(value, unique=True, trim="0", exp_digits=1).replace("e", "E")
