"""`entitymill tag`: texts from the command line or from files, their mentions marked or as JSON. No Spark."""

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
from entitymill.errors import ModelError, SourceError
from entitymill.terminal.console_text import open_console, visible
from entitymill.terminal.marked_text import mark, sees_colours

_CARRIED = Path("models") / "demo"
MODEL = next(filter(Path.is_dir, [Path(__file__).parents[3] / _CARRIED]), _CARRIED)
"""The carried model: where this is the repository its own, elsewhere one that was copied to where this is started."""
STDIN = "-"
FACTORY = "entitymill.commands.tag_child:open_tagger"
"""Of what the child process does."""
LONGEST_SECONDS = 86_400.0
_SURROGATE = re.compile("[\ud800-\udfff]")


def parser() -> argparse.ArgumentParser:
    """The options of `entitymill tag`."""
    built = argparse.ArgumentParser(
        prog="entitymill tag",
        description="Find the entities of texts, and print them marked. An argument that names a file is read, any other "
        "is the text itself; - is standard input.",
        epilog='Examples: entitymill tag "Angela Merkel flew to Paris."   entitymill tag --json letters/*.txt',
    )
    built.add_argument("texts", metavar="TEXT|FILE", nargs="+", help="a text, a file of one text (UTF-8), or -")
    built.add_argument("--json", action="store_true", help="one JSON object a mention, a line each")
    built.add_argument("--model", type=Path, default=MODEL, help="a model bundle (default: the carried one)")
    built.add_argument("--precision", choices=("f32", "bf16", "int8"), default="f32", help="of execution (default: f32)")
    built.add_argument("--detector", choices=("dl", "rules", "sentencex"), default="dl", help="of sentences (default: dl)")
    built.add_argument(
        "--detector-model", type=Path, help="for dl (default: sentence_detector beside the model, or the carried one)"
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Tag texts; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], str]) -> None:
        start_log(None)
        given = list(_read(options.texts))
        found = _tag([text for _, text in given], options)
        for (name, text), mentions in zip(given, found, strict=True):
            (_print_json if options.json else _print_marked)(name, text, mentions, several=len(given) > 1)

    return common.reporting(work, "interrupted.")


def _tag(texts: list[str], options: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """The mentions of each text, as rows with the fields of `python_api.Mention`.

    A child process loads the model and tags: a damaged model ends that process, not this one.

    Raises:
        ModelError: the model cannot be loaded, or ends the child over a text.
    """
    from entitymill.workers import isolation

    characters = sum(map(len, texts))
    arguments = (options.model, options.precision, options.detector, options.detector_model, characters)
    child = isolation.Child(isolation.Work(FACTORY, arguments, quiet=True))
    import pyarrow as pa  # takes its time, which `Child` uses while it waits

    # A lone surrogate is no UTF-8; what stands in for it is as long.
    sent = pa.array([_SURROGATE.sub("\ufffd", text) for text in texts], pa.large_string())
    try:
        column = child(pa.RecordBatch.from_arrays([sent], ["text"]), LONGEST_SECONDS).column("mentions")
    except isolation.LostError as lost:
        raise ModelError(
            f"The model {options.model} crashes over these texts, or takes far more memory than they explain "
            f"({lost.detail}): copy the model again, from where it can be trusted."
        ) from lost
    child.close()
    return [
        [{**row, "entity": text[row["begin"] : row["end"]]} for row in rows]
        for text, rows in zip(texts, column.to_pylist(), strict=True)
    ]


def _read(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each."""
    for number, argument in enumerate(arguments):
        path = Path(argument)
        if argument == STDIN or _is_file(path):
            try:
                yield argument, sys.stdin.read() if argument == STDIN else path.read_bytes().decode("utf8")
            except OSError as error:
                raise SourceError(f"{argument} cannot be read: {error.strerror}.") from error
            except UnicodeDecodeError as error:
                raise SourceError(f"{argument} is not UTF-8 text: convert it first, with iconv for example.") from error
        elif len(argument.split()) == 1 and ("/" in argument or path.suffix in (".txt", ".md", ".html", ".json")):
            raise SourceError(f"{argument} is no file that is there, and looks like one: check the path.")
        else:
            yield f"text {number + 1}", argument


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text is too long for a name, or holds a NUL
        return False


def _print_json(name: str, _: str, mentions: list[dict[str, Any]], *, several: bool) -> None:
    for mention in mentions:
        row = {**({"source": name} if several else {}), **mention, "confidence": round(mention["confidence"], 6)}
        print(json.dumps(row, ensure_ascii=True))


def _print_marked(name: str, text: str, mentions: list[dict[str, Any]], *, several: bool) -> None:
    console = open_console(highlight=False, soft_wrap=True)
    if several:
        console.print(Text(visible(name, lines=False), style="dim"))
    spans = [(mention["begin"], mention["end"], mention["label"]) for mention in mentions]
    console.print(mark(text, spans, colours=sees_colours(console)))
