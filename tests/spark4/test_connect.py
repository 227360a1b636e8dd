"""The job through a Spark Connect server: the same tables as without one; and what is refused, in a sentence."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import write_deltalake

from spark4.both import NEW, TEXTS, Spark, assert_equal, change, clean_environment, held, make, rows

STARTING_SECONDS = 90
UNITS = {"limits.unit_rows": "12", "limits.max_removed_ratio": "1", "output.annotations": "false"}
DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.shuffle.partitions": "4",
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.connect.grpc.binding.address": "127.0.0.1",
}


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    """The job's own command line, told of a server on the loopback address."""
    directory = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = {**DELTA, "spark.connect.grpc.binding.port": port, "spark.sql.warehouse.dir": directory / "warehouse"}
    command = [
        *(NEW.python.with_name("spark-submit"), "--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
        *("--master", "local[2]", "--driver-memory", "1g", "--jars", ",".join(map(str, NEW.jars.glob("*.jar")))),
        *(word for key, value in conf.items() for word in ("--conf", f"{key}={value}")),
        "spark-internal",
    ]
    environment = {**clean_environment(), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": str(NEW.python)}
    with (directory / "server.log").open("w") as log:
        server = subprocess.Popen(
            [str(word) for word in command], cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + STARTING_SECONDS
        while not answers(port):
            assert server.poll() is None and time.monotonic() < deadline, (directory / "server.log").read_text()[-3000:]
            time.sleep(0.5)
        settings = {**UNITS, "output.path": None, "output.schema": "spark_catalog.mentions"}
        yield Spark("connect", NEW.python, directory / "warehouse", settings, {"SPARK_REMOTE": f"sc://127.0.0.1:{port}"})
    finally:
        server.terminate()
        server.wait(60)


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("source") / "texts")


def test_tables_are_those_of_classic_spark(connected: Spark, source: Path, tmp_path: Path) -> None:
    classic = Spark(NEW.name, NEW.python, NEW.jars, {**UNITS})
    here, there = tmp_path / "classic", connected.jars / "mentions.db"

    def run(*flags: str) -> None:
        classic.bring_up(here, source, *flags)
        connected.bring_up(tmp_path / "connected", source, *flags)
        assert_equal(here, there)
        assert {path.name for path in there.iterdir()} == {"entities", "documents", "rejects", "runs"}

    run()
    change(source)
    run()
    run("--full")
    write_deltalake(source, rows(dict(enumerate(TEXTS[36:], 300))), mode="append")
    run("--set", "output.replace_slice=true", "--set", "source.where=id > 200")
    told = held(there, "runs")
    assert [row["mode"] for row in told] == ["first", "feed", "full", "compare"]
    assert [row["units"] for row in told] == [3, 1, 4, 1]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"output.schema": None, "output.path": "out"}, "output.path: Spark Connect can write only tables of a catalog"),
        ({"output.annotations": "true"}, "output.annotations: Spark Connect cannot write annotations"),
        (
            {"recognition.engine": "sparknlp", "recognition.sparknlp_model": "pretrained:x/en"},
            "`recognition.engine: sparknlp` does not work through Spark Connect: set `recognition.engine: openvino`",
        ),
    ],
)
def test_what_it_cannot_do_is_one_sentence(
    connected: Spark, source: Path, tmp_path: Path, setting: dict[str, str | None], said: str
) -> None:
    asked = Spark("connect", connected.python, connected.jars, {**connected.settings, **setting}, connected.environment)
    ended = asked.run(tmp_path / "out", source)
    assert said in ended.stderr
    assert ended.returncode == (1 if "engine" in said else 2)
    assert "Traceback" not in ended.stderr
