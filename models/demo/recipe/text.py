"""Join gold tokens to natural text (`joined`), and split this text into the job's tokens (`retokenized`).

Corpora split "America's" and "didn't" into two tokens each, and separate brackets from words. In running text they are one
word, and Spark NLP's tokenizer keeps "America's" as one token. Trained on gold tokens, a model would never see this one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from entitymill.recognition import offsets, tokens

WRITTEN = {"``": '"', "''": '"', "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
"""The character that each of these tokens stands for in a treebank."""
APOSTROPHES = "'\u2019"
OPENING = frozenset("([{\u201c\u2018\u00ab$\u00a3\u20ac#")
CLOSING = re.compile(r"[.,;:!?\u2026)\]}%\u201d\u00bb]+$")
CLITIC = re.compile(rf"(n[{APOSTROPHES}]t|[{APOSTROPHES}](s|m|d|re|ve|ll|all|t))$", re.IGNORECASE)
CLITIC_LETTERS = frozenset({"s", "t", "m", "d", "re", "ve", "ll", "all"})
FORUMS = ("r", "u")
ELIDED = frozenset({"O", "D", "L", "N", "d", "l"})
PAIRS = frozenset({("gon", "na"), ("wan", "na"), ("got", "ta"), ("can", "not"), ("&", "amp"), ("&", "gt"), ("&", "lt")})
"""Pairs of tokens that form one word."""
AFTER_DASH = re.compile(
    r"(an?|all|also|and|as|at|be|but|by|for|from|he|hers?|his|how|i|if|in|is|its?|just|no|not|of|on|or|our|she|so|some|sometimes|"
    r"that|the|their|then|there|they|this|to|very|was|we|what|when|where|which|while|who|why|with|yet|you|your)$",
    re.IGNORECASE,
)
"""Words that often follow a dash; a `-` before one of them is not a hyphen."""

Mention = tuple[int, int, str]
"""Begin, end (exclusive, code points) and label."""


@dataclass(frozen=True)
class Joined:
    """A sentence as running text.

    spans: begin and end of each gold token, in code points. If an abbreviation ends the sentence, there is only one full
        stop, which belongs to both tokens.
    """

    text: str
    spans: list[tuple[int, int]]


def joined(gold: Sequence[str], *, curly: bool = False, hyphens: bool = False) -> Joined:
    """Join the gold tokens of a sentence to running text, with spaces only where a writer would put them.

    Args:
        gold: the tokens.
        curly: whether to write curly quotes and apostrophes.
        hyphens: whether the corpus splits "al-Qaeda" into three tokens.
    """
    words = [WRITTEN.get(token, token) for token in gold]
    sides = _quote_sides(words)
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    length = 0
    for i, word in enumerate(words):
        if i and word == "." and _ends_in_stop(words[i - 1]):
            spans.append((length - 1, length))
            continue
        if i and not _glued(words, i, sides, hyphens=hyphens):
            parts.append(" ")
            length += 1
        parts.append(_curled(word, sides.get(i, "")) if curly else word)
        spans.append((length, length + len(word)))
        length += len(word)
    return Joined("".join(parts), spans)


def mentions(sentence: Joined, tags: Sequence[str]) -> list[Mention]:
    """Return gold mentions as spans of the text; a mention starts at a B-, or at an I- that continues no mention."""
    found: list[Mention] = []
    label = ""
    for (begin, end), tag in zip(sentence.spans, tags, strict=True):
        if tag.startswith("I-") and tag[2:] == label:
            found[-1] = (found[-1][0], end, label)
        elif tag != "O":
            found.append((begin, end, tag[2:]))
        label = tag[2:]
    return found


def retokenized(texts: Sequence[str], gold: Sequence[Sequence[Mention]]) -> list[tuple[list[str], list[str]]]:
    """Return the tokens into which the job splits each text, and their tags; a text is one sentence.

    A token gets the label of the first gold mention that it overlaps, with B- if it is the first token of the mention.

    Args:
        texts: texts of one sentence each.
        gold: each text's mentions, in order.
    """
    return [
        ([text[begin:end] for begin, end in spans], projected(spans, found))
        for text, spans, found in zip(texts, cut(texts), gold, strict=True)
    ]


def cut(texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return begin and end of the tokens into which the job splits each text, in code points of that text."""
    whole = offsets.read_texts(pa.array(texts, pa.large_string()))
    segments = tokens.tokenize(whole, np.zeros(0, np.int64))
    row = whole.find_texts(segments.token_begin)
    shift = whole.to_code_points(whole.edges[:-1])[row]
    begins = (whole.to_code_points(segments.token_begin) - shift).tolist()
    ends = (whole.to_code_points(segments.token_end) - shift).tolist()
    spans: list[list[tuple[int, int]]] = [[] for _ in texts]
    for text, begin, end in zip(row.tolist(), begins, ends, strict=True):
        spans[text].append((begin, end))
    return spans


