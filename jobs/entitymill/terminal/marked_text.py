"""Mark the mentions in a text: with colors on a terminal, with brackets elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from entitymill.terminal.console_text import visible

T = TypeVar("T")
COLOURS = {"PER": "bold black on green3", "ORG": "bold black on sky_blue1", "LOC": "bold black on gold1"}
"""Label -> the rich style in which its mentions are shown."""
OTHER_COLOUR = "bold black on plum2"
"""The style of all other labels."""
LONGEST_SHOWN = 120
"""Length, in characters, up to which a mention is shown completely; of a longer mention, only both ends are shown."""


def shows_colors(console: Console) -> bool:
    """Return whether a console shows colors: it is a terminal, and neither NO_COLOR nor TERM=dumb is set."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def shorten(entity: str) -> str:
    """Return a mention's text for display; if it is longer than LONGEST_SHOWN, a note replaces its middle."""
    if len(entity) <= LONGEST_SHOWN:
        return entity
    end = LONGEST_SHOWN // 3
    return f"{entity[:end]} … {len(entity) - 2 * end:,} characters more … {entity[-end:]}"


def select_style(label: str) -> str:
    """Return the rich style in which mentions with a label are shown."""
    return COLOURS.get(label, OTHER_COLOUR)


def clip_overlaps(spans: Iterable[tuple[int, int, T]], first: int = 0) -> Iterator[tuple[int, int, T]]:
    """Yield spans without the parts that an earlier span covers or that lie before `first`, so that no two overlap.

    Args:
        spans: (begin, end, anything) of each span, sorted by begin. A span of which nothing remains is left out.
        first: smallest position in the result; the part of a span before it is cut off.
    """
    for begin, end, value in spans:
        if end > max(begin, first):
            yield max(begin, first), end, value
            first = end


def mark_mentions(
    text: str, spans: Iterable[tuple[int, int, str]], *, colors: bool, first: int = 0, last: int | None = None
) -> Text:
    """Return text[first:last] as a rich Text with the mentions marked.

    Each mention is followed by its label, and a long mention is shortened. Control characters are replaced by escapes.

    Args:
        text: the complete text.
        spans: (begin, end, label) of each mention, in code points of the complete text, sorted by begin. If two mentions
            overlap, only the rest of the later mention is marked, so that each character is shown once.
        colors: whether to mark mentions with colors; otherwise a mention and its label are written as [Paris LOC].
        first: where the returned part begins, in code points.
        last: where the returned part ends, or None for the end of the text.
    """
    line, at = Text(), first
    for begin, end, label in clip_overlaps(spans, first):
        line.append(visible(text[at:begin]))
        if colors:
            line.append(visible(shorten(text[begin:end])), style=select_style(label))
            line.append(f" {visible(label)}", style="dim")
        else:
            line.append(visible(f"[{shorten(text[begin:end])} {label}]"))
        at = end
    line.append(visible(text[at:last]))
    return line
