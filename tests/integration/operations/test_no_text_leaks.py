"""Test that no log, message, report page, metric or row of `runs` quotes a text, whatever fails in a run.

All runs share a separate process, whose stderr includes that of Java.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from integration.conftest import MODELS, ROOT
from small_queries import SMALL_QUERIES

SECRET = "tellnobodythis"
TEXT = (
    f"We {SECRET} at night. entitymill.errors.ModelError: {SECRET} was here.\n"
    f"\tat a.{SECRET}(B.java:3)\nCaused by: we.{SECRET}\n"
)
"""A text with the secret, also in what looks like a stack trace."""
QUOTED = "concat('%s" + SECRET[:5] + "', '" + SECRET[5:] + "')"
"""SQL expression whose value contains the secret. The expression has the secret in two parts, because logs show it."""
FAILING = {
    "raise": "raise_error(text) IS NULL",
    "number": "to_number(text, '999') IS NULL",
    "error of ours": f"raise_error({QUOTED % 'entitymill.errors.ModelError: '}) IS NULL",
    "storage": f"raise_error({QUOTED % 'com.amazonaws AccessDeniedException Status Code: 403 s3a://'}) IS NULL",
    "assert": "assert_true(false, text) IS NULL",
    "udf": "leaky(text) IS NULL",
}
IN_A_WORKER = "worker"
"""Name of the run in which a Python worker fails with an error that quotes the text."""
PROGRAM = """
import http.server, json, sys, threading
from pathlib import Path
from entitymill.commands import extract
from entitymill.workers import engine_openvino
from leaky_stub import FACTORY
from pyspark.sql import SparkSession

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        with open(sys.argv[3], "ab") as events:
            events.write(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

def fail(text):
    raise ValueError(text)

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
for name, arguments in json.loads(Path(sys.argv[1]).read_text()).items():
    if name == "worker":
        engine_openvino.FACTORY = FACTORY
    print(name, extract.main(arguments), flush=True)
    SparkSession.getActiveSession().udf.register("leaky", fail)
print("local", SparkSession.getActiveSession().conf.get("spark.local.dir"), flush=True)
for file in Path(SparkSession.getActiveSession().conf.get("spark.local.dir")).glob("*"):
    print("holds", file.name, flush=True)
print("mode", oct(Path(SparkSession.getActiveSession().conf.get("spark.local.dir")).stat().st_mode), flush=True)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Run PROGRAM; return the directory of all its files, and the lines that it printed.

    The subdirectory `said` contains what the runs wrote, except the tables and Spark's event log.
    """
    directory = tmp_path_factory.mktemp("secret")
    (directory / "tmp").mkdir()
    (directory / "events").mkdir()
    pq.write_table(pa.table({"id": ["a", "b"], "text": [TEXT, "Angela Merkel flew to Paris."]}), directory / "texts.parquet")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = {**SMALL_QUERIES, "spark.eventLog.enabled": "true", "spark.eventLog.dir": (directory / "events").as_uri()}
    options = [
        "source.format=parquet", f"source.path={directory}/texts.parquet", f"output.path={directory}/out", *MODELS,
        f"spark.jars={ROOT}/build/jars", "spark.master=local[2]", "limits.lease_seconds=5",
        f"lineage.url=http://127.0.0.1:{port}",
        *(f"spark.conf.{name}={value}" for name, value in conf.items()),
    ]  # fmt: skip

    def command(name: str, *more: str) -> list[str]:
        chosen = [*options, f"log={directory}/said/{name}.log", *more]
        return [*(word for one in chosen for word in ("--set", one)), "--result-json", f"{directory}/said/{name}.json"]

    runs = {
        "done": command("done", f"report.path={directory}/said/page.html", f"metrics.textfile={directory}/said/x.prom"),
        **{name: command(name, f"source.where={where}", "output.adopt_source=true") for name, where in FAILING.items()},
        IN_A_WORKER: command(IN_A_WORKER, "output.adopt_source=true", f"output.path={directory}/other"),
    }
    (directory / "said").mkdir()
    (directory / "runs.json").write_text(json.dumps(runs))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory / "runs.json"), str(port), str(directory / "said" / "lineage.jsonl")],
        cwd=ROOT, env={**clean, "TMPDIR": str(directory / "tmp"), "PYTHONPATH": f"{ROOT}/jobs:{ROOT}/tests"},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    (directory / "said" / "stderr").write_text(done.stderr)
    (directory / "said" / "stdout").write_text(done.stdout)
    return directory, done.stdout.splitlines()


def test_no_text_decides_how_a_run_ends(ran: tuple[Path, list[str]]) -> None:
    _, said = ran
    codes = {name: [line for line in said if line.startswith(f"{name} ")] for name in ("done", *FAILING, IN_A_WORKER)}
    assert codes == {"done": ["done 0"], **{name: [f"{name} 1"] for name in (*FAILING, IN_A_WORKER)}}


def test_nothing_that_a_run_writes_beside_its_tables_quotes_a_text(ran: tuple[Path, list[str]]) -> None:
    directory, _ = ran
    written = [file for file in (directory / "said").iterdir() if file.name != "stdout" or file.read_text()]
    assert {file.suffix for file in written} >= {".log", ".json", ".html", ".prom", ".jsonl"}
    assert [file.name for file in written if SECRET in file.read_text()] == []
    logs = [(directory / "said" / f"{name}.log").read_text() for name in FAILING]
    assert "ValueError in the tagging process, at line 15 of leaky_stub.py" in (directory / "said/stderr").read_text()
    classes = ("org.apache.spark", "pyspark.errors")
    assert all("extraction.py" in log and any(name in log for name in classes) for log in logs), "frames and classes"


def test_the_tables_do_not_quote_it_either(ran: tuple[Path, list[str]]) -> None:
    directory, _ = ran
    for table in ("entities", "documents", "rejects", "runs"):
        for file in (directory / "out" / table).rglob("*.parquet"):
            rows = pq.ParquetFile(file).read().to_pylist()
            assert SECRET not in json.dumps(rows, default=str), table


def test_a_run_that_goes_well_leaves_no_text_in_sparks_event_log(ran: tuple[Path, list[str]]) -> None:
    directory, _ = ran
    [log] = (directory / "events").iterdir()
    text = log.read_text()
    first = text.partition('"raise_error')[0]
    assert '"SparkListenerTaskEnd"' in first
    assert SECRET not in first


def test_sparks_own_files_are_private_and_gone_afterwards(ran: tuple[Path, list[str]]) -> None:
    directory, said = ran
    [place] = [line.partition(" ")[2] for line in said if line.startswith("local ")]
    [mode] = [line.partition(" ")[2] for line in said if line.startswith("mode ")]
    assert stat.S_IMODE(int(mode, 8)) == 0o700
    assert Path(place).parent == directory / "tmp"
    assert any(line.startswith("holds blockmgr-") for line in said)
    assert list((directory / "tmp").iterdir()) == []
