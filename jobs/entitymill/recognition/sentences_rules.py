"""Sentences as Spark NLP 5.5.3's rule-based SentenceDetector finds them with its default settings.

Its regular expressions, in its order (PragmaticContentFormatter): each puts marks into a copy of the text, and in the end
every full stop and semicolon that none of them protects is a break. Every mark stands for as many characters as are known,
so offsets are counted and never searched for. Spark NLP searches, and returns begin -1 where a text holds one of its own
marks or loses a backslash to a rule; here such texts have sentences like any other (docs/migration.md).

Rules that look from every place to the end of a run are written so that a run is read once: the same answers, in time that
grows with the text.
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
_DOT, _SEMICOLON = "\uf051", "\uf053"
_SIGNS = "\u2566\u255e\u255f\u2554\u2564\u2565"
_ELLIPSIS, _ABBREVIATION, _NUMBER, _PERIOD, _QUESTION, _EXCLAMATION = tuple(_SIGNS)
_LENGTHS = {_BREAK: 0, _OPEN: 0, _CLOSE: 0, _ELLIPSIS: 3}
"""Characters of the text that a mark stands for, where it is not one."""
_STAND_INS = str.maketrans(dict.fromkeys((_BREAK, _OPEN, _CLOSE, _DOT, _SEMICOLON, "\uf054", "\uf055", *_SIGNS), "\uf8ff"))
"""A text's own marks, as a character that no rule knows either."""
_BLANK = "".join(map(chr, range(ord(" ") + 1)))  # what java.lang.String.trim takes off
_ANY = r"[^\n\r\x85\u2028\u2029]"  # what a dot means to Java
_PREPOSITIVE = ("dr", "mr", "ms", "prof", "mt", "st")
_NUMBERED = ("no", "p", "px")
_COMMON = (
    "adj", "bros", "btw", "co", "col", "corp", "cpl", "dec", "aug", "del", "dept", "dist", "dr", "e.g", "etc", "exp",
    "feb", "fy", "hr", "i.e", "id", "inc", "jan", "jr", "jul", "jun", "lt", "ltd", "mar", "may", "min", "mr", "mrs", "ms",
    "no", "nov", "oct", "ok", "p", "px", "plz", "prof", "rep", "sec", "sep", "sept", "sr", "st", "u.s", "ver", "vs",
)  # fmt: skip
_TAIL = r"(?:\s(?:[a-z]|I\s|I'm|I'll|\d))"

_Rule = Callable[[str], str]


def _rule(pattern: str, by: str | Callable[[re.Match[str]], str], needs: str = "", flags: int = re.ASCII) -> _Rule:
    """A rule that runs where the text holds `needs`."""
    compiled = re.compile(pattern, flags)
    return lambda text: compiled.sub(by, text) if needs in text else text


def _protected(match: re.Match[str]) -> str:
    return f"{_OPEN}{match[0]}{_CLOSE}"


def _item(match: re.Match[str]) -> str:
    return _BREAK + _protected(match)


def _after(words: Iterable[str], edge: str) -> str:
    """A look-behind for one of some words after an edge; Python wants each of one width."""
    by_size: dict[int, list[str]] = {}
    for word in words:
        by_size.setdefault(len(word), []).append(word.replace(".", _ANY))
    return "(?:" + "|".join(f"(?<={edge}(?i:{'|'.join(group)}))" for _, group in sorted(by_size.items())) + ")"


def _abbreviations(words: Iterable[str], ahead: str, needs: str = ".", ahead_at_start: str | None = None) -> _Rule:
    words = tuple(words)
    inside, at_start = _after(words, r"\s"), _after(words, "^")
    return _rule(rf"{inside}\.(?={ahead})|{at_start}\.(?={ahead_at_start or ahead})", _ABBREVIATION, needs)


_QUOTED_RUN = re.compile(r"[\w\s?!.,|']+", re.ASCII)
_LAST_QUOTE = re.compile(r"'(?=\W)", re.ASCII)
_FIRST_QUOTE = re.compile(r"(?:(?<=\s)|^)'", re.ASCII)


