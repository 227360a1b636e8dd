"""`entitymill tag`: find mentions in texts or files without Spark, and print them marked in the text or as JSON."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from entitymill.commands import common
from entitymill.errors import SourceError
from entitymill.terminal.console_text import mark_mentions, open_console, shows_colors, visible

_BUNDLED = Path("models") / "demo"
MODEL = next(filter(Path.is_dir, [Path(__file__).parents[3] / _BUNDLED]), _BUNDLED)
"""Path of the bundled model: models/demo in the clone from which this program runs, or else in the working directory."""
STDIN = "-"
FACTORY = "entitymill.commands.tagging_in_child:open_tagger"
"""The function that the child process calls to open its tagger."""
TIMEOUT_SECONDS = 86_400.0
"""Time limit, in seconds, for the child process to tag one window (the texts that it gets at once)."""
_TEXT_SUFFIXES = (".txt", ".md", ".html", ".json")
_MAX_NAME = 255
"""Maximum length of a file's name on Linux."""
_MAX_WORDS = 3
"""An argument that names no file, and has more words than this, is a text, even if it ends in a suffix such as .txt."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill tag`."""
    built = common.build_parser(
        "tag",
        description="Find the entities in texts, and print the texts with the entities marked. If an argument names a file, "
        "the file is read; - is standard input. Any other argument is a text, unless it looks like the path of a file.",
        epilog='Examples:\n  entitymill tag "Angela Merkel flew to Paris."\n  entitymill tag --json letters/*.txt',
    )
    built.add_argument(
        "texts", metavar="TEXT|FILE", nargs="*", help="a text, a UTF-8 file with one text, or - (default: standard input)"
    )
    built.add_argument("--json", action="store_true", help="print one JSON object per mention, one per line")
    built.add_argument("--model", type=Path, default=MODEL, help="a model bundle (default: the bundled one)")
    built.add_argument(
        "--precision",
        choices=("f32", "bf16", "int8"),
        default="f32",
        help="precision in which the model runs (default: f32)",
    )
    built.add_argument(
        "--detector",
        choices=("dl", "rules", "sentencex"),
        help="sentence detector (default: dl with --detector-model, otherwise sentencex)",
    )
    built.add_argument(
        "--detector-model",
        type=Path,
        help="model of the detector dl (default: sentence_detector next to the model, or the bundled one)",
    )
    built.add_argument(
        "--markup",
        choices=("none", "html"),
        default="none",
        help="html: the texts are HTML, and tags are not part of mentions (default: none)",
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Find the mentions of the texts, print them, and return the exit code."""
    options = parser().parse_args(arguments)
    if not options.texts and sys.stdin.isatty():
        parser().error("name a text or a file, or pipe a text into this command")
    options.texts = options.texts or [STDIN]

    def work(start_log: Callable[[str | None], str]) -> None:
        """Start the log, read the texts, find their mentions, and print them."""
        start_log(None)
        named_texts = list(_read_texts(options.texts))
        found = _tag_texts([text for _, text in named_texts], options)
        show = _print_json if options.json else _print_marked
        for (name, text), mentions in zip(named_texts, found, strict=True):
            show(name, text, mentions, several=len(named_texts) > 1)

    return common.run_and_report(work, "interrupted.")


def _tag_texts(texts: list[str], options: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """Return the mentions of each text; each mention is a dictionary with the fields of `python_api.Mention`.

    A child process loads the model and tags the texts, so that a damaged model crashes only the child. Raise ModelError if
    the model cannot be loaded, if the child crashes, or if it needs more than TIMEOUT_SECONDS for the texts that it gets at
    once. Raise WorkerError if the child cannot be started, or if there is not enough memory.
    """
    from entitymill.workers import child_process

    windows = list(child_process.cut_texts(texts, child_process.WINDOW_CHARS))
    largest = max(sum(map(len, window)) for window in windows)
    arguments = (options.model, options.precision, options.detector, options.detector_model, options.markup, largest)
    child = child_process.Child(child_process.Work(FACTORY, arguments, quiet=True))
    import pyarrow as pa  # takes a while, and --help does not need it

    found: list[list[dict[str, Any]]] = []
    try:
        for window in windows:
            # A lone surrogate cannot be encoded as UTF-8. Its replacement is also one code point, so offsets stay correct.
            column = pa.array([_SURROGATE.sub("\ufffd", text) for text in window], pa.large_string())
            found += child(pa.RecordBatch.from_arrays([column], ["text"]), TIMEOUT_SECONDS).column("mentions").to_pylist()
    except child_process.ChildLostError as lost:
        raise common.build_lost_child_error(lost, options.model) from lost
    child.close()
    return [
        [{**row, "entity": text[row["begin"] : row["end"]]} for row in rows] for text, rows in zip(texts, found, strict=True)
    ]


def _read_texts(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) for each command-line argument: a file's content, standard input, or the argument itself.

    Raise SourceError if a file cannot be read or is not UTF-8, or an argument looks like the path of a missing file.
    """
    for number, argument in enumerate(arguments):
        path = Path(argument)
        if argument == STDIN or _is_file(path):
            try:
                yield argument, sys.stdin.read() if argument == STDIN else path.read_bytes().decode("utf8")
            except OSError as error:
                raise SourceError(f"{argument} cannot be read: {error.strerror}.") from error
            except UnicodeDecodeError as error:
                raise SourceError(f"{argument} is not UTF-8 text: convert it first, with iconv for example.") from error
        elif _looks_like_path(argument):
            raise SourceError(
                f"{argument} looks like a path, but there is no such file: check the path. If it is a text, pipe it into "
                "this command."
            )
        else:
            yield f"text {number + 1}", argument


def _looks_like_path(text: str) -> bool:
    """Return whether a text is probably meant as the path of a file.

    A single word counts as a path if it has a slash or ends in one of _TEXT_SUFFIXES. Two or three words count as a path if
    they end in one of _TEXT_SUFFIXES. They must also be on one line, and not be longer than a file's name can be.
    """
    has_suffix = text.lower().endswith(_TEXT_SUFFIXES)
    words = len(text.split())
    if words == 1:
        return has_suffix or "/" in text
    return has_suffix and words <= _MAX_WORDS and len(text.splitlines()) == 1 and len(text) <= _MAX_NAME


def _is_file(path: Path) -> bool:
    """Return whether a path names a file or a pipe; False for a directory, and for a text that cannot be a path.

    If access to a directory on the path is denied, return whether the text is probably meant as a path, as
    `_looks_like_path` does. If it is, reading the file fails later, with an error that says that access is denied.
    """
    try:
        return path.exists() and not path.is_dir()
    except PermissionError:
        return _looks_like_path(str(path))
    except (OSError, ValueError):  # the text is too long for a file name, or contains NUL
        return False


def _print_json(name: str, _: str, mentions: list[dict[str, Any]], *, several: bool) -> None:
    """Print each mention as one line of JSON, with the confidence rounded to six decimal places.

    If there are several texts, each line has the name of its text as `source`.
    """
    for mention in mentions:
        row = {**({"source": name} if several else {}), **mention, "confidence": round(mention["confidence"], 6)}
        print(json.dumps(row, ensure_ascii=True))


def _print_marked(name: str, text: str, mentions: list[dict[str, Any]], *, several: bool) -> None:
    """Print a text with its mentions marked; if there are several texts, print the name of the text before it."""
    console = open_console(highlight=False, soft_wrap=True)
    if several:
        console.print(Text(visible(name, lines=False), style="dim"))
    spans = [(mention["begin"], mention["end"], mention["label"]) for mention in mentions]
    console.print(mark_mentions(text, spans, colors=shows_colors(console)))
