"""What is printed for people: characters that would steer their terminal are shown instead of obeyed."""

from __future__ import annotations

import logging
import re
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROLS_AND_LINES = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def visible(text: str, *, lines: bool = True) -> str:
    r"""Return a text with its control characters, and what UTF-8 cannot write, as `\x1b` and the like.

    Texts, ids, paths and a model's labels come from strangers; a terminal would take a sequence in them for a command, to
    write the clipboard for example.

    Args:
        text: from outside.
        lines: whether line breaks and tabs stay; not in a cell, nor in the middle of a sentence.
    """
    if lines:
        return _CONTROLS.sub(_by_number, text.replace("\r\n", "\n"))
    return _CONTROLS_AND_LINES.sub(_by_number, text)


def _by_number(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


class _Visible:
    """Something that rich prints, without control characters but for those that rich itself adds."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class _ShowControls(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Visible(one) for one in renderables]


class _SafeConsole(Console):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.push_render_hook(_ShowControls())

    def print(self, *objects: Any, **options: Any) -> None:
        # Rich itself would drop a few of them from a string.
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **options)


def open_console(**options: Any) -> Console:
    """Return a console that lets no control character through, whoever forgot `visible`.

    Args:
        options: as rich.console.Console takes them.
    """
    return _SafeConsole(**options)


class VisibleFormatter(logging.Formatter):
    """Formats a log's records without control characters: a log is read on a terminal, too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        return visible(super().format(record))
