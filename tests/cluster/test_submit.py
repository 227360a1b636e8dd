"""Test spark-submit of the package to a standalone cluster whose hosts share only the network and the lake."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delta_reader import read_delta

from .conftest import Cluster
from .servers import ROOT, SECRET, credentials

KEYS = ["doc_id", "begin", "end", "entity", "label"]
UNIT_ROWS = 275
ALL_ROWS = 1_000
_RECOGNITION = re.compile(r"recognition took ([\d.]+) s")


@pytest.fixture(scope="module")
def texts(cluster: Cluster) -> pa.Table:
    rows = pq.read_table(ROOT / "data" / "state_union.parquet")
    pq.write_table(rows, cluster.scratch / "content" / "texts" / "part.parquet")
    cluster.on_hub("fill", str(cluster.scratch / "content"))
    return rows


def found(table: pa.Table) -> list[tuple[object, ...]]:
    ordered = table.sort_by([(key, "ascending") for key in KEYS])
    return list(zip(*(ordered[key].to_pylist() for key in KEYS), strict=True))


def local(texts: pa.Table, directory: Path) -> pa.Table:
    """Return `entities` of a run over the same rows, with local Spark and local files."""
    pq.write_table(texts, directory / "texts.parquet")
    options = [
        "source.format=parquet", f"source.path={directory}/texts.parquet", f"output.path={directory}/out",
        f"model.path={ROOT}/models/demo", f"spark.jars={ROOT}/build/jars", "recognition.precision=f32",
        "spark.master=local[2]", "spark.conf.spark.driver.memory=2g",
        "spark.conf.spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1",
    ]  # fmt: skip
    settings = [item for option in options for item in ("--set", option)]
    subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "extract_entities.py"), *settings],
        env=credentials(), check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    return read_delta(f"{directory}/out/entities")


def executors(cluster: Cluster) -> list[Path]:
    """Return the working directories of the executors of the latest application, ordered by host."""
    latest = max(path.name for host in cluster.workers for path in (host.directory / "work").glob("app-*"))
    return [path for host in cluster.workers for path in sorted((host.directory / "work" / latest).glob("[0-9]*"))]


def ended(cluster: Cluster, seconds: float = 30) -> list[str]:
    """Wait until only workers run on the driver's and the workers' hosts; return what else still runs after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        programs = [program for host in (cluster.driver, *cluster.workers) for program in host.programs()]
        left = [program for program in programs if "deploy.worker.Worker" not in program]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


def recognition_seconds(cluster: Cluster, output: str) -> float:
    """Return the recognition time of a run with one unit; it includes the loading of models."""
    log = (cluster.driver.directory / "home" / f"{output}.log").read_text()
    (only,) = _RECOGNITION.findall(log)
    return float(only)


def test_the_package_runs_on_hosts_that_share_nothing(cluster: Cluster, texts: pa.Table, tmp_path: Path) -> None:
    done = cluster.submit("two", 2, UNIT_ROWS)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]

    assert found(cluster.read("two/entities")) == found(local(texts, tmp_path))

    ran = executors(cluster)
    assert [path.parents[1] for path in ran] == [host.directory / "work" for host in cluster.workers]
    for directory in ran:
        log = (directory / "stderr").read_text()
        assert len(list(directory.glob("*-openvino_model.bin"))) == 1, "the model reaches a host once"
        assert len(re.findall(r"Executor: Fetching spark://\S+openvino_model\.bin ", log)) == 1
        assert (directory / "environment" / "bin" / "python").is_file()
        assert SECRET not in log + (directory / "stdout").read_text()
    assert SECRET not in done.stdout + done.stderr + (cluster.driver.directory / "home" / "two.log").read_text()

    # Executors and their Python workers end with the application.
    assert ended(cluster) == []


def test_workers_see_nothing_of_the_driver(cluster: Cluster) -> None:
    look = f"! test -e {ROOT}/jobs && find /tmp /mnt/home -mindepth 1 && ! python3.11 -c 'import openvino' 2>/dev/null"
    for host in cluster.workers:
        seen = subprocess.run(host.command("bash", "-c", look), env=host.environment(), check=False, capture_output=True)
        assert (seen.returncode, seen.stdout) == (0, b""), seen.stderr


def test_tables_are_maintained_on_the_cluster(cluster: Cluster) -> None:
    done = cluster.submit("two", 2, UNIT_ROWS, "maintain_tables.py --config conf/articles.yaml optimize")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "small files compacted" in done.stdout
    assert len(found(cluster.read("two/entities"))) > UNIT_ROWS


def test_speed_up_of_a_second_host(cluster: Cluster, texts: pa.Table, capsys: pytest.CaptureFixture[str]) -> None:
    # With one unit, nothing is published during recognition: publishing takes cores of this machine from the executors.
    for output, cores in (("one", 1), ("both", 2)):
        done = cluster.submit(output, cores, ALL_ROWS)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        assert found(cluster.read(f"{output}/entities")) == found(cluster.read("two/entities"))
    one, both = recognition_seconds(cluster, "one"), recognition_seconds(cluster, "both")
    told = (
        f"{texts.num_rows} documents: recognition on 1 executor {one:.1f} s, on 2 executors {both:.1f} s: {one / both:.2f} x"
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{told}\n")
