"""Mentions marked in their text: by colour where there is a terminal, by brackets elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from entitymill.terminal.console_text import visible

COLOURS = {"PER": "bold black on green3", "ORG": "bold black on sky_blue1", "LOC": "bold black on gold1"}
OTHER_COLOUR = "bold black on plum2"
LONGEST_SHOWN = 120
"""Characters of a mention; of a longer one its two ends are shown."""


def sees_colours(console: Console) -> bool:
    """Whether what colours mark can be told from the rest: not in a file, nor where NO_COLOR or TERM=dumb says so."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def shortened(entity: str) -> str:
    """A mention as it is shown: a text of nothing but name-like words may be one, of many megabytes."""
    if len(entity) <= LONGEST_SHOWN:
        return entity
    end = LONGEST_SHOWN // 3
    return f"{entity[:end]} … {len(entity) - 2 * end:,} characters more … {entity[-end:]}"


def colour(label: str) -> str:
    """Rich's style for a label."""
    return COLOURS.get(label, OTHER_COLOUR)


def mark(
    text: str, spans: Iterable[tuple[int, int, str]], *, colours: bool, first: int = 0, last: int | None = None
) -> Text:
    """A text, or text[first:last] of it, with its mentions marked and the longest of them shortened.

    Args:
        text: the whole.
        spans: (begin, end, label) in code points of the whole, in order. Of one that overlaps the span before it, only the
            rest is marked, so that each character is shown once.
        colours: whether they can be seen; otherwise a mention is written [Paris LOC].
        first: where to begin.
        last: where to end.
    """
    line, at = Text(), first
    for start, end, label in spans:
        begin = max(start, at)
        if end <= begin:
            continue
        line.append(visible(text[at:begin]))
        if colours:
            line.append(visible(shortened(text[begin:end])), style=colour(label))
            line.append(f" {visible(label)}", style="dim")
        else:
            line.append(visible(f"[{shortened(text[begin:end])} {label}]"))
        at = end
    line.append(visible(text[at:last]))
    return line
