"""Test the job on object storage: source, model, sentence detector and all tables are on a local S3 server, behind s3a."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector
from pyspark.sql import SparkSession

from entitymill.run_row import RunRow
from entitymill.settings.sections import OutputSettings, SparkSettings
from entitymill.spark.session import open_session
from entitymill.tables import Tables
from entitymill.tables.heartbeats import Heartbeat
from small_queries import SMALL_QUERIES

from .lake import read
from .servers import BUCKET, KEY, ROOT, SECRET, Relay, S3Server, client, credentials, fill, free_port

TEXTS = [("a", "Angela Merkel met Emmanuel Macron in Paris."), ("b", "Nobody came."), ("c", "Kofi Annan left Ghana.")]
FOUND = [("a", "Angela Merkel"), ("a", "Emmanuel Macron"), ("a", "Paris"), ("c", "Kofi Annan"), ("c", "Ghana")]
LOCATION = f"s3a://{BUCKET}"


@dataclass
class Store:
    """The server, and the relay through which the job reaches it."""

    port: int
    relay: Relay
    scratch: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def options(self, output: str, *more: str) -> list[str]:
        places = [
            "source.format=parquet", f"source.path={LOCATION}/texts.parquet", f"output.path={LOCATION}/{output}",
            f"model.path={LOCATION}/models/demo", f"segmentation.model={LOCATION}/models/sentence_detector",
        ]  # fmt: skip
        spark = {
            "hadoop.fs.s3a.endpoint": f"http://127.0.0.1:{self.relay.port}",
            "hadoop.fs.s3a.path.style.access": "true",
            "driver.memory": "2g",
            # A run of seconds gains nothing from Java's optimizing compiler.
            "driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
            # Failures must come soon enough for a test; the timeouts that are shipped are for real networks.
            "hadoop.fs.s3a.connection.timeout": "2000",
            "hadoop.fs.s3a.retry.interval": "100ms",
        }
        set_up = [f"spark.conf.spark.{key}={value}" for key, value in spark.items()]
        set_up += [f"spark.conf.{key}={value}" for key, value in SMALL_QUERIES.items()]
        jars = f"spark.jars={ROOT}/build/jars,{ROOT}/build/jars-s3"
        return [*places, *set_up, jars, "spark.master=local[2]", "spark.partitions=2", f"log={self.log}", *more]

    @property
    def log(self) -> Path:
        return self.scratch / "run.log"

    def start(self, output: str, *more: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        settings = [item for option in self.options(output, *more) for item in ("--set", option)]
        command = [sys.executable, str(ROOT / "jobs" / "extract_entities.py"), *settings]
        self.started.append(
            subprocess.Popen(
                command, env=environment or credentials(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return self.started[-1]

    def run(self, output: str, *more: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
        process = self.start(output, *more, environment=environment)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def put(self, rows: list[tuple[str, str]]) -> None:
        ids, texts = zip(*rows, strict=True)
        pq.write_table(
            pa.table({"id": list(ids), "text": list(texts)}),
            f"{BUCKET}/texts.parquet",
            filesystem=client(f"127.0.0.1:{self.port}"),
        )

    def commits(self, table: str) -> int:
        log = FileSelector(f"{BUCKET}/{table}/_delta_log", allow_not_found=True)
        found = client(f"127.0.0.1:{self.port}").get_file_info(log)
        return sum(file.extension == "json" for file in found)

    def table(self, output: str, name: str) -> pa.Table:
        return read(f"127.0.0.1:{self.port}", f"{output}/{name}")

    def runs(self, output: str) -> dict[str, str]:
        """Return run id -> status; empty before the first run of an output."""
        if not self.commits(f"{output}/runs"):
            return {}
        rows = self.table(output, "runs").to_pylist()
        return {row["run_id"]: row["status"] for row in rows}

    def mentions(self, output: str) -> list[tuple[str, str]]:
        rows = self.table(output, "entities").sort_by([("doc_id", "ascending"), ("begin", "ascending")])
        return list(zip(rows["doc_id"].to_pylist(), rows["entity"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory, content = tmp_path_factory.mktemp("s3"), tmp_path_factory.mktemp("content")
    shutil.copytree(ROOT / "models", content / "models")
    server = S3Server(directory, "127.0.0.1", free_port()).start()
    try:
        fill(f"127.0.0.1:{server.port}", content)
        made = Store(server.port, Relay(server.port), directory)
        yield made
        for process in made.started:
            process.kill()  # only a process of an interrupted test still runs
    finally:
        server.stop()


@pytest.fixture(scope="module")
def spark(store: Store) -> Iterator[SparkSession]:
    conf = dict(option.removeprefix("spark.conf.").split("=", 1) for option in store.options("x") if "spark.conf." in option)
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    before = {name: os.environ.get(name) for name in keys}
    os.environ.update(keys)
    jars = f"{ROOT}/build/jars,{ROOT}/build/jars-s3"
    session = open_session(SparkSettings(master="local[2]", jars=jars, conf=conf), "heartbeats")
    yield session
    session.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(autouse=True)
def fresh(store: Store) -> None:
    store.relay.forward()
    store.log.unlink(missing_ok=True)
    store.put(TEXTS)


def test_source_model_and_tables_are_on_s3_with_two_drivers_at_once_and_no_secret_is_anywhere(store: Store) -> None:
    both = [store.start("plain"), store.start("plain")]
    shown = []
    for process in both:
        shown += process.communicate(timeout=300)
        assert process.returncode == 0, shown[-1][-2000:]
    assert store.mentions("plain") == FOUND

    store.put([*TEXTS[1:], ("d", "Kofi Annan came back.")])
    code, *more = store.run("plain", "limits.max_removed_ratio=1")
    assert code == 0, more[1][-2000:]
    assert store.mentions("plain") == [*FOUND[3:], ("d", "Kofi Annan")]

    runs = store.table("plain", "runs").sort_by("started_at").to_pylist()
    assert [run["status"] for run in runs] == ["done"] * 3
    assert "waiting for " in store.log.read_text(), "they ran at once"
    assert SECRET not in "".join([*shown, *more, store.log.read_text(), str(runs)])


def test_wrong_credentials_are_named_as_such(store: Store) -> None:
    wrong = {**credentials(), "AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    code, _, err = store.run("refused", environment=wrong)
    assert (code, "the storage refuses these credentials" in err) == (1, True), err
    assert "not-the-secret" not in err + store.log.read_text()


def test_a_storage_that_refuses_ends_the_run_in_one_sentence(store: Store) -> None:
    store.relay.refuse()
    began = time.monotonic()
    code, _, err = store.run("down")
    assert (code, "the storage cannot be reached" in err) == (1, True), err
    assert f"{LOCATION}/models" in err
    assert time.monotonic() - began < 120


def test_a_storage_that_fails_in_the_middle_ends_the_run_and_the_next_one_repairs_it(store: Store) -> None:
    store.put([(f"{prefix}{number}", text) for number in range(20) for prefix, text in TEXTS])
    for before, fault in enumerate((store.relay.stall, store.relay.refuse)):
        process = store.start("broken", "limits.unit_rows=12", "limits.lease_seconds=5")
        deadline, published = time.monotonic() + 240, store.commits("broken/documents")
        # Wait until this run has published documents, so that the fault can leave tables half changed. A new commit alone
        # does not show this: a commit that the run before had to stall may arrive late.
        while len(store.runs("broken")) <= before or store.commits("broken/documents") < max(3, published + 1):
            assert process.poll() is None, process.communicate()[1][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        fault()
        failed_at = time.monotonic()
        _, err = process.communicate(timeout=280)
        assert time.monotonic() - failed_at < 240
        assert (process.returncode, "the storage cannot be reached" in err) == (1, True), err
        store.relay.forward()

    code, _, err = store.run("broken", "limits.unit_rows=12", "limits.lease_seconds=5")
    assert code == 0, err[-2000:]
    expected = sorted((f"{doc}{number}", entity) for number in range(20) for doc, entity in FOUND)
    assert sorted(store.mentions("broken")) == expected
    assert sorted(store.runs("broken").values()) == ["died", "died", "done"]


def heartbeat(spark: SparkSession, name: str, seconds: float = 60) -> Heartbeat:
    return Heartbeat(Tables(spark, OutputSettings(path=f"{LOCATION}/alone")), name, seconds)


def is_alone(own: Heartbeat) -> bool:
    """Write a heartbeat, and return whether there are no others; if there are, delete the heartbeat again."""
    own.beat(RunRow("own"))
    if not own.read_other_runs():
        return True
    own.stop()
    return False


def test_of_runs_that_start_at_once_never_two_find_themselves_alone(spark: SparkSession) -> None:
    held, most, taken = 0, 0, []

    def work(name: str) -> None:
        nonlocal held, most
        own, deadline = heartbeat(spark, name), time.monotonic() + 60
        while time.monotonic() < deadline and taken.count(name) < 3:
            if is_alone(own):
                held += 1
                most = max(most, held)
                time.sleep(0.1)
                held -= 1
                taken.append(name)
                own.stop()
            time.sleep(random.uniform(0, 0.3))  # noqa: S311

    workers = [threading.Thread(target=work, args=(f"run{number}",)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (most, len(taken)) == (1, 12)


def test_heartbeats_of_the_dead_do_not_count(spark: SparkSession) -> None:
    assert is_alone(heartbeat(spark, "alive"))
    assert not is_alone(heartbeat(spark, "next"))
    time.sleep(2.1)
    assert is_alone(heartbeat(spark, "later", seconds=1)), "a heartbeat that was not repeated is outdated"
