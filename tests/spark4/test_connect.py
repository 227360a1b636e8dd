"""Test the job through a Spark Connect server: it writes the same tables as classic Spark, or says what it cannot do."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from delta_reader import read_delta
from spark4.both import NEW, ROOT, TEXTS, Spark, assert_equal, change, clean_environment, close, held, make, rows

STARTING_SECONDS = 90
KILLING_SECONDS = 300
STANDARD = ("spark.sql.", "spark.databricks.")
SERVERLESS = (
    "spark.databricks.execution.timeout",
    "spark.sql.ansi.enabled",
    "spark.sql.files.maxPartitionBytes",
    "spark.sql.legacy.timeParserPolicy",
    "spark.sql.session.timeZone",
    "spark.sql.shuffle.partitions",
)
"""Properties that Databricks' documentation lists for serverless compute ("Supported Spark configuration parameters")."""
UNITS = {"limits.unit_rows": "20", "limits.max_removed_ratio": "1", "output.annotations": "false"}
DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.shuffle.partitions": "4",
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.connect.grpc.binding.address": "127.0.0.1",
}


@contextmanager
def serve(directory: Path, conf: dict[str, object]) -> Iterator[Spark]:
    """Start a server on the loopback address, and yield a way to run the job through the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = {**DELTA, "spark.connect.grpc.binding.port": port, "spark.sql.warehouse.dir": directory / "warehouse", **conf}
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


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    """Start a server that refuses nothing, and yield a way to run the job through the server."""
    with serve(tmp_path_factory.mktemp("server"), {}) as spark:
        yield spark


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Iterator[Spark]:
    """Start a server that refuses what Databricks' compute refuses, and yield a way to run the job through the server.

    The file `allowed` in the server's directory lists the properties that a session may set. Files may be read from
    `source`, and from the directories `texts` and `of_killed_runs` in the server's directory.
    """
    directory = tmp_path_factory.mktemp("restricted")
    (jars,) = NEW.python.parents[1].glob("lib/python3.*/site-packages/pyspark/jars")
    code = Path(__file__).parent / "java" / "RestrictedAccess.java"
    subprocess.run(["javac", "-proc:none", "-cp", f"{jars}/*", "-d", str(directory), str(code)], check=True)
    allow(directory, STANDARD)
    sandbox = f"{source},{directory}/texts,{directory}/of_killed_runs"
    properties = {"entitymill.allowed": directory / "allowed", "entitymill.sandbox": sandbox}
    conf: dict[str, object] = {
        "spark.connect.grpc.interceptor.classes": "entitymill.connect.RestrictedAccess",
        "spark.driver.extraClassPath": directory,
        "spark.driver.extraJavaOptions": " ".join(f"-D{key}={value}" for key, value in properties.items()),
    }
    with serve(directory, conf) as spark:
        yield spark


def allow(directory: Path, properties: Sequence[str]) -> None:
    (directory / "allowed").write_text("\n".join(properties) + "\n")


@contextmanager
def allow_meanwhile(server: Spark, properties: Sequence[str]) -> Iterator[None]:
    """In this block, let sessions of the restricted server set only these properties."""
    allow(server.jars.parent, properties)
    try:
        yield
    finally:
        allow(server.jars.parent, STANDARD)


def test_tables_are_those_of_classic_spark(connected: Spark, restricted: Spark, source: Path, tmp_path: Path) -> None:
    """The tables must be the same even if the server caches no rows, as in Databricks' standard access mode."""
    classic = Spark(NEW.name, NEW.python, NEW.jars, {**UNITS})
    here = tmp_path / "classic"

    def run(*flags: str, others: Sequence[Spark] = (restricted,)) -> None:
        with ThreadPoolExecutor(2) as two:
            work = [two.submit(classic.bring_up, here, source, *flags)]
            work += [two.submit(other.bring_up, tmp_path / other.jars.parent.name, source, *flags) for other in others]
        for done in work:
            done.result()
        for other in others:
            there = other.jars / "mentions.db"
            assert_equal(here, there)
            assert {path.name for path in there.iterdir()} == {"entities", "documents", "rejects", "runs"}

    run(others=(restricted, connected))
    change(source)
    run()
    run("--full")
    write_deltalake(source, rows(dict(enumerate(TEXTS[36:], 300))), mode="append")
    run("--set", "output.replace_slice=true", "--set", "source.where=id > 200")
    told = held(restricted.jars / "mentions.db", "runs")
    assert [row["mode"] for row in told] == ["first", "feed", "full", "compare"]
    assert [row["units"] for row in told] == [2, 1, 2, 1]


@pytest.mark.deep
def test_killed_runs_are_repaired_where_much_is_refused(restricted: Spark, tmp_path: Path) -> None:
    """The next run must repair the tables of a killed first run, and of a killed incremental run."""
    own = {"output.schema": "spark_catalog.repaired", "limits.unit_rows": "8", "limits.lease_seconds": "15"}
    spark = Spark("connect", restricted.python, restricted.jars, {**restricted.settings, **own}, restricted.environment)
    classic = Spark(NEW.name, NEW.python, NEW.jars, {**UNITS})
    texts, tables, here = (
        make(restricted.jars.parent / "of_killed_runs"),
        restricted.jars / "repaired.db",
        tmp_path / "classic",
    )

    def repair() -> None:
        kill_after_a_unit(spark, tables, tmp_path / "out", texts)
        spark.bring_up(tmp_path / "out", texts)
        classic.bring_up(here, texts)
        for name in ("entities", "documents", "rejects"):
            assert close(held(here, name), held(tables, name)), name

    repair()
    change(texts)
    repair()
    statuses = sorted((row["started_at"], row["status"]) for row in read_delta(tables / "runs").to_pylist())
    assert [status for _, status in statuses] == ["died", "done"] * 2


