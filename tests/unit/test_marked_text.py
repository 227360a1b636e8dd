from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from entitymill.terminal import marked_text

ROOT = Path(__file__).parents[2]
SPANS = [(0, 13, "PER"), (22, 27, "LOC")]
TEXT = "Angela Merkel flew to Paris."


def shown(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    console.print(marked_text.mark_mentions(TEXT, SPANS, colors=marked_text.shows_colors(console)))
    return file.getvalue()


@pytest.mark.parametrize(
    ("terminal", "environment", "colored"),
    [
        (True, {"TERM": "xterm-256color"}, True),
        (False, {"TERM": "xterm-256color"}, False),
        (True, {"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_a_mention_can_be_told_from_the_rest(terminal: bool, environment: dict[str, str], colored: bool) -> None:
    written = shown(Console(file=io.StringIO(), force_terminal=terminal, _environ=environment, width=100))
    assert ("\x1b[" in written and "[Paris LOC]" not in written) == colored
    assert (written == "[Angela Merkel PER] flew to [Paris LOC].\n") != colored


def test_an_endless_mention_does_not_flood_the_screen() -> None:
    text = "See " + "Llan" * 1_000_000 + "gogoch in Wales."
    end = text.index(" in Wales")
    line = marked_text.mark_mentions(text, [(4, end, "LOC"), (end + 4, len(text) - 1, "LOC")], colors=False).plain
    assert len(line) < 200
    assert line.startswith("See [LlanLlan")
    assert line.endswith("Llangogoch LOC] in [Wales LOC].")
    assert f" … {end - 4 - 80:,} characters more … " in line
    assert marked_text.shorten("x" * marked_text.LONGEST_SHOWN) == "x" * marked_text.LONGEST_SHOWN


@pytest.mark.parametrize("terminal", [True, False])
def test_the_command_marks_by_brackets_where_nobody_sees_colors(terminal: bool) -> None:
    """On a real terminal, and into a pipe."""
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    main, other = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", "from entitymill.cli import entry; entry()", "tag", TEXT],
        cwd=ROOT, env=environment | {"TERM": "xterm"}, check=True, stdout=other if terminal else subprocess.PIPE, timeout=60,
    )  # fmt: skip
    os.close(other)
    written = os.read(main, 10_000) if terminal else done.stdout
    os.close(main)
    assert (b"[Paris LOC]" in written) != terminal
    assert (b"\x1b[" in written) == terminal
