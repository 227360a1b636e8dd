"""The record of runs: what it says of an output."""

from __future__ import annotations

from datetime import timedelta

from entitymill.tables import Tables
from entitymill.tables.runs import Runs

from .conftest import DAY


def add(tables: Tables, number: int, **values: object) -> None:
    row = {"run_id": f"run {number}", "started_at": DAY + timedelta(days=number), "epoch": number, "mode": "compare"}
    tables.append(Runs(tables)._frame({**row, **values}), "runs")


def test_an_output_is_of_the_source_whose_run_came_to_its_end(tables: Tables) -> None:
    runs = Runs(tables)
    assert runs.look().owner is None
    runs.create()
    add(tables, 1, status="failed", source="/a")
    assert runs.look().owner == "/a"
    add(tables, 2, status="done", source="/a")
    add(tables, 3, status="failed", source="/b")
    seen = runs.look()
    assert (seen.owner, seen.last["run_id"]) == ("/a", "run 3")
    add(tables, 4, status="done", source="/b")
    assert runs.look().owner == "/b"


def test_a_run_with_nothing_to_do_is_recorded_once_though_its_commit_is_tried_again(tables: Tables) -> None:
    for _ in range(2):
        Runs(tables).idle({"run_id": "idle", "started_at": DAY, "ended_at": DAY, "status": "done", "mode": "none"})
    assert [row["run_id"] for row in tables.read("runs").collect()] == ["idle"]
