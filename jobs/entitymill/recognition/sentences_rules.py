"""Find the sentences that Spark NLP 5.5.3's rule-based SentenceDetector finds with its default settings.

The regular expressions of Spark NLP's PragmaticContentFormatter put markers (special characters) into a copy of the text,
and the markers say where sentences end. Expressions that take quadratic time in Spark NLP are rewritten to take linear time,
with the same results. docs/migration.md says for which texts the sentences differ from Spark NLP's.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from entitymill.recognition.offsets import Texts

_BREAK, _OPEN, _CLOSE = "\uf050", "\uf056", "\uf057"
"""Markers. _BREAK: a sentence ends here. _OPEN and _CLOSE: no sentence ends between them."""
_DOT, _SEMICOLON = "\uf051", "\uf053"
_SIGNS = "\u2566\u255e\u255f\u2554\u2564\u2565"
_ELLIPSIS, _ABBREVIATION, _NUMBER, _PERIOD, _QUESTION, _EXCLAMATION = tuple(_SIGNS)
"""Markers that replace punctuation after a rule has handled it, so that later rules do not match it."""
_LENGTHS = {_BREAK: 0, _OPEN: 0, _CLOSE: 0, _ELLIPSIS: 3}
"""The number of characters that each marker replaces; a marker that is not listed replaces one character."""
_REPLACEMENTS = str.maketrans(
    dict.fromkeys((_BREAK, _OPEN, _CLOSE, _DOT, _SEMICOLON, "\uf054", "\uf055", *_SIGNS), "\uf8ff")
)
"""Translation table that replaces marker characters in the original text by a character that no rule matches."""
_BLANK = "".join(map(chr, range(ord(" ") + 1)))  # what java.lang.String.trim removes
_ANY = r"[^\n\r\x85\u2028\u2029]"  # what a dot matches in Java
_PREPOSITIVE = ("dr", "mr", "ms", "prof", "mt", "st")
_NUMBERED = ("no", "p", "px")
_COMMON = (
    "adj", "bros", "btw", "co", "col", "corp", "cpl", "dec", "aug", "del", "dept", "dist", "dr", "e.g", "etc", "exp",
    "feb", "fy", "hr", "i.e", "id", "inc", "jan", "jr", "jul", "jun", "lt", "ltd", "mar", "may", "min", "mr", "mrs", "ms",
    "no", "nov", "oct", "ok", "p", "px", "plz", "prof", "rep", "sec", "sep", "sept", "sr", "st", "u.s", "ver", "vs",
)  # fmt: skip
"""Abbreviations without their last full stop. No sentence ends at this full stop if certain characters follow it. For words
in _PREPOSITIVE, these are white space, or a colon and a digit. For words in _NUMBERED, they are white space and a digit or
opening parenthesis. For words in _COMMON, they are some punctuation, or a match of _TAIL."""
_TAIL = r"(?:\s(?:[a-z]|I\s|I'm|I'll|\d))"
"""Matches white space and the beginning of a word that continues a sentence."""

_Rule = Callable[[str], str]
"""A function that takes a text with markers, and returns it with further markers."""


def _build_rule(
    pattern: str, replacement: str | Callable[[re.Match[str]], str], required: str = "", flags: int = re.ASCII
) -> _Rule:
    """Return a rule that replaces the matches of a pattern; texts without the string `required` are skipped to save time."""
    compiled = re.compile(pattern, flags)
    return lambda text: compiled.sub(replacement, text) if required in text else text


def _enclose(match: re.Match[str]) -> str:
    """Return the matched text between the markers _OPEN and _CLOSE, so that no sentence ends inside."""
    return f"{_OPEN}{match[0]}{_CLOSE}"


def _enclose_list_item(match: re.Match[str]) -> str:
    """Return a matched list item, such as "a)", with markers: a sentence ends before the item, and none ends inside it."""
    return _BREAK + _enclose(match)


def _build_look_behind(words: Iterable[str], edge: str) -> str:
    """Return a zero-width pattern that matches directly after one of `words`, if `edge` (a pattern) matches before the word.

    The case of the words is ignored. A full stop in a word matches any character except a line break. The pattern has one
    look-behind for each length of words, because a look-behind in Python has a fixed width.
    """
    by_size: dict[int, list[str]] = {}
    for word in words:
        by_size.setdefault(len(word), []).append(word.replace(".", _ANY))
    return "(?:" + "|".join(f"(?<={edge}(?i:{'|'.join(group)}))" for _, group in sorted(by_size.items())) + ")"


def _build_abbreviation_rule(
    words: Iterable[str], ahead: str, required: str = ".", ahead_at_start: str | None = None
) -> _Rule:
    """Return a rule that replaces the full stops of abbreviations by _ABBREVIATION, at which no sentence ends.

    Args:
        words: the abbreviations, without their last full stop.
        ahead: pattern that must match after the full stop.
        required: a string that each match contains; to save time, texts without it are skipped.
        ahead_at_start: pattern to use instead of `ahead` if the abbreviation begins the text; None to use `ahead`.
    """
    words = tuple(words)
    inside, at_start = _build_look_behind(words, r"\s"), _build_look_behind(words, "^")
    return _build_rule(rf"{inside}\.(?={ahead})|{at_start}\.(?={ahead_at_start or ahead})", _ABBREVIATION, required)


_QUOTED = re.compile(r"[\w\s?!.,|']+", re.ASCII)
_LAST_QUOTE = re.compile(r"'(?=\W)", re.ASCII)
_FIRST_QUOTE = re.compile(r"(?:(?<=\s)|^)'", re.ASCII)


def _enclose_single_quotes(text: str) -> str:
    r"""Put each single-quoted part of a text between the markers _OPEN and _CLOSE, so that no sentence ends in it.

    Spark NLP's expression is (?:(?<=\s)|^)'[\w\s?!\.,|'\w]+'(?:\W). In a sequence of characters that the square
    brackets match, a match extends from the first to the last quote.
    """
    if "'" not in text:
        return text
    parts, at = [], 0
    for sequence in _QUOTED.finditer(text):
        opening = _FIRST_QUOTE.search(text, sequence.start(), sequence.end())
        if opening is None:
            continue
        closing = text.rfind("'", opening.end() + 1, sequence.end())
        while closing >= 0 and not _LAST_QUOTE.match(text, closing):
            closing = text.rfind("'", opening.end() + 1, closing)
        if closing < 0:
            continue
        # The match includes the character after the quote, which therefore cannot open another quotation.
        end = closing + 2
        parts += [text[at : opening.start()], _OPEN, text[opening.start() : end], _CLOSE]
        at = end
    return "".join([*parts, text[at:]])


def _build_character_class(contains: Callable[[str], bool]) -> str:
    """Return a pattern that matches the characters below U+F000 for which `contains` is true."""
    return "[" + "".join(re.escape(character) for character in map(chr, range(0xF000)) if contains(character)) + "]"


_ODD_NUMBER = re.compile(_build_character_class(lambda c: c.isalnum() and unicodedata.category(c) in ("Nl", "No")))
"""Matches characters that are letters or digits in Python, but not in Java 17."""
_COMBINING_MARKS = re.compile(_build_character_class(lambda c: unicodedata.category(c) == "Mn") + "+")
_DOTTED_LETTERS = re.compile(r"(?<!\w)[a-zA-Z](?:\.[a-zA-Z])+(?:\.(?!(?a:\s)[A-Z]))*")


def _enclose_dotted_letters(text: str) -> str:
    r"""Put letters with full stops, such as U.S. or e.g, between _OPEN and _CLOSE, so that no sentence ends in them.

    Spark NLP's expression is \b[a-zA-Z](?:\.[a-zA-Z])+(?:\.(?!\s[A-Z]))*, so a full stop before a blank and a capital is not
    enclosed. \b is the word boundary of Java 17, for which a combining mark belongs to the letter before it.
    """
    if "." not in text:
        return text
    simplified = _COMBINING_MARKS.sub(_replace_combining_marks, _ODD_NUMBER.sub("\uf8ff", text))
    parts, at = [], 0
    for match in _DOTTED_LETTERS.finditer(simplified):
        parts += [text[at : match.start()], _OPEN, text[match.start() : match.end()], _CLOSE]
        at = match.end()
    return "".join([*parts, text[at:]])


def _replace_combining_marks(marks: re.Match[str]) -> str:
    r"""Return a replacement of equal length for combining marks, so that \b in Python matches at the same places as in Java.

    After a letter or digit of the Basic Multilingual Plane, Java counts the marks as part of the word: they become
    underscores, which are part of a word in Python. All other marks become U+F8FF, which is not part of a word.
    """
    letter = marks.string[marks.start() - 1 : marks.start()]
    return ("_" if letter.isalnum() and letter <= "\uffff" else "\uf8ff") * len(marks[0])


_RULES: tuple[_Rule, ...] = (
    _build_rule(r"(\()[a-z]+\)|^[a-z]+\)", _enclose_list_item, ")"),
    _build_rule(
        rf"\s\d{{1,2}}\.\s|^\d{{1,2}}\.\s|\s\d{{1,2}}\.\)|^\d{{1,2}}\.\)|\s\-\d{{1,2}}\.\s|^\-\d{{1,2}}\.\s|s\-\d{{1,2}}\.\)"
        rf"|^\-\d{{1,2}}({_ANY}\))",
        _enclose_list_item,
    ),
    _build_rule(r"(?<=\d)\.(?=\d)", _NUMBER, "."),
    _build_rule(r"\.(?=\d)", _NUMBER, "."),
    _build_rule(r"(?<=\d)\.(?=\S)", _NUMBER, "."),
    _build_rule(r"(?<=^\d)\.(?=(\s\S)|\))", _NUMBER, "."),
    _build_rule(r"(?<=^\d\d)\.(?=(\s\S)|\))", _NUMBER, "."),
    _enclose_dotted_letters,
    _build_rule(r"(?i)p\.m\.*", _enclose, "."),
    _build_rule(r"(?i)a\.m\.*", _enclose, "."),
    _build_rule(r"\.(?='s\s)|\.(?='s\$)|\.(?='s\Z)", _ABBREVIATION, ".'s"),
    _build_rule(r"(?<=Co)\.(?=\sKG)", _ABBREVIATION, "Co."),
    _build_rule(r"(?<=^[A-Z])\.(?=\s)", _ABBREVIATION, "."),
    _build_rule(r"(?<=\s[A-Z])\.(?=\s)", _ABBREVIATION, "."),
    _build_abbreviation_rule(_PREPOSITIVE, r"\s"),
    _build_abbreviation_rule(_PREPOSITIVE, r":\d+", ".:"),
    _build_abbreviation_rule(_NUMBERED, r"\s\d"),
    _build_abbreviation_rule(_NUMBERED, r"\s+\("),
    _build_abbreviation_rule(_COMMON, rf"[.:\-?]|{_TAIL}", ahead_at_start=rf"[.:?]|{_TAIL}"),
    _build_abbreviation_rule(_COMMON, ",", ".,"),
    # A match begins at the first sign that is not at the beginning of a text or after white space. A match from a later sign
    # would end at the same character.
    _build_rule(r"(?:(?<=[^\s!?])|(?<=\s[!?])|(?<=^[!?]))[!?]++(?=\s|\Z|\$)", lambda match: match[0] + _BREAK),
    _build_rule(r"(?<=\w)\.(?=\w)", _PERIOD, "."),
    _build_rule(r"(?<=[a-zA-z]°)\.(?=\s*\d+)", _PERIOD, "°."),
    _build_rule(r"\.\.\.(?=\s+[A-Z])", _ELLIPSIS + _BREAK, "..."),
    _build_rule(r"(?<=\S)\.{3}(?=\.\s[A-Z])", _ELLIPSIS + _BREAK, "..."),
    _enclose_single_quotes,
    _build_rule(r'"[\w\s?!\.,]+"', _enclose, '"'),
    _build_rule(r"\[[\w\s?!\.,]+\]", _enclose, "["),
    _build_rule(r"\([\w\s?!\.,]+\)", _enclose, "("),
    _build_rule(r"\?(?=('|\"))", _QUESTION, "?"),
    _build_rule(r"!(?=('|\"))", _EXCLAMATION, "!"),
    _build_rule(r"!(?=,\s[a-z])", _EXCLAMATION, "!,"),
    _build_rule(r"!(?=\s[a-z])", _EXCLAMATION, "!"),
)
_MARKERS = re.compile(f"[{_OPEN}{_CLOSE}{_BREAK}]")
_LONGER_OR_SHORTER = re.compile(f"[{''.join(_LENGTHS)}]")


def find_sentences(text: str) -> list[tuple[int, int]]:
    """Return (begin, end) of each sentence, without white space and control characters at its ends.

    The results are offsets in code points, and ends are exclusive. The rules put markers in place of some characters, so the
    offsets are computed from the number of characters that each marker replaces. (Spark NLP instead searches the text for
    each sentence, and returns -1 if the search fails.)
    """
    marked = text.translate(_REPLACEMENTS)
    for rule in _RULES:
        marked = rule(marked)
    marked = marked.replace(".", _DOT + _BREAK).replace(";", _SEMICOLON + _BREAK)
    edges = [0, *_to_text_offsets(marked, _find_effective_breaks(marked)), len(text)]
    sentences = []
    for begin, end in itertools.pairwise(edges):
        part = text[begin:end]
        inner = part.strip(_BLANK)
        if inner:
            begin += len(part) - len(part.lstrip(_BLANK))  # noqa: PLW2901
            sentences.append((begin, begin + len(inner)))
    return sentences


def _find_effective_breaks(marked: str) -> list[int]:
    """Return the index of each marker _BREAK in a text with markers, except breaks between _OPEN and _CLOSE.

    Exactly: a break is omitted if the next _OPEN or _CLOSE after it is a _CLOSE. So a break between two _OPEN is returned.
    """
    effective: list[int] = []
    undecided: list[int] = []  # breaks since the last _OPEN or _CLOSE, which are dropped if the next such marker is _CLOSE
    for marker in _MARKERS.finditer(marked):
        if marker[0] == _BREAK:
            undecided.append(marker.start())
            continue
        if marker[0] == _OPEN:
            effective += undecided
        undecided = []
    return effective + undecided


def _to_text_offsets(marked: str, breaks: list[int]) -> list[int]:
    """Convert `breaks`, which are indices in the text with markers, to offsets in the original text, in code points."""
    at = np.fromiter((marker.start() for marker in _LONGER_OR_SHORTER.finditer(marked)), np.int64)
    longer = np.fromiter((_LENGTHS[marked[index]] - 1 for index in at.tolist()), np.int64, len(at))
    shift = np.concatenate([[0], np.cumsum(longer)])
    indices = np.array(breaks, np.int64)
    return (indices + shift[np.searchsorted(at, indices)]).tolist()


class RuleDetector:
    """A re-implementation of Spark NLP's rule-based SentenceDetector with default settings; it runs without Spark NLP."""

    def find_breaks(self, texts: Texts) -> NDArray[np.int64]:
        """Return the positions where sentences begin and end (see `sentences.Detector.find_breaks`).

        A text that has two or more characters but no sentence gets two equal breaks, after its first character.
        """
        breaks = []
        for first, last in itertools.pairwise(texts.to_code_points(texts.edges).tolist()):
            spans = find_sentences(texts.text[first:last])
            # A text of only white space and control characters has no sentence. A break inside the text keeps
            # `tokens.tokenize` from treating the complete text as a sentence.
            if not spans and last - first > 1:
                spans = [(1, 1)]
            breaks += [first + edge for span in spans for edge in span]
        return texts.to_positions(np.array(breaks, np.int64))
