from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from page_code import read_code_block
from small_queries import SMALL_QUERIES

from .network import HOME, SPARK, Host, Network
from .servers import BUCKET, KEY, ROOT, SECRET, S3Server

PACKAGE = ROOT / "build" / "package"
S3_PORT, MASTER_PORT = 9000, 7077
PAGE = "docs/cluster.md"
EXTRACT = "extract_entities.py --config conf/articles.yaml"
SECRETS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
BRIEF = {
    # A run of a minute gains nothing from Java's optimizing compiler.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    **SMALL_QUERIES,
}


@pytest.fixture(scope="session", autouse=True)
def orderly() -> Iterator[None]:
    """Turn SIGTERM, for example from `timeout`, into a KeyboardInterrupt, so that fixtures still remove the hosts."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@dataclass
class Cluster:
    """A standalone master, two workers of one core, a driver and an object store (the lake), each on its own host."""

    network: Network
    scratch: Path

    @property
    def lake(self) -> str:
        return f"{self.network['hub'].address}:{S3_PORT}"

    @property
    def driver(self) -> Host:
        return self.network["driver"]

    @property
    def workers(self) -> list[Host]:
        return [self.network["worker1"], self.network["worker2"]]

    def on_hub(self, action: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.cluster.lake", action, self.lake, *arguments]
        subprocess.run([*self.network["hub"].plainly(), *command], cwd=ROOT, check=True, timeout=120)

    def read(self, table: str) -> pa.Table:
        copy = self.scratch / "copy.parquet"
        self.on_hub("read", table, str(copy))
        return pq.read_table(copy)

    def submit(self, output: str, cores: int, unit_rows: int, program: str = EXTRACT) -> subprocess.CompletedProcess[str]:
        """Run the spark-submit command of docs/cluster.md on the driver's host; `program` replaces the page's program."""
        home = self.driver.directory / "home"
        # In int8, which sentences share a batch decides on a few mentions, so the number of executors does, too.
        precise = {"recognition": {"precision": "f32"}}
        settings = {"limits": {"unit_rows": unit_rows}, "log": f"{HOME}/{output}.log", **precise}
        self.write_settings(home / "conf" / "articles.yaml", output, settings)
        (home / "conf" / "s3.conf").write_text(self.s3_properties(cores))
        environment = {**self.driver.environment(), **SECRETS}
        environment["PATH"] = f"{SPARK}/bin:{environment['PATH']}"
        return subprocess.run(
            self.driver.command("bash", "-euc", read_code_block(PAGE, "--master spark://").replace(EXTRACT, program)),
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def write_settings(self, path: Path, output: str, more: dict[str, Any]) -> None:
        """Write the settings of docs/cluster.md to a file, with another output and with the settings in `more`."""
        page = yaml.safe_load(read_code_block(PAGE, "recognition: {precision: int8}"))
        page["output"]["path"] = f"s3a://{BUCKET}/{output}"
        path.write_text(yaml.safe_dump(page | more))

    def s3_properties(self, cores: int) -> str:
        """Return the package's conf/s3.conf, with more properties for a lake that is not Amazon S3 and for small workers."""
        here = {
            "spark.hadoop.fs.s3a.endpoint": f"http://hub:{S3_PORT}", "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.driver.memory": "1g", "spark.executor.memory": "1500m",
            "spark.executor.cores": "1", "spark.cores.max": str(cores),
            # By default, an application may begin as soon as the first executor has registered.
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            **BRIEF,
        }  # fmt: skip
        shipped = (PACKAGE / "conf" / "s3.conf").read_text(encoding="utf8")
        return shipped + "".join(f"{key} {value}\n" for key, value in here.items())


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    assert os.geteuid() == 0, "network namespaces need root"
    assert (PACKAGE / "environment.tar.gz").is_file(), "run `make test-cluster`: it makes the package"
    scratch = tmp_path_factory.mktemp("hosts")
    with Network(scratch) as network:
        made = Cluster(network, scratch)
        server = S3Server(scratch, network["hub"].address, S3_PORT, network["hub"].plainly()).start()
        _start_spark(network)
        # Only the driver's host gets a copy of the package.
        subprocess.run(["cp", "-rL", f"{PACKAGE}/.", str(network["driver"].directory / "home")], check=True)
        content = scratch / "content"
        (content / "texts").mkdir(parents=True)
        (content / "models").symlink_to(PACKAGE / "models")
        made.on_hub("fill", str(content))
        yield made
        server.stop()


def _start_spark(network: Network) -> None:
    master = network["master"]
    deploy = ("bash", f"{SPARK}/bin/spark-class", "org.apache.spark.deploy")
    master.start("master.log", *deploy[:2], f"{deploy[2]}.master.Master", "--host", "master", "--port", str(MASTER_PORT))
    cores = sorted(os.sched_getaffinity(0))
    for number, name in enumerate(("worker1", "worker2")):
        worker = [f"{deploy[2]}.worker.Worker", "--host", name, "--cores", "1", "--memory", "3g", "--work-dir", "/mnt/work"]
        # Without this, an executor of one core would use more: its Python worker and its tagger run at the same time.
        one_core = ("taskset", "--cpu-list", str(cores[number % len(cores)]))
        network[name].start(f"{name}.log", *one_core, *deploy[:2], *worker, f"spark://master:{MASTER_PORT}")
    deadline = time.monotonic() + 90
    while (master.directory / "master.log").read_text().count("Registering worker") < 2:
        assert time.monotonic() < deadline, (master.directory / "master.log").read_text()
        time.sleep(0.5)
