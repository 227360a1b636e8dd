"""Test that commands say what they are waiting for, and report a wrong path before Spark starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from entitymill.commands import common, erase, evaluate, extract, init, list_runs, maintain, redact, sample
from entitymill.errors import SessionError
from entitymill.settings.sections import OutputSettings
from entitymill.spark import storage
from entitymill.tables import runs_without_spark
from entitymill.terminal import progress
from entitymill_reports import report_command

TOO_LONG = "{0}/" + 256 * "n"
"""No file system has such a name; to look it up raises an error, as a directory does that may not be searched."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_NOTE_SECONDS", 0.2)
    monkeypatch.setattr(progress, "NOTE_SECONDS", 0.2)


def test_a_long_step_is_mentioned_again_and_again_and_a_short_one_never(capsys: pytest.CaptureFixture[str]) -> None:
    progress.begin_step("starting Spark")
    time.sleep(0.1)
    progress.begin_step("reading the tables")
    time.sleep(0.7)
    progress.end_step()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[:2] == ["reading the tables …", "reading the tables, 0 s so far …"]
    time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_a_step_ends_with_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_: object) -> None:
        progress.begin_step("starting Spark")
        raise OSError("gone")

    assert common.run_and_report(fails, "interrupted.") == 1
    assert not progress._steps
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "options", "said", "code"),
    [
        (extract, ["--set", "output.path={0}/out"], "source.path: there is nothing at {0}/texts; check the path.", 3),
        (
            extract,
            ["--set", "source.path={0}/files", "--set", "source.format=parquet", "--set", "output.path={0}/out"],
            "source.text_column: {0}/files has no column text; it has body, id",
            3,
        ),
        (
            extract,
            ["--set", "source.path={0}/delta", "--set", "source.passthrough=[day]", "--set", "output.path={0}/out"],
            "source.passthrough: {0}/delta has no column day; it has id, text",
            3,
        ),
        (report_command, ["--set", "output.path={0}/out", "--to", "{0}/page.html"], "no entity tables at {0}/out", 1),
        (report_command, ["--set", "output.path={0}/files", "--to", "{0}/page.html"], "no run has written {0}/files yet", 1),
        (list_runs, ["--set", "output.path={0}/out"], "no entity tables at {0}/out", 1),
        (init, ["{0}/texts"], "there is nothing at {0}/texts", 3),
        (maintain, ["--set", "output.path={0}/out", "optimize"], "no entity tables at {0}/out", 1),
        (erase, ["--set", "output.path={0}/out", "--ids", "a", "--yes"], "no entity tables at {0}/out", 1),
        (redact, ["--set", "output.path={0}/out", "--to", "{0}/redacted"], "no entity tables at {0}/out", 1),
        (sample, ["--set", "output.path={0}/out", "--to", "{0}/sample.csv"], "no entity tables at {0}/out", 1),
        (evaluate, ["--entities", "{0}/e", "--gold", "{0}/g"], "--entities: there is nothing at {0}/e; check the path.", 3),
        (
            extract,
            ["--set", f"source.path={TOO_LONG}", "--set", "output.path={0}/out"],
            f"source.path: {TOO_LONG} cannot be looked up (File name too long); check the path.",
            3,
        ),
        (init, ["{0}/files", "--text", "text"], "--text: {0}/files has no column text; it has body, id", 3),
        (init, ["{0}/delta", "--id", "key"], "--id: {0}/delta has no column key; it has id, text", 3),
        (evaluate, ["--entities", "{0}/files", "--gold", "{0}/delta"], "--entities: {0}/files has no column doc_id", 3),
        (init, [TOO_LONG], f"source.path: {TOO_LONG} cannot be looked up (File name too long); check the path.", 3),
        (
            evaluate,
            ["--entities", TOO_LONG, "--gold", "{0}/g"],
            f"--entities: {TOO_LONG} cannot be looked up (File name too long); check the path.",
            3,
        ),
        (
            report_command,
            ["--set", f"output.path={TOO_LONG}", "--to", "{0}/page.html"],
            f"output: {TOO_LONG} cannot be looked up (File name too long); check output.path or output.schema.",
            1,
        ),
    ],
)
def test_a_wrong_path_is_found_before_spark_starts(
    command: object, options: list[str], said: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def starts(*_: object, **__: object) -> None:
        raise AssertionError("Spark starts")

    for function in ("find_session", "_start_session"):  # a test before this one may have left a session
        monkeypatch.setattr(f"entitymill.spark.session.{function}", starts)
    (tmp_path / "files").mkdir()
    pq.write_table(pa.table({"id": ["a"], "body": ["b"]}), tmp_path / "files" / "part-0.parquet")
    write_deltalake(tmp_path / "delta", pa.table({"id": ["a"], "text": ["b"]}))
    for hidden in ("_old.parquet", ".old.parquet"):  # Spark ignores them
        pq.write_table(pa.table({"other": ["a"]}), tmp_path / "files" / hidden)
    given = [option.format(tmp_path) for option in options]
    source = [] if command in (evaluate, init) else ["--set", f"source.path={tmp_path}/texts"]
    assert command.main([*source, *given]) == code  # type: ignore[attr-defined]
    assert said.format(tmp_path) in capsys.readouterr().err.replace("\n", " ")


CATALOG = ["--set", "output.path=null", "--set", "output.schema=spark_catalog.none"]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (erase, ["--ids", "a", "--yes"]),
        (evaluate, ["--entities", "{0}", "--gold", "{0}"]),
        (init, ["{0}"]),
        (init, ["{0}/delta", "--id", "key", "--text", "body"]),
        (list_runs, CATALOG),
        (maintain, ["optimize"]),
        (redact, ["--to", "{0}/redacted"]),
        (report_command, [*CATALOG, "--to", "{0}/page.html"]),
        (sample, ["--to", "{0}/sample.csv"]),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if hasattr(value, "__name__") else str(len(value)),
)
def test_every_command_says_that_it_starts_spark(
    command: object, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def starts(*_: object, **__: object) -> None:
        time.sleep(0.5)
        raise SessionError("it is not needed here")

    monkeypatch.setattr("entitymill.spark.session.find_session", lambda: None)  # a test before this one may have left one
    monkeypatch.setattr("entitymill.spark.session._start_session", starts)
    write_deltalake(tmp_path / "delta", pa.table({"key": ["a"], "body": ["b"]}))
    paths = ["--set", f"source.path={tmp_path}", "--set", f"output.path={tmp_path}"]
    settings = [] if command in (evaluate, init) else paths
    assert command.main([*settings, *(option.format(tmp_path) for option in options)]) == 1  # type: ignore[attr-defined]
    assert "starting Spark …" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--json"], []], ids=["JSON", "marked"])
def test_a_reader_of_stdout_that_ends_first_is_no_error(tmp_path: Path, options: list[str]) -> None:
    """As in `entitymill tag … | head -1`."""
    code = "import sys; from entitymill.cli import main; sys.exit(main())"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code, "tag", *options, "Angela Merkel flew to Paris."]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment = {**inherited, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, env=environment, timeout=120)
    os.close(writing)
    assert (ended.returncode, ended.stderr.decode()) == (141, "")
    assert list(tmp_path.glob("entitymill-log-*")) == []


def test_a_path_that_may_be_elsewhere_is_left_to_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert common.describe_missing_path(f"{tmp_path}/no", {}) == f"there is nothing at {tmp_path}/no"
    assert common.describe_missing_path(str(tmp_path), {}) is None
    for path in ("s3a://lake/no", "table:main.texts", "dbfs:/no"):
        assert common.describe_missing_path(path, {}) is None
    for path in ("/no", TOO_LONG):
        assert common.describe_missing_path(path, {"spark.hadoop.fs.defaultFS": "hdfs://name:8020"}) is None
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    for path in ("/no", TOO_LONG):
        assert common.describe_missing_path(path, {}) is None


def test_a_path_that_cannot_be_looked_up_is_left_to_spark(tmp_path: Path) -> None:
    path = TOO_LONG.format(tmp_path)
    assert storage.prefer_local_file(path) == path
    for chosen in (path, f"file:{path}"):
        assert runs_without_spark.find_directory(OutputSettings(path=chosen), {}) is None