def kill_after_a_unit(spark: Spark, tables: Path, output: Path, source: Path) -> None:
    """Start the job, and kill it when it has published a unit; fail if it ends earlier."""
    entities = tables / "entities" / "_delta_log"
    before = len(list(entities.glob("*.json")))
    commits = 2 if before else 3  # a first run creates the table; then each run fences it and publishes its first unit
    run = spark.start(output, source)
    try:
        deadline = time.monotonic() + KILLING_SECONDS
        while len(list(entities.glob("*.json"))) < before + commits:
            assert run.poll() is None and time.monotonic() < deadline, "the run was to be killed"
            time.sleep(0.02)
    finally:
        run.kill()
        run.wait()


@pytest.mark.deep
def test_the_other_commands_work_where_much_is_refused(restricted: Spark, source: Path, tmp_path: Path) -> None:
    """Maintenance, erasure, redaction and samples must need nothing that Databricks' standard access mode refuses."""
    settings = {**restricted.settings, "output.schema": "spark_catalog.other_commands", "entities.labels": "[PER, LOC]"}
    spark = Spark("connect", restricted.python, restricted.jars, settings, restricted.environment)
    texts, out = restricted.jars.parent / "texts", tmp_path / "out"
    write_deltalake(texts, rows({1: "Angela Merkel flew to Paris.", 2: "Barack Obama met her in Rome.", 3: "Nobody came."}))
    tables = restricted.jars / "other_commands.db"
    spark.bring_up(out, texts)
    spark.bring_up(out, texts, "--to", "table:spark_catalog.other_commands.masked", command="redact")
    masked = sorted(read_delta(tables / "masked").to_pylist(), key=lambda row: row["id"])
    assert [row["text"] for row in masked] == [
        "[PER] flew to [LOC].",
        "[PER] met her in [LOC].",
        "Nobody came.",
    ]
    spark.bring_up(out, texts, "--to", str(tmp_path / "sample.csv"), "--show-text", command="sample")
    assert "Barack Obama" in (tmp_path / "sample.csv").read_text()
    DeltaTable(texts).delete("id = 2")
    spark.bring_up(out, texts, "--ids", "2", "--yes", command="erase")
    assert {row["doc_id"] for row in read_delta(tables / "documents").to_pylist()} == {"1", "3"}
    for task in ("optimize", "vacuum", "purge"):
        spark.bring_up(out, texts, task, command="maintain")
    files = [*(tables / "entities").rglob("*.parquet"), *(tables / "documents").glob("*.parquet")]
    assert not [file for file in files if "_delta_log" not in file.parts and b"Obama" in file.read_bytes()]
    spark.bring_up(out, texts)
    assert {row["entity"] for row in read_delta(tables / "entities").to_pylist()} == {"Angela Merkel", "Paris"}


def test_where_delta_gets_no_transaction_numbers_nothing_is_written(restricted: Spark, source: Path, tmp_path: Path) -> None:
    """The server refuses to set transaction versions, as Databricks' serverless compute does."""
    elsewhere = Spark(
        "serverless",
        restricted.python,
        restricted.jars,
        {**restricted.settings, "output.schema": "spark_catalog.other"},
        restricted.environment,
    )
    with allow_meanwhile(restricted, SERVERLESS):
        ended = elsewhere.run(tmp_path / "out", source)
    assert "this session refuses to set spark.databricks.delta.write.txnAppId ([CONFIG_NOT_AVAILABLE]" in ended.stderr
    assert "Delta cannot refuse commits of a run that another run has replaced" in ended.stderr
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert not (restricted.jars / "other.db").exists()


@pytest.mark.parametrize("properties", [STANDARD, SERVERLESS], ids=["standard", "serverless"])
def test_mentions_are_found_in_a_dataframe(restricted: Spark, properties: Sequence[str]) -> None:
    """A user's program must find mentions with the function for DataFrames and with the function for columns."""
    options = f"model={str(ROOT / 'models' / 'demo')!r}, detector='rules'"
    program = (
        "import entitymill\nfrom pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.getOrCreate()\n"
        "texts = spark.createDataFrame([(1, 'Angela Merkel flew to Paris.'), (2, '')], 'id int, body string')\n"
        f"found = entitymill.mentions(texts, 'id', 'body', {options})\n"
        "print([tuple(row) for row in found.select('id', 'entity', 'label').orderBy('begin').collect()])\n"
        f"listed = texts.select('id', entitymill.udf(spark=spark, {options})('body').alias('found'))\n"
        "print({row.id: [mention.entity for mention in row.found] for row in listed.orderBy('id').collect()})\n"
    )
    environment = {**clean_environment(), **restricted.environment, "PYTHONPATH": str(ROOT / "jobs")}
    command = [str(restricted.python), "-c", program]
    with allow_meanwhile(restricted, properties):
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.stdout.splitlines()[-2:] == [
        "[(1, 'Angela Merkel', 'PER'), (1, 'Paris', 'LOC')]",
        "{1: ['Angela Merkel', 'Paris'], 2: []}",
    ], ended.stderr[-3000:]


@pytest.mark.parametrize("server", ["connected", pytest.param("restricted", marks=pytest.mark.deep)])
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
    request: pytest.FixtureRequest, source: Path, tmp_path: Path, server: str, setting: dict[str, str | None], said: str
) -> None:
    spark: Spark = request.getfixturevalue(server)
    asked = Spark("connect", spark.python, spark.jars, {**spark.settings, **setting}, spark.environment)
    ended = asked.run(tmp_path / "out", source)
    assert said in ended.stderr
    assert ended.returncode == (1 if "engine" in said else 2)
    assert "Traceback" not in ended.stderr
