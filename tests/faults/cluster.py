"""Run a standalone Spark master, its workers and the job's driver as processes that a test can kill."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark

from small_queries import SMALL_QUERIES

ROOT = Path(__file__).parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
JARS = ROOT / "build" / "jars"
LOGGING = ROOT / "conf" / "log4j2.properties"
# Runs are short: Java's optimizing compiler would cost more time than it saves.
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=400m"
PATIENCE = 300.0
"""Seconds to wait for an event. The limit is high because a shared machine may stall."""


def environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    return inherited | {
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }


def until(what: str, found: object, seconds: float = PATIENCE) -> object:
    """Call `found` repeatedly until its result is true, and return the result.

    Raises:
        TimeoutError: no result was true within `seconds`; the error names `what`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = found()  # type: ignore[operator]
        if answer:
            return answer
        time.sleep(0.05)
    raise TimeoutError(what)


@contextlib.contextmanager
def standalone(directory: Path, workers: int = 2) -> Iterator[str]:
    """Run a master, and workers of one core, each with its own loopback address; yield the master's URL."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> Path:
        log = directory / f"{name}.log"
        command = [str(SPARK_HOME / "bin" / "spark-class"), *arguments]
        with log.open("wb") as file:
            started.append(subprocess.Popen(command, env=environment(), stdout=file, stderr=subprocess.STDOUT))
        return log

    def address(log: Path) -> str:
        found = re.search(r"spark://[\w.]+:\d+", log.read_text(errors="replace"))
        return found[0] if found else ""

    package = "org.apache.spark.deploy"
    try:
        master = start("master", f"{package}.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        where = str(until("the master", lambda: address(master)))
        for number in range(workers):
            # Each worker needs its own address: Spark starts no speculative copy of a task on the same host.
            host = f"127.0.0.{number + 1}"
            own = ["--work-dir", str(directory / f"work{number}"), "--cores", "1", "--memory", "2g", "--webui-port", "0"]
            log = start(f"worker{number}", f"{package}.worker.Worker", "--host", host, *own, where)
            until("a worker", lambda log=log: "Successfully registered" in log.read_text(errors="replace"))
        yield where
    finally:
        for process in reversed(started):
            end(process.pid)
            process.wait()


def end(pid: int) -> None:
    """Kill a process and all its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in [*top.children(recursive=True), top]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@dataclass
class Driver:
    """The job's driver, in its own process.

    executors_below: ids of the processes whose descendants may be executors: the driver, and a standalone master's workers.
    """

    process: subprocess.Popen[str]
    log: Path
    executors_below: Sequence[int]

    @classmethod
    def start(
        cls, master: str, options: Sequence[str], directory: Path, workers: Sequence[int] = (), flags: Sequence[str] = ()
    ) -> Driver:
        log = directory / "run.log"
        log.unlink(missing_ok=True)
        session = [f"spark.master={master}", f"spark.jars={JARS}", f"log={log}", *SESSION]
        overrides = [item for option in [*session, *options] for item in ("--set", option)]
        command = [sys.executable, str(ROOT / "jobs" / "extract_entities.py"), *flags, *overrides]
        with (directory / "said.txt").open("w") as said:
            process = subprocess.Popen(command, env=environment(), stdout=said, stderr=subprocess.STDOUT, text=True)
        return cls(process, log, [process.pid, *workers])

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until the driver ends, and return its exit code. After a timeout, kill the driver and raise."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            end(self.process.pid)
            raise

    def started(self) -> bool:
        """Return whether the driver has started Spark, or has ended."""
        return self.process.poll() is not None or (self.log.exists() and " took " in self.log.read_text())

    def pids(self, kind: str) -> list[int]:
        """Return the ids of the job's processes of one kind.

        The kinds are `driver` (Python and its JVM), `executor`, `worker` (Python workers of executors) and `tagger`
        (children of workers).
        """
        mine = [process for top in self.executors_below for process in _below(top)]
        if kind == "driver":
            return [self.process.pid, *(process.pid for process in mine if _is(process, "SparkSubmit"))]
        if kind == "executor":
            return [process.pid for process in mine if _is(process, "CoarseGrainedExecutorBackend")]
        # PySpark's daemon forks one worker per core. A worker is a process whose parent is a pyspark.daemon, too.
        daemons = (process for process in mine if _is(process, "pyspark.daemon"))
        workers = [process for process in daemons if _is(process.parent(), "pyspark.daemon")]
        if kind == "worker":
            return [process.pid for process in workers]
        return [process.pid for worker in workers for process in _below(worker.pid)]

    def kill(self, kind: str, which: int) -> bool:
        """Send SIGKILL to one process of a kind, and return whether there was one."""
        found = sorted(self.pids(kind))
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[which % len(found)], signal.SIGKILL)
            return True
        return False


SESSION = (
    "spark.conf.spark.driver.memory=2g",
    "spark.conf.spark.executor.memory=1500m",
    "spark.conf.spark.executor.cores=1",
    *(f"spark.conf.{name}={value}" for name, value in SMALL_QUERIES.items()),
    "spark.conf.spark.driver.host=127.0.0.1",
    "spark.conf.spark.driver.bindAddress=127.0.0.1",
    "spark.conf.spark.task.maxFailures=8",
    "spark.partitions=4",
    f"spark.conf.spark.driver.extraJavaOptions=-Dlog4j2.configurationFile={LOGGING.as_uri()} {QUICK_START}",
    f"spark.conf.spark.executor.extraJavaOptions={QUICK_START}",
    # The jars are on the class path, and not in spark.jars: each executor that starts would copy 280 MB.
    "spark.conf.spark.jars=",
    f"spark.conf.spark.driver.extraClassPath={JARS}/*",
    f"spark.conf.spark.executor.extraClassPath={JARS}/*",
)


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is(process: psutil.Process | None, name: str) -> bool:
    try:
        return process is not None and any(name in part for part in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