def _single_quotes(text: str) -> str:
    r"""(?:(?<=\s)|^)'[\w\s?!\.,|'\w]+'(?:\W), protected: in a run of such characters, from the first quote to the last."""
    if "'" not in text:
        return text
    parts, at = [], 0
    for run in _QUOTED_RUN.finditer(text):
        opening = _FIRST_QUOTE.search(text, run.start(), run.end())
        if opening is None:
            continue
        closing = text.rfind("'", opening.end() + 1, run.end())
        while closing >= 0 and not _LAST_QUOTE.match(text, closing):
            closing = text.rfind("'", opening.end() + 1, closing)
        if closing < 0:
            continue
        # The character behind it is taken too, and so opens no quotation of its own.
        end = closing + 2
        parts += [text[at : opening.start()], _OPEN, text[opening.start() : end], _CLOSE]
        at = end
    return "".join([*parts, text[at:]])


def _class(wanted: Callable[[str], bool]) -> str:
    return "[" + "".join(re.escape(character) for character in map(chr, range(0xF000)) if wanted(character)) + "]"


_ODD_NUMBER = re.compile(_class(lambda c: c.isalnum() and unicodedata.category(c) in ("Nl", "No")))
"""What is a letter or digit to Python, but not to Java 17."""
_JOINED = re.compile(_class(lambda c: unicodedata.category(c) == "Mn") + "+")
_DOTTED_LETTERS = re.compile(r"(?<!\w)[a-zA-Z](?:\.[a-zA-Z])+(?:\.(?!(?a:\s)[A-Z]))*")


def _dotted_letters(text: str) -> str:
    r"""\b[a-zA-Z](?:\.[a-zA-Z])+…, protected, where \b is Java 17's: a combining mark goes with the letter before it."""
    if "." not in text:
        return text
    shown = _JOINED.sub(_as_its_letter, _ODD_NUMBER.sub("\uf8ff", text))
    parts, at = [], 0
    for match in _DOTTED_LETTERS.finditer(shown):
        parts += [text[at : match.start()], _OPEN, text[match.start() : match.end()], _CLOSE]
        at = match.end()
    return "".join([*parts, text[at:]])


def _as_its_letter(marks: re.Match[str]) -> str:
    letter = marks.string[marks.start() - 1 : marks.start()]
    return ("_" if letter.isalnum() and letter <= "\uffff" else "\uf8ff") * len(marks[0])


