"""Test that the commands in docs/tutorial.md, run in order, print what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from page_code import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf8")
STEPS = re.findall(r"```bash\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)
"""Each block of commands, with the output that the page shows for it."""
_VARYING = re.compile(r"\b[0-9a-f]{12}\b|\d{4}-\d\d-\d\d \d\d:\d\d|\b\d+(\.\d+)? (s|min)\b")
"""Pattern of run ids, times and durations."""


_READER = "/home/me/entity-mill"
"""Current directory in the output that the page shows."""


def comparable_lines(output: str, directory: str = _READER) -> list[str]:
    """Return the lines of an output without run ids, times, durations, the directory and the padding of columns."""
    return [" ".join(_VARYING.sub("*", line.replace(directory, "")).split()) for line in output.splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a directory with links to those parts of the repository that the commands use."""
    for name in (".venv", "models", "build/jars"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.deep
# Spark starts five times, each in a process of its own.
@pytest.mark.slow
def test_the_commands_print_what_the_page_shows(checkout: Path) -> None:
    # Remove the variables that PySpark sets for this process's session, because the commands start their own sessions.
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    environment |= {"PYTHONPATH": str(ROOT / "jobs"), "COLUMNS": "120", "SPARK_LOCAL_IP": "127.0.0.1"}
    for commands, shown in STEPS:
        done = subprocess.run(
            ["bash", "-euc", commands],
            cwd=checkout, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, commands + done.stderr[-2000:]
        printed = comparable_lines(done.stdout, str(checkout))
        lost = [line for line in comparable_lines(shown) if line not in printed]
        assert lost == [], f"{commands}\nprinted\n{done.stdout}"


def test_every_step_is_run() -> None:
    headings = re.findall(r"^## \d\. ", PAGE, re.MULTILINE)
    assert len(headings) == 7
    assert len(STEPS) == PAGE.count("```bash") == 10
    assert sum(bool(shown) for _, shown in STEPS) == PAGE.count("```text") == 8
