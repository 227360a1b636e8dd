"""Join tagged tokens into spans (the tokens of one name) as Spark NLP's NerConverter does, and measure how to trim mentions.

In this module, the variable `labels` contains a model's tags, such as B-PER. The variable `kinds` contains its labels, which
are the tags without the prefixes B- and I-, such as PER. Trimming is needed because a token may contain more than a name:
"America's" is one token, and in `"Acme Inc."` the full stop and the closing quote are one token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from entitymill.recognition.offsets import Texts
from entitymill.recognition.tagger import Tags
from entitymill.recognition.tokens import Segments


@dataclass(frozen=True)
class Spans:
    """Spans (the tokens of one name each) in a list of tagged tokens, in order; all arrays have the shape [spans].

    begin: int64, index of the span's first token in the list.
    end: int64, index of the token after the span's last token in the list.
    kinds: int64, index of the span's label, such as PER, in `TagScheme.kinds`.
    confidences: float64, mean, over the span's tokens, of the probability of the assigned tag.
    """

    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    kinds: NDArray[np.int64]
    confidences: NDArray[np.float64]


class TagScheme:
    """The meaning of a model's tags: which tagged tokens join into one span, and which label (such as PER) the span gets.

    kinds: the labels, sorted; a label is what remains of a tag without the prefix B- or I-.
    """

    def __init__(self, labels: Sequence[str], *, splits_kinds: bool = False) -> None:
        """Determine from a model's tags which labels the spans can have, and which tags begin a span.

        Args:
            labels: the model's tags, in the order of its outputs: O, B-PER, I-PER, …
            splits_kinds: True for IOB1: an I- tag after a tag with a different label begins a new span. False for IOB2:
                the I- tag continues the span.
        """
        self._splits_kinds = splits_kinds
        self.kinds = sorted({label[2:] for label in labels if label != "O"})
        self._kind = np.array([-1 if label == "O" else self.kinds.index(label[2:]) for label in labels], np.int64)
        self._begins = np.array([label.startswith("B-") for label in labels], np.bool_)

    def join_tags_to_spans(
        self, tags: NDArray[np.int16], confidences: NDArray[np.float32], sentence_of: NDArray[np.int64]
    ) -> Spans:
        """Join the tags of consecutive tokens into spans, and return the spans.

        For example, B-PER, I-PER, O, I-LOC become a PER span and a LOC span. A span begins at a B- tag, or at an I- tag that
        comes first in its sentence or after an O. A span gets the label of its first tag, and ends before the next B- or O.
        So an I- tag with a different label continues the span or, if `splits_kinds` is set, begins a new span. No span
        crosses the end of a sentence. (Source: NerTagsEncoding in Spark NLP 5.5.3.)

        Args:
            tags: tag of each token, as an index into the argument `labels` of `TagScheme`, shape [tokens].
            confidences: probability of each token's assigned tag, shape [tokens].
            sentence_of: for each token, a number that differs between adjacent sentences, shape [tokens].
        """
        kind = self._kind[tags]
        inside = kind >= 0
        follows = np.zeros(len(tags), np.bool_)
        follows[1:] = inside[1:] & inside[:-1] & (sentence_of[1:] == sentence_of[:-1]) & ~self._begins[tags[1:]]
        if self._splits_kinds:
            follows[1:] &= kind[1:] == kind[:-1]
        first = np.flatnonzero(inside & ~follows)
        # Every token with a tag other than O belongs to the last span that starts at or before this token.
        tagged = np.flatnonzero(inside)
        span_of = np.searchsorted(first, tagged, side="right") - 1
        counts = np.bincount(span_of, minlength=len(first))
        sums = np.bincount(span_of, weights=confidences[tagged].astype(np.float64), minlength=len(first))
        return Spans(first, first + counts, kind[first], sums / np.maximum(counts, 1))


def _split_words(*lines: str) -> frozenset[str]:
    """Return the set of all words in several strings; words are separated by white space."""
    return frozenset(" ".join(lines).split())


APOSTROPHES = "'\u2019\u2018\u02bc\u00b4`"
QUOTES = '"\u201c\u201d\u201e\u00ab\u00bb'
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
INVISIBLE = "\u200b\u200e\u200f\u2060\ufeff"
PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "\u201c": "\u201d", "\u201e": "\u201c", "\u00ab": "\u00bb"}
BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
STRAY = frozenset(f" \t\n\r\v\f\u00a0,;:!?\u00a1\u00bf*_|~<>=\u2026\u00b7\u2022{DASHES}{INVISIBLE}")
"""Characters that never begin or end a name."""
LEADING = STRAY | frozenset("#@.&")
"""Characters that never begin a name, except in names that OWN_LEADING matches. The # of a hashtag is an example."""
OWN_LEADING = re.compile(rf"\.NET|[{APOSTROPHES}][st](?:[- ]|$)", re.IGNORECASE)
"""Matches the beginning of names to which a character of LEADING or an apostrophe belongs: .NET, 's-Hertogenbosch."""
POSSESSIVE = re.compile(rf"(?<=\S)[{APOSTROPHES}]s$", re.IGNORECASE)
LAST_WORD = re.compile(r"[^\s-]*$")
OWN_POSSESSIVE = _split_words("arby dillard hardee harrod kellogg macy mcdonald moody poor sainsbury sotheby")
"""Last words of names in which the ending 's belongs to the name: Moody's, Standard & Poor's."""
ABBREVIATIONS = _split_words(
    # companies, people, places and streets, American states and Canadian provinces
    "assn bros cie co corp cos dept inc intl ltd plc pte pty univ",
    "dr esq gen gov jr lt mr mrs ms prof rev sgt sr",
    "ave blvd ft mt rd sq st ste",
    "ala ariz ark calif colo conn del fla ga ill kan ky md mich minn mont neb nev okla ont pa que tenn tex va vt wis wyo",
)
INITIALS = re.compile(r"(?:[^\W\d_]{1,2}\.)*[^\W\d_]{1,2}$")
"""Matches initials without their last full stop, such as U.S, J.P and Ph.D. The full stop after a match is not trimmed."""
_OPENING_MARKUP = re.compile(r"(?:<[^<>]*>|[^<>\s]*>)(?=.*\w)", re.DOTALL)
_CLOSING_MARKUP = re.compile(r"<[/!a-zA-Z].*$", re.DOTALL)
_EMOJI = "[\u200d\u20e3\ufe0f\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\U000e0020-\U000e007f]+"
_LEADING_EMOJI, _TRAILING_EMOJI = re.compile(_EMOJI), re.compile(f"{_EMOJI}$")
MAX_TRIMMED_CHARS = 500
"""Mentions with more characters than this are not trimmed."""