_RULES: tuple[_Rule, ...] = (
    _rule(r"(\()[a-z]+\)|^[a-z]+\)", _item, ")"),
    _rule(
        rf"\s\d{{1,2}}\.\s|^\d{{1,2}}\.\s|\s\d{{1,2}}\.\)|^\d{{1,2}}\.\)|\s\-\d{{1,2}}\.\s|^\-\d{{1,2}}\.\s|s\-\d{{1,2}}\.\)"
        rf"|^\-\d{{1,2}}({_ANY}\))",
        _item,
    ),
    _rule(r"(?<=\d)\.(?=\d)", _NUMBER, "."),
    _rule(r"\.(?=\d)", _NUMBER, "."),
    _rule(r"(?<=\d)\.(?=\S)", _NUMBER, "."),
    _rule(r"(?<=^\d)\.(?=(\s\S)|\))", _NUMBER, "."),
    _rule(r"(?<=^\d\d)\.(?=(\s\S)|\))", _NUMBER, "."),
    _dotted_letters,
    _rule(r"(?i)p\.m\.*", _protected, "."),
    _rule(r"(?i)a\.m\.*", _protected, "."),
    _rule(r"\.(?='s\s)|\.(?='s\$)|\.(?='s\Z)", _ABBREVIATION, ".'s"),
    _rule(r"(?<=Co)\.(?=\sKG)", _ABBREVIATION, "Co."),
    _rule(r"(?<=^[A-Z])\.(?=\s)", _ABBREVIATION, "."),
    _rule(r"(?<=\s[A-Z])\.(?=\s)", _ABBREVIATION, "."),
    _abbreviations(_PREPOSITIVE, r"\s"),
    _abbreviations(_PREPOSITIVE, r":\d+", ".:"),
    _abbreviations(_NUMBERED, r"\s\d"),
    _abbreviations(_NUMBERED, r"\s+\("),
    _abbreviations(_COMMON, rf"[.:\-?]|{_TAIL}", ahead_at_start=rf"[.:?]|{_TAIL}"),
    _abbreviations(_COMMON, ",", ".,"),
    # From the first mark of a run that something is before: from a later one the end would be the same.
    _rule(r"(?:(?<=[^\s!?])|(?<=\s[!?])|(?<=^[!?]))[!?]++(?=\s|\Z|\$)", lambda match: match[0] + _BREAK),
    _rule(r"(?<=\w)\.(?=\w)", _PERIOD, "."),
    _rule(r"(?<=[a-zA-z]°)\.(?=\s*\d+)", _PERIOD, "°."),
    _rule(r"\.\.\.(?=\s+[A-Z])", _ELLIPSIS + _BREAK, "..."),
    _rule(r"(?<=\S)\.{3}(?=\.\s[A-Z])", _ELLIPSIS + _BREAK, "..."),
    _single_quotes,
    _rule(r'"[\w\s?!\.,]+"', _protected, '"'),
    _rule(r"\[[\w\s?!\.,]+\]", _protected, "["),
    _rule(r"\([\w\s?!\.,]+\)", _protected, "("),
    _rule(r"\?(?=('|\"))", _QUESTION, "?"),
    _rule(r"!(?=('|\"))", _EXCLAMATION, "!"),
    _rule(r"!(?=,\s[a-z])", _EXCLAMATION, "!,"),
    _rule(r"!(?=\s[a-z])", _EXCLAMATION, "!"),
)
_MARKED = re.compile(f"[{_OPEN}{_CLOSE}{_BREAK}]")
_LONGER_OR_SHORTER = re.compile(f"[{''.join(_LENGTHS)}]")


def sentences(text: str) -> list[tuple[int, int]]:
    """Begin and end (exclusive) of each sentence in code points, white space and control characters at its ends left out."""
    marked = text.translate(_STAND_INS)
    for rule in _RULES:
        marked = rule(marked)
    marked = marked.replace(".", _DOT + _BREAK).replace(";", _SEMICOLON + _BREAK)
    edges = [0, *_places(marked, _breaks(marked)), len(text)]
    found = []
    for begin, end in itertools.pairwise(edges):
        part = text[begin:end]
        inner = part.strip(_BLANK)
        if inner:
            begin += len(part) - len(part.lstrip(_BLANK))  # noqa: PLW2901
            found.append((begin, begin + len(inner)))
    return found


def _breaks(marked: str) -> list[int]:
    """Where a marked text's breaks are that count: those that the next mark of protection does not close over."""
    counted: list[int] = []
    pending: list[int] = []
    for mark in _MARKED.finditer(marked):
        if mark[0] == _BREAK:
            pending.append(mark.start())
            continue
        if mark[0] == _OPEN:
            counted += pending
        pending = []
    return counted + pending


def _places(marked: str, breaks: list[int]) -> list[int]:
    """Places in a marked text as places in the text it was made of."""
    at = np.fromiter((mark.start() for mark in _LONGER_OR_SHORTER.finditer(marked)), np.int64)
    longer = np.fromiter((_LENGTHS[marked[place]] - 1 for place in at.tolist()), np.int64, len(at))
    shift = np.concatenate([[0], np.cumsum(longer)])
    wanted = np.array(breaks, np.int64)
    return (wanted + shift[np.searchsorted(at, wanted)]).tolist()


class RuleDetector:
    """See the module."""

    def breaks(self, texts: Texts) -> NDArray[np.int64]:
        """See `sentences.Detector`. Between two sentences there are but white space and control characters."""
        found = []
        for first, last in itertools.pairwise(texts.code_points(texts.edges).tolist()):
            # A text of these alone has no sentence: parted, it is not taken for one (`tokens.cut`).
            spans = sentences(texts.text[first:last]) or ([(1, 1)] if last - first > 1 else [])
            found += [first + edge for span in spans for edge in span]
        return texts.units_at(np.array(found, np.int64))
