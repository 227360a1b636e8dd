"""What a package that was installed alone says of what it lacks: in an environment that really lacks it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs"
RUN = ["extract", "--set", "source.path=texts", "--set", "output.path=out"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is installed here, but for Spark and what only preparing models needs."""
    here, there = Path(sysconfig.get_path("purelib")), tmp_path_factory.mktemp("packages")
    lacking = {"pyspark", "py4j", "delta", "delta_spark", "nncf", "safetensors", "deltalake"}
    for path in here.iterdir():
        if path.name.partition("-")[0] not in lacking:
            (there / path.name).symlink_to(path)
    return there


ENTRY = "from entitymill.cli import entry; entry()"


def said(
    arguments: list[str], directory: Path, packages: Path | None, code: str = ENTRY, **environment: str
) -> tuple[int, str]:
    """Exit code and stderr of the command, or of other code, started in an empty directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_", "JAVA_HOME"))}
    paths = f"{JOBS}:{packages}" if packages else str(JOBS)
    done = subprocess.run(
        [sys.executable, *(["-S"] if packages else []), "-c", code, *arguments],
        cwd=directory, env={**kept, "PYTHONPATH": paths, **environment}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


@pytest.mark.parametrize("arguments", [RUN, ["maintain", "--set", "source.path=x", "optimize"], ["evaluate", "--help"]])
def test_without_spark(tmp_path: Path, packages: Path, arguments: list[str]) -> None:
    code, error = said(arguments, tmp_path, packages)
    assert code == 1
    assert error.startswith("error: PySpark is not installed: install it with `pip install 'entitymill[spark]'`")


def test_without_what_prepares_models(tmp_path: Path, packages: Path) -> None:
    source = JOBS.parent / "tests" / "golden" / "tiny_models" / "distilbert"
    code, error = said(["prepare", str(source), "made"], tmp_path, packages)
    assert code == 2
    assert "packages for preparing models: `pip install nncf safetensors deltalake`" in error


def test_what_nobody_expected_is_told_without_spark(tmp_path: Path, packages: Path) -> None:
    code = "from entitymill.run import outcome; import sys; sys.exit(outcome.told(RuntimeError('a full disk'))[0])"
    assert said([], tmp_path, packages, code) == (1, "RuntimeError; the log has the details.")


def test_what_needs_no_spark_does_without(tmp_path: Path, packages: Path) -> None:
    assert said(["--version"], tmp_path, packages) == (0, "")
    assert said(["--help"], tmp_path, packages) == (0, "")
    models = tmp_path / "models"
    models.symlink_to(JOBS.parent / "models")
    assert said(["tag", "--model", "models/demo", "Angela Merkel flew to Paris."], tmp_path, packages) == (0, "")


def test_without_java(tmp_path: Path) -> None:
    code, error = said(RUN, tmp_path, None, PATH=str(tmp_path))
    assert (code, "error: Spark needs Java, which is not on the path: install a JDK 17" in error) == (1, True)
    code, error = said(RUN, tmp_path, None, JAVA_HOME="/nowhere")
    assert (code, "error: JAVA_HOME is /nowhere, where no Java is: set it to a JDK 17" in error) == (1, True)


def test_without_jars(tmp_path: Path) -> None:
    code, error = said(RUN, tmp_path, None)
    assert code == 1
    assert "error: spark.jars: no jar in build/jars: run `entitymill fetch-jars --to build/jars` (in the" in error


def test_without_a_model(tmp_path: Path) -> None:
    code, error = said(["tag", "--model", "models/demo", "Angela Merkel flew to Paris."], tmp_path, None)
    assert code == 5
    assert "nothing is at models/demo; copy the directory models of the repository, or of build/package, to where" in error
