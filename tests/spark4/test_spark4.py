"""Test that the same command lines over one source write the same rows on Spark 3.5, 4.0 and 4.1."""

from __future__ import annotations

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from page_code import read_code_block
from spark4.both import (
    NEW,
    NEW_ON_PYTHON_3_12,
    NEWEST,
    OLD,
    RELEASES,
    ROOT,
    TEXTS,
    Spark,
    assert_equal,
    change,
    clean_environment,
    held,
    make,
    rows,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("source") / "texts")


@pytest.mark.parametrize(("spark", "version"), [(NEW_ON_PYTHON_3_12, "3.12"), (NEWEST, "3.13")])
def test_newer_sparks_run_on_newer_pythons(spark: Spark, version: str) -> None:
    """The test is skipped if `make` did not find this Python; `make` then leaves a file that says so."""
    fallback = spark.python.parents[1] / "another-python"
    if fallback.exists():
        pytest.skip(fallback.read_text().strip())
    command = [str(spark.python), "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
    ended = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == version


def test_all_tables_are_the_same_on_all_releases(source: Path, tmp_path: Path) -> None:
    outputs = {spark.name: tmp_path / spark.name for spark in RELEASES}

    def run(*flags: str, moved: int = 0) -> None:
        works = [(spark, outputs[RELEASES[(place + moved) % len(RELEASES)].name]) for place, spark in enumerate(RELEASES)]
        with ThreadPoolExecutor(2) as two:  # each run spends half of its time on starting Spark
            list(two.map(lambda work: work[0].bring_up(work[1], source, *flags), works))
        for spark in RELEASES[1:]:
            assert_equal(outputs[OLD.name], outputs[spark.name])

    run()
    first = held(outputs[NEW.name], "entities")
    change(source)
    # Each release continues the output of another release: upgrades and downgrades.
    run(moved=1)
    assert held(outputs[NEW.name], "entities") != first

    for output in outputs.values():
        found = held(output, "runs")
        assert [row["mode"] for row in found] == ["first", "feed"]
        assert [row["documents"] for row in found] == [35, 9]
        assert {row["doc_id"] for row in held(output, "documents")}.isdisjoint({"5", "31", "100", "101"})
    codes = [row["code"] for row in held(outputs[NEW.name], "rejects")]
    assert codes == ["duplicate_id", "duplicate_id", "null_id", "null_text"]
    mentions = held(outputs[NEW.name], "entities")
    assert len(mentions) > len(TEXTS)
    assert {"Angela Merkel", "Berlin"} <= {row["entity"] for row in mentions}


@pytest.mark.parametrize("installs", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_a_stranger_on_the_newest_spark_runs_the_commands_of_the_page(tmp_path: Path, installs: bool) -> None:
    """The page's settings and commands must work; the quick test has another interpreter instead of the first command's."""
    pq.write_table(rows({1: "Angela Merkel flew to Paris."}), tmp_path / "articles")
    config = tmp_path / "mine.yaml"
    config.write_text(read_code_block("docs/cluster.md", "/data/articles").replace("/data", str(tmp_path)))
    install, extract = map(shlex.split, read_code_block("docs/cluster.md", ".venv-spark41/bin/python").splitlines())
    command = [str(config) if word == "conf/mine.yaml" else word for word in extract]
    if installs:
        subprocess.run(install, cwd=ROOT, env=clean_environment(), check=True)
    else:
        command[0] = str(NEWEST.python)
    ended = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert [row["entity"] for row in held(tmp_path / "out", "entities")] == ["Angela Merkel", "Paris"]


def test_another_sparks_delta_is_one_sentence(source: Path, tmp_path: Path) -> None:
    ended = Spark("4.0", NEW.python, OLD.jars).run(tmp_path / "out", source)
    assert ended.returncode == 1
    assert "delta-spark_2.12-3.3.3.jar does not fit Spark 4.0" in ended.stderr
    assert "use io.delta:delta-spark_2.13:4.0.1 (local runs: `entitymill fetch-jars --spark 4.0 --to" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_damaged_file_is_named_on_spark_4_too(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    pq.write_table(rows({1: "Paris"}), texts / "good.parquet")
    content = (texts / "good.parquet").read_bytes()
    (texts / "bad.parquet").write_bytes(content[:200] + bytes(len(content) - 200 - 8) + content[-8:])
    ended = NEW.run(tmp_path / "out", texts, source_format="parquet")
    assert ended.returncode == 3, ended.stderr
    assert "bad.parquet is damaged" in ended.stderr or "one of its files is damaged" in ended.stderr
    assert not (tmp_path / "out" / "documents").exists()
