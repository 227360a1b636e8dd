"""Print text safely (control characters become escapes), and mark the mentions in a text."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.text import Text

from entitymill.errors import EntityMillError
from entitymill.settings.secret_masking import mask_text

T = TypeVar("T")
COLORS = {"PER": "bold black on green3", "ORG": "bold black on sky_blue1", "LOC": "bold black on gold1"}
"""Dict from label to the style (of the package rich) in which its mentions are shown; other labels have OTHER_COLOR."""
OTHER_COLOR = "bold black on plum2"
MAX_MENTION_CHARS = 120
"""A mention of up to this many characters is shown completely; of a longer mention, only the beginning and end are shown."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Matches control characters, except tabs and line breaks, and lone surrogates."""
_PACKAGES = (
    r"(?:java\.(?:io|lang|math|net|nio|security|sql|text|time|util)|javax\.(?:crypto|net|security|xml)|jdk\.internal"
    r"|sun\.(?:net|nio|reflect|security)|scala|py4j|io\.delta|io\.netty|org\.apache|org\.intel|org\.sparkproject"
    r"|com\.(?:amazonaws|azure|databricks|google\.cloud|johnsnowlabs|microsoft)|software\.amazon)\."
)
_PYTHON_PACKAGES = r"(?:entitymill\w*|pyspark|py4j|pyarrow|numpy|openvino|tokenizers|sentencex)"
_FRAME = re.compile(
    rf"at ((?:(?:java|jdk)\.[a-z.]+/)?{_PACKAGES}[\w.$/<>]+"  # a Java stack frame: module, method, and file or origin
    r"\((?:[\w$]+\.(?:java|scala|kt)(?::\d+)?|<generated>|Unknown Source|Native Method)\))"
    rf'|File "[^"]*?\b({_PYTHON_PACKAGES}/[\w/]+\.py", line \d+, in [\w<>]+)'  # a Python stack frame
    rf"|Caused by: ({_PACKAGES}[\w.$]+(?:Exception|Error))(?::.*)?",
    re.ASCII,
)
"""Matches a line of a Spark error's message that is a stack frame of Java or Python, or that names the class of a cause.
Only the packages above are matched: the message may quote a document that contains a stack trace of another program."""
_MAX_FRAME_LINE = 1000
"""Lines of a message with more characters are not searched for stack frames, because the search could take very long."""
_MAX_CAUSES, _MAX_FRAMES = 10, 60
_CONTROLS_AND_LINES = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def visible(text: str, *, lines: bool = True) -> str:
    r"""Return a text with control characters and lone surrogates replaced by escapes such as `\x1b`.

    Texts, ids, paths and a model's labels come from untrusted sources. A terminal would execute escape sequences in them,
    which could for example overwrite the clipboard.

    Args:
        lines: whether to keep tabs and line breaks (`\r\n` becomes `\n`). If False, they become escapes, too: for text that
            must stay on one line, such as a table cell.
    """
    if lines:
        return _CONTROLS.sub(_escape, text.replace("\r\n", "\n"))
    return _CONTROLS_AND_LINES.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    r"""Return the escape for the matched character, such as `\x1b`."""
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


class _Visible:
    """Wraps an object that rich prints. Control characters in its text become escapes; rich's own control codes are kept."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts of the wrapped object, as rich prints them, with escapes for control characters."""
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class _ShowControls(RenderHook):
    """Hook that turns control characters into escapes in everything that a rich console prints."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap every object that is printed, so that its control characters become escapes."""
        return [_Visible(renderable) for renderable in renderables]


class _SafeConsole(Console):
    """A rich console that prints control characters as escapes; see `open_console`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.push_render_hook(_ShowControls())

    def on_broken_pipe(self) -> None:
        """Raise the current BrokenPipeError again. `common.run_and_report` handles it; rich itself would end the program."""
        raise  # noqa: PLE0704  # called in an except block

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects; in strings, control characters become escapes, and credentials in addresses are masked.

        Rich itself would drop some of the control characters.
        """
        super().print(*(mask_text(visible(item)) if isinstance(item, str) else item for item in objects), **options)


def open_console(**options: Any) -> Console:
    """Return a console of the package rich that prints control characters as escapes, and masks credentials in addresses.

    It prints emoji codes such as `:x:` unchanged, because they may be part of a path. `options` are arguments of rich's
    Console.
    """
    return _SafeConsole(**{"emoji": False, **options})


