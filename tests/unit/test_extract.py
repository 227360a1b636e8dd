import io
import json
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from rich.console import Console

from entitymill import errors
from entitymill.commands import erase, list_runs
from entitymill.commands.common import run_and_report
from entitymill.commands.extract import _is_small_local_source, main, parser
from entitymill.errors import SourceError
from entitymill.run import exit_codes
from entitymill.run.dry_runs import Plan
from entitymill.run.exit_codes import Stopped
from entitymill.run.summary import Summary
from entitymill.run_row import RunRow
from entitymill.settings.sections import SparkSettings
from entitymill.spark import session
from entitymill.terminal.progress import Progress, describe_progress

ROOT = Path(__file__).parents[2]


def test_a_bad_setting_is_one_sentence_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--config", str(ROOT / "conf" / "demo.yaml"), "--set", "source.zzz=red"])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith("error: source.zzz is not a setting; the keys of source are format, path, id_column, ")
    assert said.err.count("\n") == 1


def test_print_config_masks_and_starts_no_spark() -> None:
    overrides = ["--set", "spark.conf.spark.hadoop.fs.s3a.secret.key=hunter2"]
    command = [sys.executable, "jobs/extract_entities.py", "--config", "conf/demo.yaml", "--print-config", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert "path: data/state_union.parquet" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert done.stderr == ""


WHAT_HAPPENED = "what happened"  # a constant, so that no traceback shows this text as source code
LOST_TASK = "Lost task 0.0 in stage 1.0 (TID 1) (host executor driver):"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            f"PythonException: ...\n  File x\nentitymill.errors.ModelError: [{errors.SIGNATURE}] it was altered\n",
            errors.ModelError,
            "it was altered",
        ),
        (
            "The value 'secret document text\nentitymill.errors.ModelError: [0] not ours' cannot be cast",
            errors.EntityMillError,
            "RuntimeError; the log has the details.",
        ),
        (
            (
                f"{LOST_TASK} org.apache.spark.SparkException: [FAILED_READ_FILE.X] Encountered error while reading file "
                "file:///x/part-0.parquet. Details"
            ),
            errors.SourceError,
            "x/part-0.parquet is",
        ),
        (
            (
                f"{LOST_TASK} org.apache.spark.SparkRuntimeException: [X] secret document text Encountered error while "
                "reading file secret. Details"
            ),
            errors.EntityMillError,
            "RuntimeError; the log has the details.",
        ),
        (
            "Job aborted.\nEncountered error while reading file file:///x/part-0.parquet. Details:",
            errors.SourceError,
            "x/part-0.parquet is",
        ),
        (
            (
                f"{LOST_TASK} org.apache.spark.SparkNumberFormatException: [CAST_INVALID_INPUT] The value 'x\nCaused by: "
                "java.net.ConnectException: secret document text\n\tat org.apache.hadoop.fs.x' of the type"
            ),
            errors.EntityMillError,
            "RuntimeError; the log has the details.",
        ),
        ("anything: secret document text", errors.EntityMillError, "RuntimeError; the log has the details."),
    ],
    # Each process has another signature, so no test's name may contain it.
    ids=["of a worker", "quoted", "of a task", "quoted in a task", "of Spark", "of a storage, quoted", "anything"],
)
def test_what_workers_and_spark_raise_gets_its_exit_code(
    text: str, kind: type[errors.EntityMillError], message: str
) -> None:
    known = exit_codes.convert_error(RuntimeError(text))
    assert type(known) is kind
    assert message in str(known)
    assert "secret document text" not in str(known)


def test_the_log_may_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def work(start_log: Callable[[str | None], str]) -> None:
        start_log("stderr")
        raise RuntimeError(WHAT_HAPPENED)

    log = logging.getLogger("entitymill")
    before = log.handlers[:], log.level, log.propagate
    code = run_and_report(work, "interrupted")
    assert (log.handlers, log.level, log.propagate) == before
    said = capsys.readouterr().err
    assert code == 1
    assert "builtins.RuntimeError" in said
    assert "what happened" not in said
    assert "stack trace: stderr" in said


