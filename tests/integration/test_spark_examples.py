"""Test the Spark examples: a killed stream must lose and duplicate nothing, and the dbt model must return mentions."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from nbclient import NotebookClient
from pyspark.sql import DataFrame, SparkSession

from small_queries import SMALL_QUERIES

from .conftest import ROOT

STREAM, DBT = ROOT / "examples" / "spark" / "stream_mentions.py", ROOT / "examples" / "dbt" / "mentions.py"
NOTEBOOK = ROOT / "examples" / "spark" / "dataframe.ipynb"
DEMO = ROOT / "models" / "demo"
TEXT = "Angela Merkel flew to Paris."
FILES = 8
SECONDS = 300


def start_stream(directory: Path) -> subprocess.Popen[bytes]:
    jars = ",".join(map(str, (ROOT / "build" / "jars").glob("*.jar")))
    conf = {**SMALL_QUERIES, "spark.jars": jars, "spark.master": "local[1]"}
    chosen = " ".join(f"--conf {key}={value}" for key, value in conf.items())
    submit = f"--properties-file {ROOT}/conf/spark-defaults.conf {chosen} pyspark-shell"
    paths = [str(directory / "in"), str(directory / "out"), "--model", str(DEMO), "--files", "1"]
    environment = {
        **os.environ,
        "PYSPARK_SUBMIT_ARGS": submit,
        "PYTHONPATH": str(ROOT / "jobs"),
        "PYSPARK_PYTHON": sys.executable,
    }
    log = (directory / "log").open("ab")
    # Start a separate process group, so that Python, Java, workers and taggers can be killed together.
    return subprocess.Popen(
        [sys.executable, str(STREAM), *paths], env=environment, stdout=log, stderr=log, start_new_session=True
    )


def count_mentions(directory: Path) -> Counter[str]:
    table = directory / "out" / "mentions"
    if not (table / "_delta_log").is_dir() or not list((table / "_delta_log").glob("*.json")):
        return Counter()
    return Counter(DeltaTable(table).to_pyarrow_table()["id"].to_pylist())


@pytest.mark.deep
def test_a_stream_that_is_killed_goes_on_without_loss(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        pq.write_table(pa.table({"id": [str(number)], "text": [TEXT]}), tmp_path / "in" / f"{number}.parquet")
    stream, deadline = start_stream(tmp_path), time.monotonic() + SECONDS
    while not count_mentions(tmp_path):
        assert stream.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
        time.sleep(0.05)
    os.killpg(stream.pid, signal.SIGKILL)
    stream.wait()
    assert 0 < len(count_mentions(tmp_path)) < FILES
    assert start_stream(tmp_path).wait(SECONDS) == 0, (tmp_path / "log").read_text()[-3000:]
    assert count_mentions(tmp_path) == {str(number): 2 for number in range(FILES)}


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")  # the kernel chooses a free port, and the client warns about that
def test_the_notebook_with_a_dataframe_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("PYSPARK_", "SPARK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "jobs"))
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    assert "America" in "".join(str(cell.get("outputs", "")) for cell in notebook.cells)


class StandInForDbtsConfig:
    """A stand-in for `dbt.config`: a call sets values, `get` reads the project's."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __call__(self, **values: Any) -> None:
        self.values |= values

    def get(self, name: str) -> str:
        return {"entitymill_model": str(DEMO)}[name]


def find_model(name: str, frame: DataFrame) -> DataFrame:
    assert name == "articles"
    return frame


def test_the_dbt_model_returns_mentions(spark: SparkSession) -> None:
    specification = importlib.util.spec_from_file_location("dbt_mentions", DBT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    articles = spark.createDataFrame([("a", TEXT)], "id string, body string")
    dbt = SimpleNamespace(config=StandInForDbtsConfig(), ref=lambda name: find_model(name, articles))
    found = module.model(dbt, spark).collect()
    assert sorted((row.id, row.entity, row.label) for row in found) == [("a", "Angela Merkel", "PER"), ("a", "Paris", "LOC")]
    assert dbt.config.values == {"materialized": "table"}
