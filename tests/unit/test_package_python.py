"""Test package/python, which starts Python in the environment archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).parents[2] / "package" / "python"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return an unpacked archive in a directory whose name contains a space."""
    root = tmp_path / "some where"
    (root / "bin").mkdir(parents=True)
    (root / "lib").mkdir()
    shutil.copy(LAUNCHER, root / "bin" / "python")
    (root / "lib" / "carried.py").write_text("NAME = 'the archive'")
    (root / "python-version").write_text(f"{sys.version_info[0]}.{sys.version_info[1]}\n")
    return root


def run(environment: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{sys.base_prefix}/bin:/usr/bin:/bin"
    return subprocess.run(
        [str(environment / "bin" / "python"), "-c", code],
        env={"PATH": path, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_it_is_a_python_of_the_node_with_the_packages_of_the_archive(environment: Path) -> None:
    done = run(environment, "import carried; print(carried.NAME)")
    assert (done.stdout, done.stderr) == ("the archive\n", "")


def test_what_spark_puts_on_the_path_comes_first(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "carried.py").write_text("NAME = 'Spark'")
    assert run(environment, "import carried; print(carried.NAME)", PYTHONPATH=str(tmp_path)).stdout == "Spark\n"


def test_a_node_without_such_a_python_says_so(environment: Path) -> None:
    (environment / "python-version").write_text("3.99\n")
    done = run(environment, "pass")
    assert done.returncode == 127
    assert f"{os.uname().nodename} has no Python 3.99 on its path; install it, or set ENTITYMILL_PYTHON" in done.stderr


def test_an_interpreter_can_be_named(environment: Path) -> None:
    done = run(environment, "import carried, sys; print(sys.executable)", PATH="/usr/bin", ENTITYMILL_PYTHON=sys.executable)
    assert done.stdout.strip() == sys.executable
