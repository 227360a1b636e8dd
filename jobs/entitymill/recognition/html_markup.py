"""Blank out HTML markup in a text without moving any character, so that offsets still refer to the original text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_OPENING = re.compile(r"<!--|</?([a-zA-Z][a-zA-Z0-9-]*+)[^<>]*+>|<[!?][^<>]*+>|&(?:nbsp|#160|quot|#34);")
"""Matches the beginning of a comment, a tag, a declaration (<!…> or <?…>), or a reference to a no-break space or a
quotation mark. The possessive quantifiers (*+) keep the time linear for a long name without >."""
_CLOSING = {"script": re.compile(r"</script\s*>", re.IGNORECASE), "style": re.compile(r"</style\s*>", re.IGNORECASE)}
_INLINE = frozenset({
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i", "img", "ins", "kbd", "mark", "q",
    "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var", "wbr",
})  # fmt: skip
"""Names of the HTML elements that may occur inside a sentence; a tag of any other element ends the sentence."""
_OUTSIDE_BMP = re.compile("[\U00010000-\U0010ffff]")


def blank_markup(text: str) -> str:
    """Return a text of the same length, with blanks or line feeds instead of HTML tags, comments, scripts and styles.

    Comments and inline tags (of the elements in _INLINE, such as <b>) become blanks: "<b>Anna" becomes three blanks and
    "Anna". Other tags (such as <p>), declarations (such as <!DOCTYPE html>), and scripts and styles with their content
    become line feeds, which end the sentence. If a comment has no end, its <!-- is treated as text. If a script or style has
    no closing tag, only its opening tag is replaced. The references &nbsp;, &#160;, &quot; and &#34; become blanks; others,
    such as &amp;, stay.

    Characters outside the Basic Multilingual Plane are never replaced, so the number of UTF-16 code units stays the same.
    The time is linear in the length of the text.
    """
    if "<" not in text and "&" not in text:
        return text
    parts, at = [], 0
    for begin, end, filler in _find_markup(text):
        parts += [text[at:begin], _fill(text[begin:end], filler)]
        at = end
    return "".join([*parts, text[at:]])


def _find_markup(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (begin, end, filler) for each span of markup, in order; the caller puts `filler` in place of each character."""
    at = 0
    unclosed: set[str] = set()  # names of elements that the rest of the text does not close; "" stands for comments
    while (match := _OPENING.search(text, at)) is not None:
        name = (match[1] or "").lower()
        end, filler = match.end(), " " if match[0][0] == "&" or name in _INLINE else "\n"
        if match[0] == "<!--":
            # In HTML, <!--> and <!---> are complete comments.
            close = -1 if name in unclosed else text.find("-->", match.start() + 2)
            if close < 0:
                unclosed.add(name)
                at = end
                continue
            end, filler = close + len("-->"), " "
        elif name in _CLOSING and match[0][1] != "/" and name not in unclosed:
            closed = _CLOSING[name].search(text, end)
            if closed is None:
                unclosed.add(name)
            else:
                end = closed.end()
        yield match.start(), end, filler
        at = end


def _fill(markup: str, filler: str) -> str:
    """Return markup with `filler` in place of each character; characters outside the Basic Multilingual Plane stay."""
    if _OUTSIDE_BMP.search(markup) is None:
        return filler * len(markup)
    return "".join(character if _OUTSIDE_BMP.match(character) else filler for character in markup)
