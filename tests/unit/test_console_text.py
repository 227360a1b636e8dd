"""Test that no control character of a text, an id, a path or a manifest reaches the terminal.

Such characters could, for example, write to the clipboard (OSC 52). These tests also check how mentions are marked: with
colors on a terminal, with brackets elsewhere.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from entitymill import cli, settings
from entitymill.commands import common, erase, evaluate, extract, init, list_runs, tag
from entitymill.errors import SettingsError, SourceError
from entitymill.run import exit_codes
from entitymill.run.dry_runs import Plan
from entitymill.run_row import RunRow
from entitymill.terminal import console_text
from entitymill.terminal import summaries as terminal
from entitymill.terminal.progress import describe_progress

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
STEERING = "\x1b]52;c;aGk=\x07\x9b31m\x85\x7f\x00\x08\r"
SHOWN = r"\x1b]52;c;aGk=\x07\x9b31m\x85\x7f\x00\x08\x0d"
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SPANS = [(0, 13, "PER"), (22, 27, "LOC")]
TEXT = "Angela Merkel flew to Paris."


def test_controls_are_shown_by_their_numbers() -> None:
    assert console_text.visible(STEERING) == SHOWN
    assert console_text.visible("a\tb\nc\r\nd") == "a\tb\nc\nd"
    assert console_text.visible("a\tb\nc", lines=False) == r"a\x09b\x0ac"
    assert console_text.visible("Zoë 😀 العربية\u2028") == "Zoë 😀 العربية\u2028"
    assert console_text.visible(b"\xff".decode("utf8", "surrogateescape")) == r"\udcff"


def test_codes_of_emoji_stay_as_they_are() -> None:
    file = io.StringIO()
    console_text.open_console(file=file, width=200).print("/data/host:x:y", markup=False)
    assert file.getvalue() == "/data/host:x:y\n"


def test_a_console_lets_none_through_whatever_is_printed() -> None:
    file = io.StringIO()
    table = Table(f"heading {STEERING}")
    table.add_row(STEERING, style="red")
    console = console_text.open_console(file=file, force_terminal=True, _environ={"TERM": "xterm-256color"}, width=200)
    for what in (STEERING, Text(STEERING), table):
        console.print(what, markup=False)
    written = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())  # the console itself writes colors
    assert not _CONTROLS.search(written)
    assert written.count(r"\x1b]52") == 4


def test_marked_texts() -> None:
    text = f"{STEERING} Angela{STEERING} Merkel"
    shown = console_text.mark_mentions(text, [(len(STEERING) + 1, len(text), f"PER{STEERING}")], colors=False).plain
    assert shown == f"{SHOWN} [Angela{SHOWN} Merkel PER{SHOWN}]"


def test_tag_shows_texts_and_names_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a\x1b]0;x\x07.txt"
    file.write_bytes(f"Angela Merkel{STEERING}\r\nflew to Paris.".encode())
    assert tag.main([str(file), "Paris\x1b[2J"]) == 0
    said = capsys.readouterr().out
    assert not _CONTROLS.search(said)
    assert (r"a\x1b]0;x\x07.txt" in said, SHOWN[8:] in said.replace(" PER]", ""), r"\x1b[2J" in said) == (True, True, True)


def test_errors_and_where_the_log_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(start_log: Callable[[str | None], str]) -> None:
        start_log(str(tmp_path / "log\x1b[2J"))
        raise SettingsError(f"source.path: there is nothing at {STEERING}.")

    assert common.run_and_report(work, "") == 2
    said = capsys.readouterr().err
    assert not _CONTROLS.search(said)
    assert f"there is nothing at {SHOWN}." in said
    assert r"log\x1b[2J" in said


def test_a_text_that_looks_like_a_stack_trace_is_not_logged() -> None:
    text = "\n".join([
        "[CAST_INVALID_INPUT] The value 'Anna",
        "\tat Anna.Schmidt(Berlin)",
        "at com.example.Anna.schmidt(Anna.java:12)",
        "Caused by: HIVpositive",
        "\tat java.Anna.schmidt(Berlin)",
        "\tat sun.Schmidt.ist.krank(Klinik)",
        "Caused by: java.AnnaException: x",
        '  File "/home/anna/schmidt.py", line 3, in anna',
        "\tat org.apache.spark.sql.Dataset$.collect(Dataset.scala:12)",
        "\tat java.base/java.lang.Thread.run(Thread.java:840)",
        "\tat java.io.x.Schmidt(Berlin)",
        "Caused by: java.io.IOException: Anna",
        '  File "/cluster/pyspark.zip/pyspark/worker.py", line 3, in main',
        "' is too long: " + "at " * 500,
    ])  # fmt: skip
    logged = console_text.describe_exception(RuntimeError(text))
    assert not re.search("anna|schmidt|HIV|too long", logged, re.IGNORECASE)
    assert [line.removeprefix("  in Spark: ") for line in logged.splitlines() if "in Spark" in line] == [
        "org.apache.spark.sql.Dataset$.collect(Dataset.scala:12)",
        "java.base/java.lang.Thread.run(Thread.java:840)",
        "java.io.IOException",
        'pyspark/worker.py", line 3, in main',
    ]


@pytest.mark.parametrize(
    "text", ["\n" * 1_000_000, "org.apache.spark." * 60_000, "org.apache.spark.a." * 50_000, "[A" * 500_000]
)
def test_the_description_of_an_error_takes_no_minutes(text: str) -> None:
    began = time.process_time()
    console_text.describe_exception(RuntimeError(text))
    exit_codes.describe_error(RuntimeError(text))
    assert time.process_time() - began < 10, "with a quadratic pattern, each of these takes more than a minute"


def test_a_log_that_goes_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def work(start_log: Callable[[str | None], str]) -> None:
        start_log(common.STDERR)
        logging.getLogger("entitymill").info("model %s", STEERING)
        raise SourceError(STEERING)

    assert common.run_and_report(work, "") == 3
    said = capsys.readouterr().err
    assert not _CONTROLS.search(said)
    assert said.count(SHOWN) >= 2


def test_the_table_of_runs() -> None:
    texts = dict.fromkeys(("run_id", "status", "mode", "stage", "error", "log", "process", "application_id"), STEERING)
    run = RunRow.from_values({**texts, "started_at": "2026-11-26", "ended_at": "2026-11-27", "planned": 9})
    file = io.StringIO()
    console = Console(file=file, width=400)
    console.print(list_runs.build_table([run]))
    for status in ("failed", "running"):
        console.print(list_runs._describe_run(replace(run, status=status)), markup=False, soft_wrap=True)
    assert not _CONTROLS.search(file.getvalue())
    assert file.getvalue().count(r"\x1b]52;c;aGk=\x07") >= 6


def test_plans_scores_and_progress() -> None:
    file = io.StringIO()
    console = Console(file=file, width=200)
    loaded = settings.load(None, ["source.path=a", "output.path=b"], {})
    terminal.print_plan(console, Plan(1, 2, 3, 4, {STEERING: 1}, 1, None, None), loaded)
    console.print(evaluate._build_table({STEERING: evaluate.Score(1, 1, 1)}))
    known = {"run_id": STEERING, "stage": "waiting", "waiting": f"run x (host {STEERING})", "planned": 0}
    console.print(describe_progress(known), markup=False, soft_wrap=True)
    assert not _CONTROLS.search(file.getvalue())
    assert file.getvalue().count(SHOWN) == 4


def test_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main([f"{STEERING[:-3]}x", "--to", "there/\x1b[2J"]) != 0
    assert extract.main(["--config", f"{STEERING}.yaml", "--result-json", f"{STEERING[:-3]}/none/x"]) != 0
    assert erase.main(["--set", f"{STEERING}=1"]) != 0
    assert not _CONTROLS.search(capsys.readouterr().err)
    assert cli.main(["\x1b[2J"]) == 2
    assert r"error: \x1b[2J is not a command." in capsys.readouterr().err


def test_settings_are_printed_as_yaml_with_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["source.path=texts\x1b[2J\x85\x9b", "output.path=out", "source.where=a = '\x1b'"]
    assert extract.main([*(item for one in options for item in ("--set", one)), "--print-config"]) == 0
    said = capsys.readouterr().out
    assert not _CONTROLS.search(said)
    assert yaml.safe_load(said)["source"]["path"] == "texts\x1b[2J\x85\x9b"


def test_json_of_runs_holds_no_controls() -> None:
    assert not _CONTROLS.search(json.dumps({"error": STEERING}, default=str).replace("\x7f", ""))


def test_every_console_is_one_that_shows_controls() -> None:
    """Only `console_text` may create a Console, so that control characters are always escaped."""
    allowed = {"terminal/console_text.py"}
    places = [
        path for path in (JOBS / "entitymill").rglob("*.py") if str(path.relative_to(JOBS / "entitymill")) not in allowed
    ]
    assert [path.name for path in places if re.search(r"\bConsole\(", path.read_text(encoding="utf8"))] == []


def shown(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    console.print(console_text.mark_mentions(TEXT, SPANS, colors=console_text.shows_colors(console)))
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
    line = console_text.mark_mentions(text, [(4, end, "LOC"), (end + 4, len(text) - 1, "LOC")], colors=False).plain
    assert len(line) < 200
    assert line.startswith("See [LlanLlan")
    assert line.endswith("Llangogoch LOC] in [Wales LOC].")
    assert f" … {end - 4 - 80:,} characters more … " in line
    assert console_text.shorten("x" * console_text.MAX_MENTION_CHARS) == "x" * console_text.MAX_MENTION_CHARS


@pytest.mark.parametrize("terminal", [True, False])
def test_the_command_marks_by_brackets_where_nobody_sees_colors(terminal: bool) -> None:
    """The command must mark mentions with colors on a terminal, and with brackets in a pipe."""
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
