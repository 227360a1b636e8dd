"""Mentions marked in their text: by colour where there is a terminal, by brackets elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

COLOURS = {"PER": "bold black on green3", "ORG": "bold black on sky_blue1", "LOC": "bold black on gold1"}
OTHER_COLOUR = "bold black on plum2"


def colour(label: str) -> str:
    """Rich's style for a label."""
    return COLOURS.get(label, OTHER_COLOUR)


def mark(
    text: str, spans: Iterable[tuple[int, int, str]], *, colours: bool, first: int = 0, last: int | None = None
) -> Text:
    """A text, or text[first:last] of it, with its mentions marked.

    Args:
        text: the whole.
        spans: (begin, end, label) in code points of the whole, in order, none over another.
        colours: whether they can be seen; otherwise a mention is written [Paris LOC].
        first: where to begin.
        last: where to end.
    """
    line, at = Text(), first
    for begin, end, label in spans:
        line.append(text[at:begin])
        if colours:
            line.append(text[begin:end], style=colour(label))
            line.append(f" {label}", style="dim")
        else:
            line.append(f"[{text[begin:end]} {label}]")
        at = end
    line.append(text[at:last])
    return line