def projected(spans: Sequence[tuple[int, int]], gold: Sequence[Mention]) -> list[str]:
    """Return the IOB2 tag of each token, from the spans of the tokens and the gold mentions, both in order."""
    tags = []
    at = 0
    started = -1
    for begin, end in spans:
        while at < len(gold) and gold[at][1] <= begin:
            at += 1
        if at == len(gold) or gold[at][0] >= end:
            tags.append("O")
            continue
        tags.append(("I-" if started == at else "B-") + gold[at][2])
        started = at
    return tags


def _ends_in_stop(word: str) -> bool:
    """Return whether the word is an abbreviation, whose full stop can also end the sentence."""
    return len(word) > 1 and word.endswith(".") and word[-2].isalnum()


def _quote_sides(words: Sequence[str]) -> dict[int, str]:
    """Return the side of each straight quote, by its index: "open", "close", or "inner" for one inside a word."""
    sides: dict[int, str] = {}
    is_open = {'"': False, "'": False}
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        after = words[i + 1] if i + 1 < len(words) else ""
        if word == '"' or (word == "'" and not _is_apostrophe(before, after, open_quote=is_open["'"])):
            # A quotation may begin in an earlier sentence, or continue in the next one.
            closes = bool(before) and (not after or bool(CLOSING.match(after)) or is_open[word])
            sides[i] = "close" if closes else "open"
            is_open[word] = not closes
        elif word in APOSTROPHES:
            sides[i] = "inner" if after.lower() in CLITIC_LETTERS else "close"
    return sides


def _is_apostrophe(before: str, after: str, *, open_quote: bool) -> bool:
    """Return whether a `'` between two tokens is an apostrophe, not a quotation mark."""
    if before[-1:].isalnum() and after.lower() in CLITIC_LETTERS:
        return True
    return before[-1:].lower() == "s" and not open_quote


def _glued(words: Sequence[str], i: int, sides: dict[int, str], *, hyphens: bool) -> bool:
    """Return whether there is no space between token i and the token before it."""
    before, word = words[i - 1], words[i]
    after = words[i + 1] if i + 1 < len(words) else ""
    if i in sides:
        # This includes the apostrophe of a contraction that is split into three tokens, as in "n ' t".
        return sides[i] != "open" or before in OPENING
    if i - 1 in sides:
        return sides[i - 1] in ("open", "inner") or bool(CLOSING.match(word))
    if CLITIC.match(word) or (word.lower() == "n" and after in APOSTROPHES and before[-1:].isalpha()):
        return before[-1:].isalnum() or before.endswith(".")
    if before in OPENING or before == "@":
        return before not in "$\u00a3\u20ac#@" or word[0].isalnum()
    earlier = words[i - 2] if i > 1 else ""
    if hyphens and (_is_hyphen(before, word, after) or _is_hyphen(earlier, before, word)):
        return True
    return _is_one_word(before, word, after, earlier) or bool(CLOSING.match(word))


def _is_hyphen(before: str, word: str, after: str) -> bool:
    """Return whether a token is a hyphen that joins the tokens before and after it to one word."""
    return word == "-" and before[-1:].isalnum() and after[:1].isalnum() and not AFTER_DASH.match(after)


def _is_one_word(before: str, word: str, after: str, earlier: str) -> bool:
    """Return whether the tokens form one word or number: "him/her", "13-17", "1:46", "O'Hara", "prize-winning", "gonna"."""
    pair = (before.lower(), word.lower()) in PAIRS
    elided = before in ELIDED and len(word) > 1 and word[0] in APOSTROPHES
    suffix = len(word) > 1 and word[0] == "-" and word[1].isalnum() and before[-1:].isalnum()
    return (
        pair or elided or suffix or _beside_slash(before, word, after, earlier) or _in_number(before, word, after, earlier)
    )


def _beside_slash(before: str, word: str, after: str, earlier: str) -> bool:
    """Return whether `word` is a slash, or follows one, without a space in front."""
    if word == "/":
        # In "on /r/politics", the first slash begins the name.
        return before[-1:].isalnum() and after[:1].isalnum() and after not in FORUMS
    return before == "/" and (word in FORUMS or (earlier[-1:].isalnum() and word[0].isalnum()))


def _in_number(before: str, word: str, after: str, earlier: str) -> bool:
    """Return whether `word` is a hyphen or colon between two numbers, or the number after it."""
    if word in "-:":
        return before.isdigit() and after.isdigit()
    return before in "-:" and earlier.isdigit() and word.isdigit()


def _curled(word: str, side: str) -> str:
    """Return a token with curly quotes and apostrophes instead of straight ones."""
    if word == '"':
        return "\u201c" if side == "open" else "\u201d"
    if word == "'" and side == "open":
        return "\u2018"
    return word.replace("'", "\u2019")