class SafeFormatter(logging.Formatter):
    """Formats log records without control characters, credentials, and exceptions' messages that may quote a document."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record as text, with control characters replaced by escapes, and credentials in addresses masked."""
        return mask_text(visible(super().format(record)))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        """Return the text that `describe_exception` builds, instead of the standard traceback with all messages."""
        return describe_exception(ei[1])


def describe_exception(error: BaseException | None) -> str:
    """Return a traceback as one text: the types, stack frames, error classes and SQL states of an exception and its causes.

    `error` itself comes last, after its causes; at most 9 causes are described. For None, the result is empty. Messages of
    EntityMillError are included, because they never quote a document. Spark's messages may quote documents, for example in
    `cast('…' as int)` or `raise_error`. So of all other messages, only the parts that `_extract_safe_message` and
    `_find_inner_frames` return are included.
    """
    parts: list[str] = []
    while error is not None and len(parts) < _MAX_CAUSES:
        frames = "".join(traceback.format_tb(error.__traceback__))
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        inside = "".join(f"  in Spark: {line}\n" for line in _find_inner_frames(error))
        parts.append(f"Traceback (most recent call last):\n{frames}{name}{_extract_safe_message(error)}\n{inside}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\nThe above exception was the direct cause of the following:\n\n".join(reversed(parts)).rstrip()


def _extract_safe_message(error: BaseException) -> str:
    """Return a colon and the part of an exception's message that cannot quote a document; empty if there is no such part.

    This part is the whole message of an EntityMillError, an ImportError's module, an OSError's reason and file, or the error
    class and SQL state of PySpark's exceptions.
    """
    if isinstance(error, EntityMillError):
        return f": {error}"
    if isinstance(error, ImportError):
        return f": {error.name}"
    if isinstance(error, OSError) and error.strerror:
        return f": {error.strerror}: {error.filename}"
    found = []
    for name in ("getErrorClass", "getCondition", "getSqlState"):  # methods of PySpark's exceptions
        with contextlib.suppress(Exception):
            found.append(str(getattr(error, name)()))
    return f": {', '.join(dict.fromkeys(name for name in found if name != 'None'))}" if found else ""


def _find_inner_frames(error: BaseException) -> list[str]:
    """Return at most 60 stack frames and exception classes, of Java and Python, that occur in a Spark error's message."""
    lines = (line.strip() for line in str(error).split("\n") if len(line) <= _MAX_FRAME_LINE)
    found = (match[match.lastindex or 0] for match in map(_FRAME.fullmatch, lines) if match)
    return list(itertools.islice(found, _MAX_FRAMES))


def shows_colors(console: Console) -> bool:
    """Return whether a console shows colors: it is a terminal, and neither NO_COLOR nor TERM=dumb is set."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def shorten(entity: str) -> str:
    """Return a mention's text for display; if it is longer than MAX_MENTION_CHARS, only its beginning and end.

    Between them is the number of characters that are left out.
    """
    if len(entity) <= MAX_MENTION_CHARS:
        return entity
    end = MAX_MENTION_CHARS // 3
    return f"{entity[:end]} … {len(entity) - 2 * end:,} characters more … {entity[-end:]}"


def select_style(label: str) -> str:
    """Return the rich style in which mentions with a label are shown."""
    return COLORS.get(label, OTHER_COLOR)


def clip_overlaps(spans: Iterable[tuple[int, int, T]], first: int = 0) -> Iterator[tuple[int, int, T]]:
    """Yield the spans without overlaps: cut off the part of a span that an earlier span covers, or that is before `first`.

    For example, (0, 5) and (3, 8) become (0, 5) and (5, 8).

    Args:
        spans: (begin, end, value) of each span, sorted by begin; `value` is copied. If nothing remains of a span, it is left
            out.
        first: offset of the first character that a yielded span may contain.
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
            overlap, only the remaining part of the later mention is marked, so each character is shown once.
        colors: whether to mark mentions with colors; otherwise a mention and its label are written as [Paris LOC].
        first: where the returned part begins, in code points.
        last: where the returned part ends, or None for the end of the text; no mention may end after it.
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
