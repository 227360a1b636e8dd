"""Test the errors about missing requirements, in environments that really lack them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from entitymill import settings
from entitymill.errors import SessionError
from entitymill.spark import installation

JOBS = Path(__file__).parents[2] / "jobs"
RUN = ["extract", "--set", "source.path=file:/texts", "--set", "output.path=out"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with all installed packages, except Spark and those that only `entitymill prepare` needs."""
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
    """Run the command line, or other code, in `directory`; return the exit code, and stderr as one line."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_", "JAVA_HOME"))}
    paths = f"{JOBS}:{packages}" if packages else str(JOBS)
    done = subprocess.run(
        [sys.executable, *(["-S"] if packages else []), "-c", code, *arguments],
        cwd=directory, env={**kept, "PYTHONPATH": paths, **environment}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [RUN, ["maintain", "--set", "source.path=x", "optimize"], ["evaluate", "--entities", "file:/e", "--gold", "file:/g"]],
)
def test_without_spark(tmp_path: Path, packages: Path, arguments: list[str]) -> None:
    code, error = said(arguments, tmp_path, packages)
    assert code == 1
    assert error.startswith(f"error: PySpark is not installed: install it with `make -C {JOBS.parent} install` (Spark 3.5;")


def test_one_look_at_an_installation_names_all_that_it_lacks(tmp_path: Path, packages: Path) -> None:
    lacking = ["--set", "spark.jars=no_jars", "--set", "model.path=models/none"]
    code, error = said([*RUN, *lacking], tmp_path, packages, PATH="/nowhere")
    assert code == 1
    assert error.startswith("error: This installation lacks 4 things: PySpark is not installed: install it with")
    for part in (
        "Spark needs Java",
        "spark.jars: no_jars contains no jar",
        "model.path: there is nothing at models/none: copy",
    ):
        assert part in error


def test_on_a_connect_client_nothing_of_a_local_spark_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = settings.load(None, ["source.path=x", "output.schema=y", "spark.jars=no_jars"], {})
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SessionError, match="This installation lacks 2 things"):
        installation.check_installation(loaded)
    monkeypatch.setenv("SPARK_REMOTE", "sc://server")
    installation.check_installation(loaded)


def test_without_what_prepares_models(tmp_path: Path, packages: Path) -> None:
    source = JOBS.parent / "tests" / "golden" / "tiny_models" / "distilbert"
    code, error = said(["prepare", str(source), "made"], tmp_path, packages)
    assert code == 2
    assert f"packages for preparing models: `make -C {JOBS.parent} prepare`" in error


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as if this package had been installed from a wheel that no longer exists."""
    monkeypatch.setattr(installation, "_REPOSITORY", None)
    monkeypatch.setattr(installation, "_find_wheel_file", lambda: None)


