"""Test what the pages tell new users to do with pandas, a DataFrame, a spreadsheet and Label Studio.

tests/spark4/test_spark4.py has such a test for Spark 4.1.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from entitymill import cli
from expected_tables import TEXT_POOL
from integration.conftest import ROOT, Job
from page_code import read_code_block

MINUTES = 5


@pytest.fixture(autouse=True)
def in_five_minutes() -> Iterator[None]:
    """Fail a test whose steps take longer than the title of this file says; usually, they take seconds."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < MINUTES * 60


@pytest.fixture(scope="module")
def filled(module_job: Job) -> Job:
    texts = TEXT_POOL[:9]
    filled = module_job.texts(pa.table({"id": [f"d{at}" for at in range(len(texts))], "text": list(texts)}))
    filled.run()
    return filled


@pytest.fixture
def config(filled: Job, tmp_path: Path) -> Path:
    """Write a settings file with absolute paths, as `entitymill init` does, and return its path."""
    sections: dict[str, dict[str, Any]] = {}
    for option in filled.options(f"log={tmp_path}/log"):
        key, _, value = option.partition("=")
        section, _, name = key.rpartition(".")
        sections.setdefault(section, {})[name] = json.loads(value) if value[:1] in "0123456789" else value
    file = tmp_path / "articles.yaml"
    file.write_text(json.dumps(sections.pop("") | sections))
    return file


def test_a_stranger_with_pandas(filled: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code in docs/queries.md that reads the tables, and the code in README.md for a single text, must work."""
    entities = filled.read("entities").collect()
    names: dict[str, Any] = {"output": filled.output}
    run_code(read_code_block("docs/queries.md", "pl.read_delta"), names)
    assert len(names["entities"]) == len(entities)
    run_code(read_code_block("docs/queries.md", "QueryBuilder"), names)
    assert sorted(names["entities"].to_pandas()["entity"]) == sorted(row["entity"] for row in entities)
    assert len(names["documents"].to_pandas()) == filled.read("documents").count()
    monkeypatch.chdir(ROOT)
    run_code(read_code_block("README.md", "entitymill.load"), names)
    [mention, *_] = names["tagger"]("Angela Merkel flew to Paris.")
    assert (mention.begin, mention.end, mention.entity, mention.label) == (0, 13, "Angela Merkel", "PER")


@pytest.mark.deep
def test_a_stranger_with_an_empty_environment(filled: Job, tmp_path: Path) -> None:
    """What docs/queries.md says to install must be enough for its code; this downloads the packages."""
    page = (ROOT / "docs" / "queries.md").read_text(encoding="utf8")
    packages = [word for found in re.findall(r"`pip\s+install ([^`]+)`", page) for word in shlex.split(found)]
    assert "polars" in packages
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    blocks = [read_code_block("docs/queries.md", mark) for mark in ("pl.read_delta", "QueryBuilder")]
    code = (
        f"output = {str(filled.output)!r}\n{blocks[0]}\nprint(len(entities))\n{blocks[1]}\nprint(len(entities.to_pandas()))"
    )
    ended = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(filled.read("entities").count())] * 2


def test_a_stranger_with_a_dataframe(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"id": ["a", "b"], "body": ["Angela Merkel flew to Paris.", "Nobody."]}
    pq.write_table(pa.table(texts), tmp_path / "articles")
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    try:
        block = read_code_block("docs/python.md", "entitymill.mentions(").replace("/data/articles", f"{tmp_path}/articles")
        *statements, last = block.strip().splitlines()
        run_code("\n".join([*statements, f"exploded = {last}"]), names)
        assert [(row["id"], row["entity"]) for row in names["found"].orderBy("begin").collect()] == [
            ("a", "Angela Merkel"),
            ("a", "Paris"),
        ]
        assert sorted(row["mention"]["entity"] for row in names["exploded"].collect()) == ["Angela Merkel", "Paris"]
    finally:
        spark.catalog.dropTempView("articles")


def test_a_stranger_with_a_spreadsheet(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(config.parent)
    draw, evaluate = read_commands("docs/operating.md", "--reviewed sample.csv", config)
    assert cli.main(draw) == 0
    with Path("sample.csv").open(newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    with Path("sample.csv").open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "correct": "yes" if number else "no"} for number, row in enumerate(rows))
    capsys.readouterr()
    assert cli.main(evaluate) == 0
    assert f"{len(rows) - 1}" in capsys.readouterr().out


def test_a_stranger_with_label_studio(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If reviewers submit all predictions unchanged, `evaluate` must accept the export; this test simulates Label Studio."""
    monkeypatch.chdir(config.parent)
    draw, evaluate = read_commands("docs/operating.md", "--reviewed export.json", config)
    assert cli.main(draw) == 0
    tasks = json.loads(Path("tasks.json").read_text(encoding="utf8"))
    for task in tasks:
        task["annotations"] = [{"result": one["result"]} for one in task["predictions"]]
    Path("export.json").write_text(json.dumps(tasks), encoding="utf8")
    capsys.readouterr()
    assert cli.main(evaluate) == 0
    assert "1.000" in capsys.readouterr().out


def run_code(code: str, names: dict[str, Any]) -> None:
    """Run code from a page with `names` as its global variables; the code may add to them."""
    exec(code, names)  # noqa: S102


def read_commands(page: str, mark: str, config: Path) -> list[list[str]]:
    """Return the arguments of the commands in a block of a page, with this settings file."""
    lines = [shlex.split(line, comments=True) for line in read_code_block(page, mark).splitlines()]
    return [[str(config) if word == "conf/articles.yaml" else word for word in words[1:]] for words in lines if words]