@pytest.mark.parametrize(
    "error", [None, RuntimeError("what happened"), Stopped(143, "SIGTERM")], ids=["", "failed", "stopped"]
)
def test_a_temporary_log_is_kept_where_something_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException | None
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def work(start_log: Callable[[str | None], str]) -> None:
        logging.getLogger("entitymill").info("at work in %s", start_log(None))
        if error is not None:
            raise error

    code = run_and_report(work, "")

    said = capsys.readouterr().err
    if error is None:
        assert (code, said, list(tmp_path.iterdir())) == (0, "", [])
        return
    [log] = tmp_path.glob("*/*")
    kept = log.read_text()
    assert f"at work in {log}" in kept
    failed = isinstance(error, RuntimeError)
    assert "what happened" not in kept
    assert ("builtins.RuntimeError" in kept, f"stack trace: {log}" in said) == (failed, failed)


def test_a_temporary_log_that_no_message_names_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def work(start_log: Callable[[str | None], str]) -> None:
        start_log(None)
        raise Stopped(143, "SIGTERM")

    assert run_and_report(work, "interrupted.") == 143
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_named_by_its_complete_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is recorded in `runs`, and `entitymill runs` may be started in another directory."""
    monkeypatch.chdir(tmp_path)
    named = []
    assert run_and_report(lambda start_log: named.append(start_log("logs/night.log")), "") == 0
    assert named == [f"{tmp_path}/logs/night.log"]


def test_a_named_log_is_kept_whatever_its_directory_is_called(tmp_path: Path) -> None:
    named = tmp_path / "entitymill-log-nightly" / "run.log"

    def work(start_log: Callable[[str | None], str]) -> None:
        start_log(str(named))

    assert run_and_report(work, "") == 0
    assert named.exists()


def test_a_later_command_keeps_the_temporary_log_of_a_killed_one(tmp_path: Path) -> None:
    """A later command must delete the temporary files of a killed run, except its log, which `entitymill runs` names."""
    program = (
        "import os, signal, sys; from entitymill.commands import common\n"
        "from entitymill.spark.files_on_this_machine import create_scratch_directory\n"
        "def work(start_log):\n"
        "    print(start_log(None), create_scratch_directory('texts-'), flush=True)\n"
        "    if sys.argv[1:]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(common.run_and_report(work, ''))\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "jobs"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    killed = subprocess.run([*command, "killed"], env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    log, scratch = map(Path, killed.stdout.split())
    assert scratch.is_dir()
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert list(tmp_path.iterdir()) == [log.parent]
    assert log.is_file()


@pytest.mark.parametrize(
    "options", [["--help"], ["report", "--help"], ["extract", "--config", "conf/demo.yaml", "--print-config"]]
)
def test_nothing_is_loaded_that_is_not_used(options: list[str]) -> None:
    seen = "import sys; from entitymill import cli\ntry: cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
    seen += (
        "print({name.partition('.')[0] for name in sys.modules} & {'pyspark', 'jinja2', 'matplotlib', 'prometheus_client'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", seen, *options], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("\nset()\n")


def test_a_run_loads_no_library_of_pages_and_metrics() -> None:
    seen = "import sys; from entitymill.commands import extract; "
    seen += "from entitymill.run import extraction; from entitymill_reports import reports_of_a_run; "
    seen += "print({name.partition('.')[0] for name in sys.modules} & {'jinja2', 'matplotlib', 'prometheus_client'})"
    done = subprocess.run([sys.executable, "-c", seen], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def test_java_compiles_quickly_where_the_source_is_small_and_here(tmp_path: Path) -> None:
    (tmp_path / "texts" / "day=1").mkdir(parents=True)
    for name in ("part-0.parquet", "day=1/part-1.parquet"):
        (tmp_path / "texts" / name).write_bytes(bytes(50))
    here = sum(path.stat().st_size for path in (tmp_path / "texts", *(tmp_path / "texts").rglob("*")))
    assert [_is_small_local_source(str(tmp_path / "texts"), size) for size in (here, here - 1)] == [True, False]
    assert not any(_is_small_local_source(path, 10**9) for path in ("s3a://lake/texts", "main.raw.articles", "long" * 2000))
    options = [
        session._build_session_properties(SparkSettings(master=master), [str(tmp_path / "a.jar")], brief=brief)
        for master, brief in (("local[2]", True), ("local[2]", False), ("yarn", True))
    ]
    assert [session.QUICK_START in one["spark.driver.extraJavaOptions"] for one in options] == [True, False, False]


def test_exit_codes_are_the_documented_ones() -> None:
    kinds = (errors.SettingsError, errors.SourceError, errors.RejectedError, errors.ModelError, errors.OutputError)
    assert [kind.exit_code for kind in kinds] == [2, 3, 4, 5, 1]
    assert errors.DriftError.exit_code == 6
    assert "6 done, but the run differs too much from earlier runs" in " ".join(parser().format_help().split())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "done", 0),
        (SourceError("source.path: there is nothing at x."), "failed", 3),
        (Stopped(143, "SIGTERM"), "stopped", 143),
        (errors.DriftError("far from the runs before"), "done", 6),
    ],
)
def test_how_a_run_ended_is_written_for_programs(
    tmp_path: Path, error: BaseException | None, status: str, code: int
) -> None:
    exit_codes.write_result(str(tmp_path / "result.json"), None, error, "a.log")
    told = json.loads((tmp_path / "result.json").read_text())
    assert (told["status"], told["exit_code"], told["log"]) == (status, code, "a.log")
    assert (told["error"] is None) == (error is None)


def test_a_result_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "no" / "result.json"
    assert main(["--config", str(tmp_path / "no.yaml"), "--result-json", str(nowhere)]) == 2
    assert f"error: --result-json {nowhere} cannot be written: No such file or directory." in capsys.readouterr().err


def test_progress_says_in_a_line_what_it_knows() -> None:
    summary = Summary("ab12", datetime(2026, 11, 26, tzinfo=timezone.utc))
    shown = Progress("lines")
    assert describe_progress(shown.measure(summary)) == "run ab12: preparation"
    summary.start_waiting("run x (host y, its lease lasts until 2026-11-26 03:00:00)")
    assert (
        describe_progress(shown.measure(summary))
        == "run ab12: waiting for run x (host y, its lease lasts until 2026-11-26 03:00:00)"
    )
    summary.stage, summary.planned, summary.units, summary.units_done = "writing", 4000, 4, 1
    summary.documents, summary.sentences, summary.rejects = 2000, 60_000, {"null_id": 3}
    known = shown.measure(summary)
    known["sentences_per_second"], known["seconds_left"] = 2000.0, 400
    assert describe_progress(known) == (
        "run ab12: writing, unit 2 of 4, 2,000 of 4,000 documents, 60,000 sentences, 2,000 a second, about 7 min left, "
        "3 rows rejected"
    )


def test_the_bar_shows_the_name_of_a_host_as_it_is() -> None:
    summary = Summary("ab12", datetime(2026, 11, 26, tzinfo=timezone.utc))
    summary.start_waiting("run x (host [red]y[/z])")
    screen = io.StringIO()
    shown = Progress("bar", 0.01)
    shown._console = Console(file=screen, width=120, force_terminal=True)
    shown.watch(summary)
    latest = time.monotonic() + 60
    while "waiting" not in screen.getvalue() and time.monotonic() < latest:
        time.sleep(0.01)
    shown.close()
    assert "waiting for run x (host [red]y[/z])" in screen.getvalue()


def test_a_log_that_cannot_be_written_is_a_bad_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    options = ["--config", str(ROOT / "conf" / "demo.yaml"), "--set", f"log={tmp_path}/file/run.log"]
    assert main(options) == 2
    assert f"log: {tmp_path}/file/run.log cannot be written: " in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf", "x"])
def test_numbers_of_options_are_above_zero(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, option in ((main, "--progress-seconds"), (list_runs.main, "--last")):
        with pytest.raises(SystemExit) as refused:
            command([option, number])
        assert refused.value.code == 2
        assert option in capsys.readouterr().err


def test_a_plan_is_written_by_its_parts(tmp_path: Path) -> None:
    plan = Plan(1, 2, 3, 4, {}, 1, None, None)
    summary = Summary("r1", datetime(2026, 11, 20, tzinfo=timezone.utc), plan=plan)
    exit_codes.write_result(str(tmp_path / "result.json"), summary, None, None)
    assert json.loads((tmp_path / "result.json").read_text())["plan"]["new"] == 1


@pytest.mark.parametrize(("minutes", "silent"), [(-5, True), (5, False)])
def test_a_running_run_whose_lease_has_ended_shows_no_sign_of_life(minutes: int, silent: bool) -> None:
    run = RunRow("r", status="running", units=3, log="/var/log/r.log", process='{"host": "node7", "pid": 1}')
    said = list_runs._describe_run(replace(run, until=datetime.now(timezone.utc) + timedelta(minutes=minutes)))
    assert ("no heartbeat" in said) == silent
    assert "0 of 3 units" in said
    assert ("Log: /var/log/r.log, on node7." in said) == silent


def test_a_dead_run_shows_what_it_published_its_log_and_its_host() -> None:
    run = RunRow("r", status="died", stage="writing", units=3, units_done=2, documents=1234, planned=2000)
    found = list_runs._describe_run(replace(run, log="/var/log/r.log", process='{"host": "node7", "pid": 1}'))
    assert found == (
        "r: it ended without recording an error, in the stage writing, after 2 of 3 units, 1,234 of 2,000 documents; the "
        "next run continues. Log: /var/log/r.log, on node7."
    )
    assert list_runs._describe_run(run).endswith("Log: not recorded, on an unknown host.")


def test_the_error_of_a_run_that_could_not_record_it_is_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "r.log"
    log.write_text("2026 INFO x run other failed: not this one\n2026 INFO x run r failed: the disk is full.\nTraceback\n")
    run = RunRow("r", status="running", log=str(log), process=json.dumps({"host": socket.gethostname(), "pid": 1}))
    found = list_runs._add_error_from_log(run)
    assert list_runs._describe_run(found).startswith(
        "r: the disk is full. This error is only in the log of the run, not in the table `runs`; "
    )
    died = list_runs._add_error_from_log(replace(run, status="died"))
    assert list_runs._describe_run(died) == f"r: the disk is full. Log: {log}"
    others = (replace(run, run_id="r2"), replace(run, status="done"), replace(run, process='{"host": "node7"}'))
    for other in (*others, replace(run, log=f"{tmp_path}/deleted"), replace(run, log=None), replace(run, log="-")):
        assert list_runs._add_error_from_log(other) == other


@pytest.mark.parametrize("width", [80, 60])
def test_ids_of_runs_are_complete_in_a_narrow_terminal_and_in_a_pipe(width: int) -> None:
    ids = [f"20261130T2151{number:02}-0a1b2c3d4e5f" for number in range(3)]
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    times = {"started_at": start, "ended_at": start + timedelta(days=2)}
    about = {"status": "stopped", "mode": "maintenance", "documents": 10**9, "rejects": 10**6}
    runs = [RunRow.from_values({"run_id": one, **times, **about}) for one in ids]
    file = io.StringIO()
    Console(file=file, width=width).print(list_runs.build_table(runs))
    assert [one for one in ids if one not in file.getvalue()] == []


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "of Windows"])
def test_ids_of_a_file_end_at_line_feeds_alone(tmp_path: Path, mark: str) -> None:
    (tmp_path / "ids").write_text(f"{mark}a\u2028b\r\nc\n", encoding="utf8")
    options = erase.parser().parse_args(["--ids-file", str(tmp_path / "ids")])
    assert erase._read_ids(options) == ["a\u2028b", "c"]
