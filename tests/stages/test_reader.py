"""Test that a reader in another process, without Spark, never sees a half-changed document while runs write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from bench.stub_engine import open_stub
from entitymill import settings
from entitymill.run import extraction

ROOT = Path(__file__).parents[2]
DOCUMENTS = 20
READER = """
import json, sys
from pathlib import Path
from delta_reader import read_delta

output, stop = Path(sys.argv[1]), Path(sys.argv[2])
looks, states, between, wrong = 0, set(), 0, []
print("reading", flush=True)
while not stop.exists():
    # In the order in which a unit changes them, backwards: what `documents` tells of must be there by then.
    claimed = read_delta(output / "documents").to_pylist()
    mentions = {}
    for row in read_delta(output / "entities").to_pylist():
        mentions.setdefault(row["doc_id"], []).append(row["entity"])
    looks += 1
    for key, found in mentions.items():
        nights = {entity[1:].split("of")[0] for entity in found}
        if len(found) != 2 or len(nights) != 1:
            wrong.append((key, found))
    wrong += [(row["doc_id"], "claimed, not there") for row in claimed if len(mentions.get(row["doc_id"], ())) != 2]
    states.add(tuple(sorted(min(found) for found in mentions.values())))
    between += len({found[0][1:].split("of")[0] for found in mentions.values()}) > 1
print(json.dumps({"looks": looks, "states": len(states), "between": between, "wrong": wrong[:5]}))
"""


def texts(path: Path, night: int) -> None:
    """Write a source in which each text differs from the night before, and which has one more document for each night."""
    number = DOCUMENTS + night
    words = [f"P{night}of{index} C{night}of{index} x" for index in range(number)]
    pq.write_table(pa.table({"id": [f"d{index:02}" for index in range(number)], "text": words}), path)


@pytest.mark.deep
def test_each_look_finds_whole_documents(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "open_engine", open_stub)
    source, output, stop = tmp_path / "texts.parquet", tmp_path / "out", tmp_path / "stop"
    options = ["source.format=parquet", f"source.path={source}", f"output.path={output}"]

    def run(night: int, *more: str, full: bool = False) -> None:
        texts(source, night)
        extraction.extract(spark, settings.load(None, [*options, *more], {}), full=full)

    run(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-c", READER, str(output), str(stop)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            run(1, "limits.unit_rows=15")
            run(2, full=True)
        finally:
            stop.touch()
        told = json.loads(reader.stdout.read())
    assert told["wrong"] == []
    # The reader looked while the tables changed: after nights, and when only one of two units was of the current night.
    assert told["states"] > 2
    assert told["between"]