@pytest.mark.usefixtures("wheel")
@pytest.mark.parametrize("extra", ["", *installation.MAKE_TARGETS])
def test_no_command_lets_an_index_choose_this_package(tmp_path: Path, extra: str) -> None:
    """No install command may let pip look this package up in an index, because anybody could register its name there."""
    command = shlex.split(installation.install_command(extra))
    assert command[:2] == ["pip", "install"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--dry-run", "--no-index", "--disable-pip-version-check", "--no-deps"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if extra == "prepare":
        assert not any("entitymill" in name for name in command)
    else:
        assert "No such file or directory: '/path/to/entitymill-" in done.stderr


def test_the_wheel_that_was_installed_is_named_where_it_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "my wheels" / "entitymill-1-py3-none-any.whl"
    information = tmp_path / "entitymill-1.dist-info"
    for directory in (wheel.parent, information):
        directory.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: entitymill\nVersion: 1\n")
    (information / "direct_url.json").write_text(json.dumps({"url": wheel.as_uri(), "archive_info": {}}))
    monkeypatch.setattr(installation, "_REPOSITORY", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "/path/to/" in installation.install_command("report")
    wheel.touch()
    assert installation.install_command("report") == f"pip install '{wheel}[report]'"


def test_every_target_that_is_named_is_one_of_the_makefile(monkeypatch: pytest.MonkeyPatch) -> None:
    makefile = (JOBS.parent / "Makefile").read_text(encoding="utf8")
    monkeypatch.chdir(JOBS.parent)
    for extra in ("", *installation.MAKE_TARGETS):
        make, target = installation.install_command(extra).split()
        assert (make, f"\n{target}:" in makefile) == ("make", True)


PLACES = (
    "jobs",
    "docs",
    "airflow_dags",
    "examples",
    "conf",
    "package",
    "resources",
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
)
_NAMED = re.compile(r"(?<![\w./-])entitymill\[|pip install (?:\S+ )*'?entitymill(?![\w./-])")


def test_nothing_names_this_package_as_one_of_an_index() -> None:
    files = [file for place in PLACES for file in [JOBS.parent / place, *(JOBS.parent / place).rglob("*")]]
    texts = {file: file.read_text(encoding="utf8") for file in files if file.suffix in _WRITTEN and file.is_file()}
    assert [str(file.relative_to(JOBS.parent)) for file, text in texts.items() if _NAMED.search(text)] == []


_WRITTEN = {".py", ".md", ".yaml", ".yml", ".ipynb", ".sh", ".html", ""}


def test_what_nobody_expected_is_told_without_spark(tmp_path: Path, packages: Path) -> None:
    code = "from entitymill.run import exit_codes; message, _ = exit_codes.describe_error(RuntimeError('a full disk'))"
    code += "; raise SystemExit(message)"
    assert said([], tmp_path, packages, code) == (1, "RuntimeError; the log has the details.")


def test_what_needs_no_spark_does_without(tmp_path: Path, packages: Path) -> None:
    assert said(["--version"], tmp_path, packages) == (0, "")
    assert said(["--help"], tmp_path, packages) == (0, "")
    models = tmp_path / "models"
    models.symlink_to(JOBS.parent / "models")
    assert said(["tag", "--model", "models/demo", "Angela Merkel flew to Paris."], tmp_path, packages) == (0, "")


def test_without_java(tmp_path: Path) -> None:
    code, error = said(RUN, tmp_path, None, PATH=str(tmp_path))
    assert (code, "error: Spark needs Java, which is not on the PATH: install a JDK 17" in error) == (1, True)
    code, error = said(RUN, tmp_path, None, JAVA_HOME="/nowhere")
    assert (code, "error: JAVA_HOME is /nowhere, but that directory contains no Java: set JAVA_HOME to a" in error) == (
        1,
        True,
    )


def test_without_jars(tmp_path: Path) -> None:
    code, error = said([*RUN, "--set", "spark.jars=no/jars"], tmp_path, None)
    assert code == 1
    assert "error: spark.jars: no/jars contains no jar: run `entitymill fetch-jars --to no/jars` (in the" in error


def test_without_a_model(tmp_path: Path) -> None:
    code, error = said(["tag", "--model", "models/demo", "Angela Merkel flew to Paris."], tmp_path, None)
    assert code == 5
    assert (
        "there is nothing at models/demo; copy the directory models of the Entity Mill repository, or of its build/package"
        in error
    )


OLD, NEW = "file:/jars/delta-spark_2.12-3.3.3.jar!/io/delta", "file:/jars/delta-spark_2.13-4.0.1.jar!/io/delta"
NEWEST = "file:/jars/delta-spark_4.1_2.13-4.3.1.jar!/io/delta"


@pytest.mark.parametrize(
    ("version", "runs"), [("3.5.9", True), ("4.0.5", True), ("4.1.4", True), ("3.4.4", False), ("4.2.0", False)]
)
def test_only_releases_that_were_run_are_taken(version: str, runs: bool) -> None:
    if runs:
        installation.check_spark(version)
    else:
        with pytest.raises(
            SessionError, match=f"Spark {version} is not supported: this program runs on Spark 3.5, 4.0 and 4.1"
        ):
            installation.check_spark(version)


def test_each_spark_takes_its_own_delta() -> None:
    installation.check_delta(OLD, "3.5.9", "2.12.18")
    installation.check_delta(NEW, "4.0.5", "2.13.16")
    installation.check_delta(NEWEST, "4.1.4", "2.13.17")
    installation.check_delta("file:/jars/delta-spark_2.13-4.3.1.jar!/io/delta", "4.1.4", "2.13.17")
    installation.check_delta("file:/platform/its-own-name.jar!/io/delta", "3.5.2", "2.12.15")


@pytest.mark.parametrize(
    ("jar", "spark", "scala", "said"),
    [
        (
            None,
            "3.5.9",
            "2.12.18",
            r"not on Spark.s class path: add io.delta:delta-spark_2.12:3.3.3 .*`make jars`, then set",
        ),
        (
            None,
            "4.0.5",
            "2.13.16",
            "add io.delta:delta-spark_2.13:4.0.1 .*`make jars-spark4`, then set spark.jars=build/jars-spark4",
        ),
        (OLD, "4.0.5", "2.13.16", r"^delta-spark_2.12-3.3.3.jar does not fit Spark 4.0.5 for Scala 2.13: use .*:4.0.1"),
        (OLD.replace("3.3.3", "3.2.1"), "3.5.9", "2.12.18", r"^delta-spark_2.12-3.2.1.jar does not fit Spark 3.5.9"),
        (NEW, "3.5.9", "2.12.18", r"^delta-spark_2.13-4.0.1.jar does not fit Spark 3.5.9 for Scala 2.12: use .*:3.3.3"),
        (
            NEW,
            "4.1.4",
            "2.13.17",
            r"^delta-spark_2.13-4.0.1.jar does not fit Spark 4.1.4 for Scala 2.13: use .*_4.1_2.13:4.3.1",
        ),
        (
            NEWEST,
            "4.0.5",
            "2.13.16",
            r"^delta-spark_4.1_2.13-4.3.1.jar does not fit Spark 4.0.5 for Scala 2.13: use .*:4.0.1",
        ),
        (NEW, "3.5.9", "2.13.8", "does not fit Spark 3.5.9 for Scala 2.13: use io.delta:delta-spark_2.13:3.3.3"),
    ],
)
def test_another_delta_is_refused_with_the_one_to_use(jar: str | None, spark: str, scala: str, said: str) -> None:
    with pytest.raises(SessionError, match=said):
        installation.check_delta(jar, spark, scala)


@pytest.mark.parametrize(
    ("classes", "package", "missing"),
    [(False, True, "jars"), (True, False, "Python package"), (False, False, "jars and Python package")],
)
def test_what_of_spark_nlp_is_missing_is_named_with_the_way_to_it(classes: bool, package: bool, missing: str) -> None:
    with pytest.raises(SessionError, match=f"whose {missing} cannot be found") as raised:
        installation.check_sparknlp("2.12.18", classes=classes, package=package)
    for way in ("make jars-sparknlp", "com.johnsnowlabs.nlp:spark-nlp_2.12:5.5.3", "extras`."):
        assert way in str(raised.value)


def test_spark_nlp_runs_on_one_scala() -> None:
    installation.check_sparknlp("2.12.18", classes=True, package=True)
    with pytest.raises(
        SessionError,
        match=r"needs Spark 3.5 for Scala 2.12, but this Spark is for Scala 2.13: set `recognition.engine: openvino`",
    ):
        installation.check_sparknlp("2.13.16", classes=True, package=True)
