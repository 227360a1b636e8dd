"""Test the package `entitymill` without its extensions: a command that needs one must say so in one sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that contains only the package `entitymill`."""
    directory = tmp_path_factory.mktemp("core")
    shutil.copytree(JOBS / "entitymill", directory / "entitymill", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


PROGRAM = """
import sys
core = sys.argv.pop(1)
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path[:] = [core, *(place for place in sys.path if not place.endswith("/jobs"))]
from entitymill import cli
sys.exit(cli.main(sys.argv[1:]))
"""
"""A program that runs the command line with the copied package, and hides the packages of the repository."""


def run(core: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", PROGRAM, str(core), *arguments]
    return subprocess.run(command, cwd=core, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("arguments", "asked_by", "package"),
    [
        (["prepare", "a", "b"], "entitymill prepare", "entitymill_models"),
        (["report", "--to", "x.html"], "entitymill report", "entitymill_reports"),
        (
            ["extract", "--set", "source.path=a", "--set", "output.path=b", "--set", "metrics.textfile=x.prom"],
            "report, metrics, lineage",
            "entitymill_reports",
        ),
    ],
)
def test_a_missing_extension_is_one_sentence(core: Path, arguments: list[str], asked_by: str, package: str) -> None:
    done = run(core, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert f"error: {asked_by} needs the package {package}, which is not installed: copy it" in done.stderr


def test_the_core_alone_tags_a_text(core: Path) -> None:
    models = JOBS.parent / "models"
    done = run(core, "tag", "--model", str(models / "demo"), "Angela Merkel flew to Paris.")
    assert (done.returncode, done.stdout.strip()) == (0, "[Angela Merkel PER] flew to [Paris LOC]."), done.stderr