def measure_trim(entity: str) -> tuple[int, int]:
    """Return how many characters to trim from the front and from the end of a mention: (0, 2) for "America's".

    What is trimmed: an HTML tag, or the end of one, at the front; everything from a later tag on; emoji at either end; a
    possessive ending; quotes and brackets that enclose the mention or are unpaired; other punctuation with which no name
    begins or ends; a full stop at the end, unless it belongs to an abbreviation. Nothing is trimmed if no letter or digit
    would remain, or if the mention has more than MAX_TRIMMED_CHARS characters. Trimming a trimmed mention changes nothing.
    """
    return _measure_trim(entity) if len(entity) <= MAX_TRIMMED_CHARS else (0, 0)


@lru_cache(maxsize=100_000)
def _measure_trim(entity: str) -> tuple[int, int]:
    """Return how many characters to trim from front and end of a mention of at most MAX_TRIMMED_CHARS; cache the results."""
    begin, end = 0, len(entity)
    while begin < end:
        inner = entity[begin:end]
        front, back = next((margins for measure in _MEASURES if any(margins := measure(inner))), (0, 0))
        if not front and not back:
            break
        begin, end = begin + front, end - back
    if not any(character.isalnum() for character in entity[begin:end]):
        return 0, 0
    return begin, len(entity) - end


def _measure_stray(entity: str) -> tuple[int, int]:
    """Return how many characters of LEADING to trim from a mention's front, and of STRAY from its end: 0 or 1 each.

    If OWN_LEADING matches, as for .NET, nothing is trimmed from the front.
    """
    front = entity[0] in LEADING and not OWN_LEADING.match(entity)
    return int(front), int(entity[-1] in STRAY and len(entity) > front)


def _measure_pair(entity: str) -> tuple[int, int]:
    """Return (1, 1) if a pair of brackets or quotes encloses a mention, and neither occurs inside it, otherwise (0, 0).

    The numbers say how many characters to trim from the front and from the end. They are (1, 1) for "(NATO)", but (0, 0) for
    "(I) and (II)".
    """
    closing = PAIRS.get(entity[0])
    if closing is None or len(entity) < 2 or entity[-1] != closing or {entity[0], closing} & set(entity[1:-1]):
        return 0, 0
    return 1, 1


