"""The same command lines on Spark 3.5 and on Spark 4.0, on one source: all tables are the same, row by row.

The source is made and changed without Spark; so are the tables read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from delta_reader import read_delta
from small_queries import SMALL_QUERIES
from truth import paragraphs

ROOT = Path(__file__).parents[2]
TEXTS = paragraphs(40)
ODD = [
    "",
    " \n\t",
    "Zoë 👩‍👩‍👧 met José Álvarez in São Paulo;\r\nthen flew to 東京, Japan.",
    "A\x00B Corp. of Paris. " + "Mr. Smith went to Washington, D.C. " * 60,
]
RUN = {
    "epoch",
    "process",
    "run_id",
    "processed_at",
    "at",
    "started_at",
    "ended_at",
    "seconds",
    "sentences_per_second",
    "settings",
}
"""Columns that tell of a run, not of what it found."""
KEYS = {
    "entities": ["doc_id", "begin"], "documents": ["doc_id"], "rejects": ["code", "doc_id"], "annotations": ["doc_id"],
    "runs": ["started_at"],
}  # fmt: skip
CONFIDENCE = 1e-5
PROBABILITY = re.compile(r"[01]\.\d+(E-\d+)?|\d\.\d+E-\d+")
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("day", pa.date32()), ("tags", pa.list_(pa.string()))])


@dataclass
class Spark:
    """One of the two environments."""

    name: str
    python: Path
    jars: Path

    def run(self, output: Path, source: Path, *flags: str, source_format: str = "delta") -> subprocess.CompletedProcess[str]:
        """The job's own command line, in a process that knows of no other Spark."""
        settings = {
            "source.format": source_format, "source.path": source, "source.passthrough": "[day, tags]",
            "output.path": output, "output.annotations": "true", "model.path": ROOT / "models" / "demo",
            "segmentation.model": ROOT / "models" / "sentence_detector", "limits.max_reject_ratio": "0.2",
            "spark.master": "local[2]", "spark.jars": self.jars, "spark.conf.spark.driver.memory": "1g",
            **{f"spark.conf.{key}": value for key, value in SMALL_QUERIES.items()},
            "log": f"{output}.log",
        }  # fmt: skip
        overrides = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        command = [str(self.python), str(ROOT / "jobs" / "extract_entities.py"), *overrides, *flags]
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_", "PYTHON"))
        }
        return subprocess.run(
            command, cwd=output.parent, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    def bring_up(self, output: Path, source: Path, *flags: str) -> None:
        ended = self.run(output, source, *flags)
        assert ended.returncode == 0, (self.name, ended.stdout, ended.stderr[-3000:])


OLD = Spark("3.5", Path(sys.executable), ROOT / "build" / "jars")
NEW = Spark("4.0", ROOT / ".venv-spark4" / "bin" / "python", ROOT / "build" / "jars-spark4")


def rows(texts: Mapping[int | None, str | None]) -> pa.Table:
    days = [date(2026, 11, 1 + (key or 0) % 28) for key in texts]
    tags = [["a", "b"][: (key or 0) % 3] for key in texts]
    return pa.table([list(texts), list(texts.values()), days, tags], schema=SCHEMA)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "texts"
    texts: dict[int | None, str | None] = dict(enumerate([*TEXTS[:30], *ODD]))
    texts |= {100: None, None: "An id is missing."}
    write_deltalake(path, rows(texts), configuration={"delta.enableChangeDataFeed": "true"})
    write_deltalake(path, rows({101: "Twice in Rome.", 102: "x" * 20}), mode="append")
    write_deltalake(path, rows({101: "Twice in Oslo."}), mode="append")
    return path


def change(source: Path) -> None:
    """An update, a deletion, rows appended: one commit each."""
    table = DeltaTable(source)
    table.update(predicate="id IN (3, 7, 11)", updates={"text": "concat('In Berlin, Angela Merkel said: ', text)"})
    table.delete("id IN (5, 31)")
    write_deltalake(source, rows(dict(enumerate(TEXTS[30:36], 200))), mode="append")


def held(output: Path, name: str) -> list[dict[str, object]]:
    found = read_delta(output / name).to_pylist()
    found.sort(key=lambda row: [f"{row[key]:09}" if isinstance(row[key], int) else str(row[key]) for key in KEYS[name]])
    return [{key: value for key, value in row.items() if key not in RUN} for row in found]


def assert_equal(here: Path, there: Path) -> None:
    for name in KEYS:
        mine, others = held(here, name), held(there, name)
        assert len(mine) == len(others), name
        for a, b in zip(mine, others, strict=True):
            assert close(a, b), (name, a, b)
        assert schema_of(here, name) == schema_of(there, name), name


def close(a: object, b: object) -> bool:
    """Equal, but for probabilities, which may differ in the last digits; Spark NLP's columns have them as text."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, str) and isinstance(b, str) and PROBABILITY.fullmatch(a) and PROBABILITY.fullmatch(b):
        return abs(float(a) - float(b)) < CONFIDENCE
    return abs(a - b) < CONFIDENCE if isinstance(a, float) and isinstance(b, float) else a == b


def schema_of(output: Path, name: str) -> list[tuple[str, str, bool, str]]:
    """Names, types, NOT NULL and comments."""
    fields = DeltaTable(output / name).schema().fields
    return [(field.name, str(field.type), field.nullable, str(field.metadata)) for field in fields]


def test_all_tables_are_the_same_on_both(source: Path, tmp_path: Path) -> None:
    outputs = {OLD.name: tmp_path / "old", NEW.name: tmp_path / "new"}

    def run(*flags: str, swapped: bool = False) -> None:
        for spark, name in ((OLD, NEW.name if swapped else OLD.name), (NEW, OLD.name if swapped else NEW.name)):
            spark.bring_up(outputs[name], source, *flags)
        assert_equal(*outputs.values())

    run()
    first = held(outputs[NEW.name], "entities")
    change(source)
    run()
    assert held(outputs[NEW.name], "entities") != first
    run("--full")
    # Each goes on where the other was: a move to Spark 4, and back.
    write_deltalake(source, rows(dict(enumerate(TEXTS[36:], 300))), mode="append")
    run(swapped=True)

    for output in outputs.values():
        found = held(output, "runs")
        assert [row["mode"] for row in found] == ["first", "feed", "full", "feed"]
        assert [row["documents"] for row in found] == [35, 9, 39, 4]
        assert {row["doc_id"] for row in held(output, "documents")}.isdisjoint({"5", "31", "100", "101"})
    codes = [row["code"] for row in held(outputs[NEW.name], "rejects")]
    assert codes == ["duplicate_id", "duplicate_id", "null_id", "null_text"]
    mentions = held(outputs[NEW.name], "entities")
    assert len(mentions) > len(TEXTS)
    assert {"Angela Merkel", "Berlin"} <= {row["entity"] for row in mentions}


def test_another_sparks_delta_is_one_sentence(source: Path, tmp_path: Path) -> None:
    ended = Spark("4.0", NEW.python, OLD.jars).run(tmp_path / "out", source)
    assert ended.returncode == 1
    assert "delta-spark_2.12-3.3.3.jar does not fit Spark 4.0" in ended.stderr
    assert "use io.delta:delta-spark_2.13:4.0.1 (local runs: `make jars-spark4`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_damaged_file_is_named_on_spark_4_too(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    pq.write_table(rows({1: "Paris"}), texts / "good.parquet")
    content = (texts / "good.parquet").read_bytes()
    (texts / "bad.parquet").write_bytes(content[:200] + bytes(len(content) - 200 - 8) + content[-8:])
    ended = NEW.run(tmp_path / "out", texts, source_format="parquet")
    assert ended.returncode == 3, ended.stderr
    assert "bad.parquet is damaged" in ended.stderr or "a file there is damaged" in ended.stderr
    assert not (tmp_path / "out" / "documents").exists()
