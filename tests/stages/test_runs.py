"""The record of runs: what it says of an output."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from delta.exceptions import DeltaConcurrentModificationException

from entitymill.reporting.metrics import read_totals
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
    add(tables, 4, status="done", mode="maintenance")
    seen = runs.look()
    assert seen.last is not None
    assert seen.latest is not None
    assert (seen.owner, seen.done, seen.last["run_id"], seen.latest["run_id"]) == ("/a", 2, "run 3", "run 4")
    add(tables, 5, status="done", source="/b")
    seen = runs.look()
    assert (seen.owner, seen.done) == ("/b", 5)


@pytest.mark.parametrize("effective", [True, False])
def test_a_run_with_nothing_to_do_is_recorded_once_though_its_commit_is_tried_again(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, effective: bool
) -> None:
    append, tries = Tables.append, []

    def fails_once(of: Tables, *rest: Any) -> None:
        tries.append("one")
        if effective or len(tries) > 1:
            append(of, *rest)
        if len(tries) == 1:
            raise DeltaConcurrentModificationException("or so the storage says", "")

    monkeypatch.setattr(Tables, "append", fails_once)
    Runs(tables).idle({"run_id": "idle", "started_at": DAY, "ended_at": DAY, "status": "done", "mode": "none"})
    assert [row["run_id"] for row in tables.read("runs").collect()] == ["idle"]
    assert len(tries) == 2 - effective


def test_the_figures_of_jobs_are_without_maintenance(tables: Tables) -> None:
    Runs(tables).create()
    add(tables, 1, status="done", documents=3)
    add(tables, 2, status="failed", documents=0)
    add(tables, 3, status="done", mode="maintenance")
    totals = read_totals(tables)
    assert totals is not None
    assert (totals.runs, totals.documents) == ({"done": 1, "failed": 1}, 3)
