from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from entitymill import __version__, cli
from entitymill.commands import evaluate, extract, init, list_runs, maintain, redact, sample, tag
from entitymill.errors import SettingsError
from entitymill_models import prepare_command

PARSERS = {
    "tag": tag.parser,
    "init": init.parser,
    "extract": extract.parser,
    "prepare": prepare_command.parser,
    "maintain": maintain.parser,
    "runs": list_runs.parser,
    "redact": redact.parser,
    "sample": sample.parser,
}
JOBS = Path(__file__).parents[2] / "jobs"


def test_the_help_lists_every_command_and_examples_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)
    for example in cli.EXAMPLES:
        assert f"  {example}\n" in shown
        _, name, *options = shlex.split(example)
        PARSERS[name]().parse_args(options)


SCRIPTS = [
    (extract.main, "extract", "extract_entities.py"),
    (evaluate.main, "evaluate", "evaluate_entities.py"),
    (maintain.main, "maintain", "maintain_tables.py"),
    (prepare_command.main, "prepare", "prepare_model.py"),
]
"""Each command that has a script in jobs/: its function, its name, and the script's name."""


def test_every_script_in_jobs_is_listed() -> None:
    assert {script for _, _, script in SCRIPTS} == {file.name for file in JOBS.glob("*.py")}


@pytest.mark.parametrize(("main", "command", "script"), SCRIPTS, ids=[command for _, command, _ in SCRIPTS])
def test_the_usage_line_names_the_program_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main: Callable[[list[str]], int],
    command: str,
    script: str,
) -> None:
    for started, program in (("/opt/venv/bin/entitymill", f"entitymill {command}"), (f"jobs/{script}", script)):
        monkeypatch.setattr(sys, "argv", [started])
        with pytest.raises(SystemExit):
            main(["--help"])
        assert capsys.readouterr().out.startswith(f"usage: {program} [-h] ")


def test_the_help_of_extract_names_the_command_in_its_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        extract.main(["--help"])
    assert "\n  entitymill extract --config conf/demo.yaml --show-entities\n" in capsys.readouterr().out


def test_the_version_is_the_packages_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"entitymill {__version__}\n"


def test_help_brings_no_spark_and_no_model() -> None:
    """Printing help or the version must not import Spark, OpenVINO or other large libraries."""
    heavy = {"pyspark", "py4j", "openvino", "pyarrow", "numpy", "tokenizers"}
    code = (
        "import sys\nfrom entitymill import cli\n"
        "for arguments in (['--help'], ['--version'], ['init', '-h'], ['fetch-jars', '-h'], ['extract', '-h'],\n"
        "    ['sample', '-h'], ['evaluate', '-h']):\n"
        "    try:\n        cli.main(arguments)\n    except SystemExit as done:\n        assert not done.code\n"
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=JOBS, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "[]\n"


def test_help_works_in_a_directory_that_was_deleted(tmp_path: Path) -> None:
    program = f"import os, sys; os.rmdir({str(tmp_path)!r}); from entitymill import cli; cli.main(['extract', '--help'])"
    environment = {"PYTHONPATH": str(JOBS), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("hours", ["-1", "nan", "inf", "1e9"])
@pytest.mark.parametrize("task", ["vacuum", "purge"])
def test_a_retention_that_is_no_number_of_hours_is_refused(
    capsys: pytest.CaptureFixture[str], task: str, hours: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        maintain.main(["--set", "output.path=/out", task, f"--retain-hours={hours}"])
    assert refused.value.code == 2
    assert "out of range: the number must be at least 0 and at most 1,000,000" in capsys.readouterr().err
    assert maintain.parser().parse_args([task, "--retain-hours=0"]).retain_hours == 0


@pytest.mark.parametrize("command", [evaluate.main, redact.main])
def test_labels_that_name_none_are_refused(
    command: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("label,confidence,correct\nPER,0.5,yes\n")
    chosen = ["--reviewed", f"{tmp_path}/a.csv"]
    if command is redact.main:
        chosen = ["--to", f"{tmp_path}/copy", "--set", f"source.path={tmp_path}", "--set", f"output.path={tmp_path}"]
    assert command([*chosen, "--labels", " , "]) == 2
    assert "--labels: name at least one label, or leave the option out for all labels." in capsys.readouterr().err


def test_a_sample_that_cannot_be_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--to: .* cannot be written: File name too long; name another file"):
        sample._check_target(tmp_path / ("a" * 300), 1)


def test_an_argument_with_control_characters_is_shown_with_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["tag", "x", "--\x1b]52;c;aGk=\x07.txt"])
    said = capsys.readouterr().err
    assert r"--\x1b]52;c;aGk=\x07.txt" in said
    assert "\x1b" not in said


def test_a_command_that_is_almost_one_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tagg", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: tagg is not a command. Did you mean `entitymill tag`?\n")
    assert cli.main(["zzz"]) == 2
    assert capsys.readouterr().err.startswith("error: zzz is not a command.\n")


def test_a_text_may_be_piped_into_tag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Angela Merkel flew to Paris."))
    assert tag.main(["--json"]) == 0
    assert [json.loads(line)["entity"] for line in capsys.readouterr().out.splitlines()] == ["Angela Merkel", "Paris"]
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(SystemExit):
        tag.main([])
    assert "name a text or a file" in capsys.readouterr().err
