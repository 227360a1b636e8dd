"""Tags to mentions: spans of tokens, joined as Spark NLP's NerConverter joins them, and what an analyst wants of each.

A token of this job may hold more than a name: "America's" is one, and so are the quotes after "Inc." with its stop.
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
    """Spans over a list of tagged tokens, in order; all arrays are [spans].

    first, last: int64; the span's tokens are first..last - 1 of that list.
    kinds: int64, index into the entity labels.
    confidences: float64, mean over the span's tokens of each one's probability for its own tag.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    kinds: NDArray[np.int64]
    confidences: NDArray[np.float64]


class TagScheme:
    """What a model's labels mean."""

    def __init__(self, labels: Sequence[str], *, parts_kinds: bool = False) -> None:
        """What tags are joined by.

        Args:
            labels: as the model orders them: O, B-PER, I-PER, …
            parts_kinds: whether an I- of another label begins a span, as in IOB1; otherwise it goes on with the one before.
        """
        self._parts_kinds = parts_kinds
        self.kinds = sorted({label[2:] for label in labels if label != "O"})
        self._kind = np.array([-1 if label == "O" else self.kinds.index(label[2:]) for label in labels], np.int64)
        self._begins = np.array([label.startswith("B-") for label in labels], np.bool_)

    def spans(
        self,
        tags: NDArray[np.int16],
        confidences: NDArray[np.float32],
        sentence_of: NDArray[np.int64],
    ) -> Spans:
        """Join tags into spans.

        A span starts at a B- or at the first I- after an O, takes its label from that token, and ends before the next B-
        or O, so an I- of another label goes on with it, unless kinds are parted. It never crosses a sentence. (Spark NLP
        5.5.3, NerTagsEncoding.)

        Args:
            tags: [tagged] indices into the labels.
            confidences: [tagged] each token's probability for its own tag.
            sentence_of: [tagged] anything that differs between neighbouring sentences.
        """
        kind = self._kind[tags]
        inside = kind >= 0
        follows = np.zeros(len(tags), np.bool_)
        follows[1:] = inside[1:] & inside[:-1] & (sentence_of[1:] == sentence_of[:-1]) & ~self._begins[tags[1:]]
        if self._parts_kinds:
            follows[1:] &= kind[1:] == kind[:-1]
        first = np.flatnonzero(inside & ~follows)
        # Every tagged token belongs to the last start at or before it, so tokens per span are counted directly.
        tagged = np.flatnonzero(inside)
        span_of = np.searchsorted(first, tagged, side="right") - 1
        counts = np.bincount(span_of, minlength=len(first))
        sums = np.bincount(span_of, weights=confidences[tagged].astype(np.float64), minlength=len(first))
        return Spans(first, first + counts, kind[first], sums / np.maximum(counts, 1))


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


APOSTROPHES = "'\u2019\u2018\u02bc\u00b4`"
QUOTES = '"\u201c\u201d\u201e\u00ab\u00bb'
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
INVISIBLE = "\u200b\u200e\u200f\u2060\ufeff"
PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "\u201c": "\u201d", "\u201e": "\u201c", "\u00ab": "\u00bb"}
BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
STRAY = frozenset(f" \t\n\r\v\f\u00a0,;:!?\u00a1\u00bf*_|~<>=\u2026\u00b7\u2022{DASHES}{INVISIBLE}")
"""Never a name's first or last character."""
LEADING = STRAY | frozenset("#@.&")
"""Nor its first: a hashtag is the name that it spells."""
OWN_LEADING = re.compile(rf"\.NET|[{APOSTROPHES}][st](?:[- ]|$)", re.IGNORECASE)
"""Fronts that are a name's own: .NET, 's-Hertogenbosch, 't Hooft."""
POSSESSIVE = re.compile(rf"(?<=\S)[{APOSTROPHES}]s$", re.IGNORECASE)
LAST_WORD = re.compile(r"[^\s-]*$")
OWN_POSSESSIVE = _words("arby dillard hardee harrod kellogg macy mcdonald moody poor sainsbury sotheby")
"""Last words of names that end in 's themselves: Moody's, Standard & Poor's."""
ABBREVIATIONS = _words(
    # companies, people, places and streets, American states and Canadian provinces
    "assn bros cie co corp cos dept inc intl ltd plc pte pty univ",
    "dr esq gen gov jr lt mr mrs ms prof rev sgt sr",
    "ave blvd ft mt rd sq st ste",
    "ala ariz ark calif colo conn del fla ga ill kan ky md mich minn mont neb nev okla ont pa que tenn tex va vt wis wyo",
)
INITIALS = re.compile(r"(?:[^\W\d_]{1,2}\.)*[^\W\d_]{1,2}$")
"""What keeps its stop too, here without it: U.S, J.P, Ph.D; a single letter, but no other short word (`_stop`)."""
LONGEST_TRIMMED = 500


