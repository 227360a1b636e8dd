"""A run that is stopped by a signal: what is seen of it while it runs, how it ends, and what the next one finds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from delta_reader import read_delta

from .conftest import MODELS, ROOT

TEXTS = pq.read_table(ROOT / "data" / "state_union.parquet").slice(0, 60)
PATIENCE = 240


class Command:
    """The job's own command line, in a process group of its own as a terminal has it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.output = directory, directory / "out"
        (directory / "tmp").mkdir()
        pq.write_table(TEXTS, directory / "texts.parquet")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
        self.environment = {**clean, "TMPDIR": str(directory / "tmp")}

    def words(self, *more: str) -> list[str]:
        options = ["source.format=parquet", f"source.path={self.directory}/texts.parquet", f"output.path={self.output}"]
        options += [*MODELS, "limits.unit_rows=12", f"spark.jars={ROOT}/build/jars", "spark.master=local[2]"]
        return [*(word for option in options for word in ("--set", option)), *more]

    def start(self, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "jobs" / "extract_entities.py"), *self.words(*more)]
        with (self.directory / "said").open("w") as said:
            return subprocess.Popen(
                command, env=self.environment, stdout=said, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )

    def said(self) -> str:
        return (self.directory / "said").read_text()

    def facts(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.said().splitlines() if line.startswith('{"at"')]


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_stopped_run_gives_the_lease_back_and_says_so(tmp_path: Path, number: int, code: int, name: str) -> None:
    command = Command(tmp_path)
    result = tmp_path / "result.json"
    running = command.start("--progress", "json", "--progress-seconds", "0.5", "--result-json", str(result))
    deadline = time.monotonic() + PATIENCE
    while not any(known["stage"] == "recognition" and known["unit"] == 2 for known in command.facts()):
        assert running.poll() is None and time.monotonic() < deadline, command.said()
        time.sleep(0.2)
    # A terminal tells all processes of the group, Kubernetes, YARN and Airflow the first one.
    (os.killpg if number == signal.SIGINT else os.kill)(running.pid, number)

    assert running.wait(60) == code
    said = command.said()
    sentence = f"stopped by {name}; the units that were finished stay, run again to go on."
    assert said.rstrip().endswith(f"error: {sentence}")
    assert "Traceback" not in said
    assert said.startswith("entitymill ")
    known = command.facts()
    assert known[-1]["units"] >= 4 and known[-1]["planned"] == len(TEXTS)  # type: ignore[operator]
    assert max(int(str(one["documents"])) for one in known) >= 12
    [row] = read_delta(command.output / "runs").to_pylist()
    told = json.loads(result.read_text())
    for found in (row, told):
        assert (found["status"], found["error"], found["exit_code"]) == ("stopped", sentence, code)
        assert found["application_id"].startswith("local-")
        assert Path(found["log"]).read_text().count("stopped by") == 1
    assert row["units_done"] >= 1

    finished = command.start("--progress", "none", "--result-json", "-")
    assert finished.wait(PATIENCE) == 0, command.said()
    told = json.loads(command.said().splitlines()[-1])
    assert (told["status"], told["exit_code"], told["error"]) == ("done", 0, None)
    assert told["documents"] == len(TEXTS) - 12 * row["units_done"] or told["documents"] < len(TEXTS)
    assert read_delta(command.output / "documents").num_rows == len(TEXTS)
    kept = {Path(row["log"]).parent}
    assert set((tmp_path / "tmp").iterdir()) == kept, "a run that goes well leaves nothing"


def test_the_runs_of_an_output_are_listed(tmp_path: Path) -> None:
    command = Command(tmp_path)
    listing = [sys.executable, "-c", "import sys; from entitymill.cli import main; sys.exit(main())", "runs"]

    def listed(*more: str) -> subprocess.CompletedProcess[str]:
        environment = {**command.environment, "PYTHONPATH": str(ROOT / "jobs")}
        return subprocess.run(
            [*listing, *command.words(), *more],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    none = listed()
    assert (none.returncode, none.stderr.splitlines()[0]) == (1, f"error: output: no run has written {command.output} yet.")
    assert command.start("--set", "limits.max_reject_ratio=0", "--set", "source.max_chars=3000").wait(PATIENCE) == 4
    assert command.start().wait(PATIENCE) == 0
    rows = [json.loads(line) for line in listed("--json").stdout.splitlines()]
    assert [(row["status"], row["exit_code"]) for row in rows] == [("done", 0), ("failed", 4)]
    assert "were refused" in rows[1]["error"]
    shown = listed("--last", "2").stdout
    assert shown.index(rows[0]["run_id"]) < shown.index(rows[1]["run_id"])
    assert f"{rows[1]['run_id']}: {rows[1]['error']}" in shown
