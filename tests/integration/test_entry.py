"""Test the entry script with the spark-submit command in docs/operating.md; only its settings are replaced."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from delta_reader import read_delta
from page_code import read_code_block

from .conftest import ROOT, Job


@pytest.mark.deep
def test_spark_submit_runs_the_same_job(job: Job) -> None:
    job.texts([("a", "Angela Merkel met Emmanuel Macron in Paris.")])
    config = job.directory / "articles.yaml"
    config.write_text("log: stderr\n")
    options = ["--config", str(config), *(item for option in job.options() for item in ("--set", option))]
    typed = read_code_block("docs/operating.md", "spark-submit --properties-file")
    typed = typed.replace("--config conf/articles.yaml", shlex.join(options))
    # Remove the variables that PySpark set for this process's JVM, because spark-submit starts another JVM.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    scratch = job.directory / "tmp"
    scratch.mkdir()
    environment |= {"PATH": path, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "TMPDIR": str(scratch)}

    done = subprocess.run(
        ["bash", "-euc", typed],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    assert "sentences/s" in done.stdout
    assert "source took" in done.stdout, "spark-submit joins what Python writes to its two streams"
    assert len((done.stdout + done.stderr).splitlines()) < 100, "Spark's own log is quiet"
    table = read_delta(job.output / "entities").sort_by("begin")
    assert table["entity"].to_pylist() == ["Angela Merkel", "Emmanuel Macron", "Paris"]
    assert list(scratch.iterdir()) == [], "a run that goes well leaves nothing"


@pytest.mark.deep
def test_the_line_of_the_crontab_works_in_another_directory(job: Job) -> None:
    """The settings name only source and output: jars, model and detector are those of the repository."""
    job.texts([("a", "Angela Merkel met Emmanuel Macron in Paris.")])
    config = job.directory / "articles.yaml"
    source = {"format": "parquet", "path": f"{job.directory}/texts.parquet"}
    config.write_text(json.dumps({"source": source, "output": {"path": str(job.output)}}))
    line = read_code_block("docs/operating.md", "0 2 * * *").split(maxsplit=5)[-1].strip()
    assert f"ExecStart={line}" in read_code_block("docs/operating.md", "ExecStart").splitlines()
    command = line.replace("/srv/entity-mill/.venv/bin", str(Path(sys.executable).parent))
    command = command.replace("/srv/entity-mill/conf/articles.yaml", str(config))
    environment = {"PATH": os.environ["PATH"], "HOME": str(job.directory), "SPARK_LOCAL_IP": "127.0.0.1"}
    elsewhere = job.directory / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        ["sh", "-c", command], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_delta(job.output / "entities").num_rows == 3
    assert {path.name for path in elsewhere.iterdir()} <= {"spark-warehouse"}  # Spark itself creates this directory
