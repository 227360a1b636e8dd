"""Test that the archive of Java classes is made once and then used, and silently ignored if it does not fit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from entitymill.spark import jvm_launch

from .conftest import ROOT

START = """
import sys
from entitymill.settings.sections import SparkSettings
from entitymill.spark.session import open_session
jars, mode, log = sys.argv[1:]
conf = {"spark.driver.defaultJavaOptions": f"-Xlog:class+load:file={log}", "spark.driver.memory": "1g"}
spark = open_session(SparkSettings(master="local[1]", jars=jars, class_archive=mode, conf=conf), "test", brief=lambda: True)
print(spark.range(7).count())
"""
FROM_ARCHIVE = re.compile(r"source: shared objects file \(top\)")
MANY = 2000


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    directory = tmp_path / "jars"
    shutil.copytree(ROOT / "build" / "jars", directory, ignore=shutil.ignore_patterns("*.jsa"))
    return directory


def start(jars: Path, mode: str, java_options: str = "") -> int:
    """Start a session in a new process; return how many classes Java loaded from the archive.

    `java_options` is the value of the environment variable JAVA_TOOL_OPTIONS.
    """
    log = jars.parent / "classes.log"
    command = [sys.executable, "-c", START, str(jars), mode, str(log)]
    variables = {**os.environ, **({"JAVA_TOOL_OPTIONS": java_options} if java_options else {})}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=variables)
    assert (ended.returncode, ended.stdout[-2:]) == (0, "7\n"), ended.stderr
    assert "cds" not in ended.stderr
    assert "shared" not in ended.stderr
    return len(FROM_ARCHIVE.findall(log.read_text(encoding="utf8")))


@pytest.mark.deep
def test_an_archive_is_made_once_and_used_and_does_no_harm_where_it_does_not_fit(jars: Path) -> None:
    assert start(jars, "use") == 0
    assert not list(jars.glob("*.jsa"))
    assert start(jars, "make") == 0
    [archive] = jars.glob("*.jsa")
    assert start(jars, "use") > MANY
    # With the archive, the flight recorder would crash Java.
    assert start(jars, "use", f"-XX:StartFlightRecording=filename={jars.parent}/recording.jfr") == 0
    # Truncate the archive. Java would crash if it loaded this file.
    size = archive.stat().st_size
    archive.chmod(0o600)
    with archive.open("r+b") as file:
        file.truncate(size // 3)
    assert start(jars, "use") == 0
    assert [file.name for file in jars.iterdir() if file.suffix not in (".jar", "")] == [archive.name]


@pytest.mark.parametrize(
    ("key", "value", "loads"),
    [
        ("spark.driver.defaultJavaOptions", "-Xss4m -javaagent:/opt/monitor.jar=port=1", True),
        ("spark.driver.extraJavaOptions", "-agentpath:/opt/libprofiler.so", True),
        ("spark.executor.extraJavaOptions", "-javaagent:/opt/monitor.jar", False),
        ("spark.driver.defaultJavaOptions", "-Dpath=/opt/-javaagent", False),
    ],
)
def test_java_agents_are_recognized(key: str, value: str, *, loads: bool) -> None:
    assert jvm_launch.loads_agent({key: value}) is loads


@pytest.mark.parametrize("variable", ["JAVA_TOOL_OPTIONS", "SPARK_SUBMIT_OPTS", "PYSPARK_SUBMIT_ARGS"])
def test_java_agents_of_the_environment_are_recognized(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "--driver-java-options=-javaagent:/opt/monitor.jar pyspark-shell")
    assert jvm_launch.loads_agent({})


def test_an_archive_of_other_jars_is_replaced(tmp_path: Path) -> None:
    jar = tmp_path / "one.jar"
    jar.write_bytes(b"1")
    before = jvm_launch._hash_class_path([str(jar)])
    archive = tmp_path / f"{jvm_launch._ARCHIVE_NAME}{before}-3.jsa"
    archive.write_bytes(b"123")
    assert jvm_launch.choose_class_archive_options([str(jar)], make=False)[0] == f"-XX:SharedArchiveFile={archive}"
    jar.write_bytes(b"22")
    assert jvm_launch._hash_class_path([str(jar)]) != before
    assert jvm_launch.choose_class_archive_options([str(jar)], make=False) == []
