"""Test a run that a signal stops: its progress, how it ends, and that the next run continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from delta_reader import read_delta
from entitymill.commands import extract
from small_queries import SMALL_QUERIES

from .conftest import MODELS, ROOT, Job

SPEECHES = pq.read_table(ROOT / "data" / "state_union.parquet").slice(0, 60)
TEXTS = pa.table({"id": SPEECHES["id"], "text": pc.utf8_slice_codeunits(SPEECHES["text"], 0, 10_000)})
UNIT_ROWS = 20
PATIENCE = 240
# In a short run, Java's optimizing compiler (C2) would take more time than it saves.
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=400m"
SESSION = [
    f"spark.jars={ROOT}/build/jars",
    "spark.master=local[2]",
    f"spark.conf.spark.driver.defaultJavaOptions={QUICK_START}",
    *(f"spark.conf.{name}={value}" for name, value in SMALL_QUERIES.items()),
]


class Command:
    """Starts the job's command in a separate process group, as a terminal does."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.output = directory, directory / "out"
        (directory / "tmp").mkdir()
        pq.write_table(TEXTS, directory / "texts.parquet")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
        self.environment = {**clean, "TMPDIR": str(directory / "tmp")}

    def words(self, *more: str) -> list[str]:
        options = ["source.format=parquet", f"source.path={self.directory}/texts.parquet", f"output.path={self.output}"]
        options += [*MODELS, *SESSION, f"limits.unit_rows={UNIT_ROWS}"]
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


@pytest.mark.deep
@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_stopped_run_gives_the_lease_back_and_says_so(
    job: Job, capsys: pytest.CaptureFixture[str], number: int, code: int, name: str
) -> None:
    command = Command(job.directory)
    result = job.directory / "result.json"
    running = command.start("--progress", "json", "--progress-seconds", "0.5", "--result-json", str(result))
    deadline = time.monotonic() + PATIENCE
    while not any(known["unit"] == 2 for known in command.facts()):
        assert running.poll() is None and time.monotonic() < deadline, command.said()
        time.sleep(0.2)
    # A terminal sends the signal to all processes of the group; Kubernetes, YARN and Airflow only to the first process.
    (os.killpg if number == signal.SIGINT else os.kill)(running.pid, number)

    assert running.wait(60) == code
    said = command.said()
    sentence = f"stopped by {name}; finished units are kept, run again to continue."
    assert said.rstrip().endswith(f"error: {sentence}")
    assert "Traceback" not in said
    assert said.startswith("entitymill ")
    known = command.facts()
    assert known[-1]["units"] >= 3 and known[-1]["planned"] == len(TEXTS)  # type: ignore[operator]
    published = read_delta(command.output / "documents").num_rows
    assert 0 < published < len(TEXTS)
    assert max(int(str(one["documents"])) for one in known) >= UNIT_ROWS
    [row] = read_delta(command.output / "runs").to_pylist()
    told = json.loads(result.read_text())
    for found in (row, told):
        assert (found["status"], found["error"], found["exit_code"]) == ("stopped", sentence, code)
        assert found["application_id"].startswith("local-")
        assert Path(found["log"]).read_text().count("stopped by") == 1
    assert row["units_done"] >= 1

    if number == signal.SIGINT:
        return
    # The next run need not wait, and processes the remaining documents.
    waits_not = f"log={job.directory}/run.log", "limits.wait_seconds=0"
    words = command.words(*(word for option in waits_not for word in ("--set", option)))
    assert extract.main([*words, "--progress", "none", "--result-json", "-"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["status"], told["exit_code"], told["error"]) == ("done", 0, None)
    assert told["documents"] == len(TEXTS) - published
    assert read_delta(command.output / "documents").num_rows == len(TEXTS)
