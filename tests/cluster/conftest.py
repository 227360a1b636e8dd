from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .network import HOME, SPARK, Host, Network
from .servers import BUCKET, KEY, ROOT, SECRET, S3Server

PACKAGE = ROOT / "build" / "package"
S3_PORT, MASTER_PORT = 9000, 7077


@dataclass
class Cluster:
    """A standalone master and two workers of one core, a driver's host, and a lake, each on a host of its own."""

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

    def submit(self, output: str, *overrides: str, cores: int = 2) -> subprocess.CompletedProcess[str]:
        """docs/cluster.md's command line, typed on the driver's host in the package's directory."""
        script = f"""
            cat conf/spark-defaults.conf conf/s3.conf > submit.conf
            {SPARK}/bin/spark-submit --master spark://master:{MASTER_PORT} --deploy-mode client \\
              --properties-file submit.conf \\
              --conf spark.pyspark.python=./environment/bin/python \\
              --archives environment.tar.gz#environment \\
              --jars "$(ls jars/*.jar jars-s3/*.jar | paste -sd,)" \\
              --driver-memory 1g --executor-memory 1500m --executor-cores 1 --total-executor-cores {cores} \\
              --conf spark.hadoop.fs.s3a.endpoint=http://hub:{S3_PORT} \\
              --conf spark.hadoop.fs.s3a.path.style.access=true \\
              extract_entities.py --config conf/base.yaml "$@"
        """
        places = {
            "source.path": f"s3a://{BUCKET}/texts", "source.format": "parquet", "output.path": f"s3a://{BUCKET}/{output}",
            "model.path": f"s3a://{BUCKET}/models/demo", "segmentation.model": f"s3a://{BUCKET}/models/sentence_detector",
            "recognition.precision": "int8", "log": f"{HOME}/{output}.log",
        }  # fmt: skip
        settings = [item for option in [*(f"{k}={v}" for k, v in places.items()), *overrides] for item in ("--set", option)]
        return subprocess.run(
            self.driver.command("bash", "-c", script, "submit", *settings),
            env={**self.driver.environment(), "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
            capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    assert os.geteuid() == 0, "network namespaces need root"
    assert (PACKAGE / "environment.tar.gz").is_file(), "run `make test-cluster`: it makes the package"
    scratch = tmp_path_factory.mktemp("hosts")
    with Network(scratch) as network:
        made = Cluster(network, scratch)
        server = S3Server(scratch, network["hub"].address, S3_PORT, network["hub"].plainly()).start()
        _start_spark(network)
        _unpack(network["driver"])
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
    for name in ("worker1", "worker2"):
        worker = [f"{deploy[2]}.worker.Worker", "--host", name, "--cores", "1", "--memory", "3g", "--work-dir", "/mnt/work"]
        network[name].start(f"{name}.log", *deploy[:2], *worker, f"spark://master:{MASTER_PORT}")
    deadline = time.monotonic() + 90
    while (master.directory / "master.log").read_text().count("Registering worker") < 2:
        assert time.monotonic() < deadline, (master.directory / "master.log").read_text()
        time.sleep(0.5)


def _unpack(driver: Host) -> None:
    """The package, carried to the driver's host; no other host gets a file."""
    home = driver.directory / "home"
    subprocess.run(["cp", "-rL", f"{PACKAGE}/.", str(home)], check=True)
    subprocess.run(["bash", "-c", "mkdir environment && tar -xzf environment.tar.gz -C environment"], cwd=home, check=True)