def trimmed(entity: str) -> tuple[int, int]:
    """How many characters to take off a mention's front and end.

    What goes: a possessive ending, quotes and brackets that enclose it or lack their partner, other punctuation that no name
    begins or ends with, and a full stop that ends a sentence, not an abbreviation. Nothing goes if no letter or digit would
    be left, or of a mention so long that it is no name. What is left has nothing more to take off.
    """
    return _trimmed(entity) if len(entity) <= LONGEST_TRIMMED else (0, 0)


@lru_cache(maxsize=100_000)
def _trimmed(entity: str) -> tuple[int, int]:
    begin, end = 0, len(entity)
    while begin < end:
        inner = entity[begin:end]
        front, back = next((taken for rule in _RULES if any(taken := rule(inner))), (0, 0))
        if not front and not back:
            break
        begin, end = begin + front, end - back
    if not any(character.isalnum() for character in entity[begin:end]):
        return 0, 0
    return begin, len(entity) - end


def _stray(entity: str) -> tuple[int, int]:
    front = entity[0] in LEADING and not OWN_LEADING.match(entity)
    return int(front), int(entity[-1] in STRAY and len(entity) > front)


def _enclosed(entity: str) -> tuple[int, int]:
    """One pair around the whole: "(NATO)", but not "(I) and (II)"."""
    closing = PAIRS.get(entity[0])
    if closing is None or len(entity) < 2 or entity[-1] != closing or {entity[0], closing} & set(entity[1:-1]):
        return 0, 0
    return 1, 1


def _unpaired(entity: str) -> tuple[int, int]:
    """A bracket or quote without its partner; an apostrophe is none."""
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


def _possessive(entity: str) -> tuple[int, int]:
    if not POSSESSIVE.search(entity):
        return 0, 0
    last = _last_word(entity[:-2])
    return (0, 0) if last in OWN_POSSESSIVE else (0, 2)


def _stop(entity: str) -> tuple[int, int]:
    if entity[-1] != ".":
        return 0, 0
    last = _last_word(entity[:-1]).strip(f"{QUOTES}{APOSTROPHES}([{{")
    kept = last in ABBREVIATIONS or (bool(INITIALS.match(last)) and (len(last) == 1 or "." in last))
    return 0, int(not kept)


def _last_word(entity: str) -> str:
    found = LAST_WORD.search(entity)
    return found.group().lower() if found else ""


_RULES: tuple[Callable[[str], tuple[int, int]], ...] = (_stray, _enclosed, _unpaired, _possessive, _stop)


@dataclass(frozen=True)
class Found:
    """Everything that was found in some texts.

    texts, segments: where.
    tags: as the tagger gave them.
    tokens: [tagged] int64, the tokens that have a tag, in order, each once.
    spans: over these.
    labels: that tags count in; kinds: that spans do.
    """

    texts: Texts
    segments: Segments
    tags: Tags
    tokens: NDArray[np.int64]
    spans: Spans
    labels: tuple[str, ...]
    kinds: tuple[str, ...]

    def listed(self, document: NDArray[np.int64], fields: dict[str, pa.Array]) -> pa.ListArray:
        """Per text its things, `document` [things] being the text of each, in order, and `fields` [things] each."""
        structs = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
        starts = np.searchsorted(document, np.arange(len(self.texts) + 1))
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), structs)
