"""Test that tasks that Spark runs twice, by speculative execution, write no row twice."""

from __future__ import annotations

import json
from pathlib import Path

from expected_tables import ExpectedTables

from . import cluster
from .cluster import Driver
from .conftest import POOL, options, write

SPECULATION = (
    "spark.conf.spark.speculation=true",
    "spark.conf.spark.speculation.interval=20ms",
    "spark.conf.spark.speculation.quantile=0.1",
    "spark.conf.spark.speculation.multiplier=1.01",
    "spark.conf.spark.speculation.minTaskRuntime=0ms",
    "spark.conf.spark.speculation.efficiency.enabled=false",
)


def test_speculative_tasks_double_nothing(truth: ExpectedTables, tmp_path: Path) -> None:
    rows = {f"d{i}": text for i, text in enumerate(POOL)}
    write(tmp_path, dict(rows))
    events = tmp_path / "events"
    events.mkdir()
    log = ("spark.conf.spark.eventLog.enabled=true", f"spark.conf.spark.eventLog.dir={events.as_uri()}")
    chosen = [*options(tmp_path), *SPECULATION, *log, "limits.unit_rows=40"]
    with cluster.standalone(tmp_path) as master:
        assert Driver.start(master, chosen, tmp_path).wait() == 0, (tmp_path / "said.txt").read_text()

    truth.check(tmp_path / "out", rows)
    ends = [json.loads(line) for file in events.iterdir() for line in file.open() if '"SparkListenerTaskEnd"' in line]
    assert sum(end["Task Info"]["Speculative"] for end in ends) > 3