def _measure_unpaired(entity: str) -> tuple[int, int]:
    """Return (1, 0) if a mention begins with an apostrophe or an unpaired bracket or quote, or (0, 1) if it ends with one.

    The numbers say how many characters to trim from the front and from the end. Return (0, 0) if there is nothing to trim.
    An apostrophe at the front stays if OWN_LEADING matches, as for 's-Hertogenbosch. A quote is unpaired if the mention has
    an odd number of quotes.
    """
    first, last = entity[0], entity[-1]
    if sum(entity.count(quote) for quote in QUOTES) % 2 and (first in QUOTES or last in QUOTES):
        return (1, 0) if first in QUOTES else (0, 1)
    if first in APOSTROPHES and not OWN_LEADING.match(entity):
        return 1, 0
    if last in APOSTROPHES:
        return 0, 1
    for opening, closing in BRACKETS:
        excess = entity.count(opening) - entity.count(closing)
        if first == closing or (first == opening and excess > 0):
            return 1, 0
        if last == opening or (last == closing and excess < 0):
            return 0, 1
    return 0, 0


def _measure_possessive(entity: str) -> tuple[int, int]:
    """Return (0, 2) if a mention ends with a possessive 's that does not belong to the name, otherwise (0, 0).

    The numbers say how many characters to trim from the front and from the end.
    """
    if not POSSESSIVE.search(entity):
        return 0, 0
    last = _get_last_word(entity[:-2])
    return (0, 0) if last in OWN_POSSESSIVE else (0, 2)


def _measure_full_stop(entity: str) -> tuple[int, int]:
    """Return (0, 1) if a mention ends with a full stop that does not belong to the name, otherwise (0, 0).

    The numbers say how many characters to trim from the front and from the end. The full stop of an abbreviation or of
    initials belongs to the name.
    """
    if entity[-1] != ".":
        return 0, 0
    last = _get_last_word(entity[:-1]).strip(f"{QUOTES}{APOSTROPHES}([{{")
    is_initials = bool(INITIALS.match(last)) and (len(last) == 1 or "." in last)
    return 0, int(last not in ABBREVIATIONS and not is_initials)


def _get_last_word(entity: str) -> str:
    """Return the part of `entity` after the last white space or hyphen, in lower case."""
    match = LAST_WORD.search(entity)
    return match.group().lower() if match else ""


def _measure_markup(entity: str) -> tuple[int, int]:
    """Return how many characters to trim from a mention because of an HTML tag: from the front, or else from the end.

    From the front, trim a tag or the end of one: (3, 0) for "<p>Satya", (2, 0) for "b>Satya". From the end, trim everything
    from the first tag or unfinished tag on: (0, 12) for "Satya</p> Nadella".
    """
    if "<" not in entity and ">" not in entity:
        return 0, 0
    opening = _OPENING_MARKUP.match(entity)
    if opening:
        return opening.end(), 0
    closing = _CLOSING_MARKUP.search(entity)
    if closing is None or closing.start() == 0:
        return 0, 0
    return 0, len(entity) - closing.start()


def _measure_emoji(entity: str) -> tuple[int, int]:
    """Return how many characters of emoji to trim from the front and from the end of a mention."""
    leading, trailing = _LEADING_EMOJI.match(entity), _TRAILING_EMOJI.search(entity)
    return leading.end() if leading else 0, len(entity) - trailing.start() if trailing else 0


_MEASURES: tuple[Callable[[str], tuple[int, int]], ...] = (
    _measure_markup, _measure_emoji, _measure_stray, _measure_pair, _measure_unpaired, _measure_possessive,
    _measure_full_stop,
)  # fmt: skip
"""Functions that return how many characters to trim from the front and from the end of a mention, each for one reason.
`measure_trim` trims what the first function with a result other than (0, 0) says, and repeats this until nothing is left to
trim."""


@dataclass(frozen=True)
class TaggedTexts:
    """Several texts with their sentences, tokens, tags and spans (the tokens of one name).

    texts, segments: the texts, and their sentences and tokens.
    tags: the tags that the tagger returned for the tokens of all texts.
    tokens: int64, shape [tagged tokens]; indices of the tokens that have a tag, in order and without duplicates.
    spans: the spans; their `begin` and `end` are indices in `tokens`.
    labels: the model's tags, such as B-PER, in the order of its outputs; `tags.tags` has indices into them.
    kinds: the labels, such as PER; `spans.kinds` has indices into them.
    """

    texts: Texts
    segments: Segments
    tags: Tags
    tokens: NDArray[np.int64]
    spans: Spans
    labels: tuple[str, ...]
    kinds: tuple[str, ...]

    def group_by_text(self, document: NDArray[np.int64], fields: dict[str, pa.Array]) -> pa.ListArray:
        """Build structs from arrays of fields, and return an array with one list of structs per text.

        Args:
            document: index of the text to which each struct belongs, int64, ascending, shape [structs].
            fields: dict from the name of a field to an array of its values, one for each struct.
        """
        structs = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
        starts = np.searchsorted(document, np.arange(len(self.texts) + 1))
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), structs)
