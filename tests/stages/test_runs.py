"""Test what the `runs` table says about an output."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from delta.exceptions import DeltaConcurrentModificationException

from entitymill.run_row import RunRow
from entitymill.tables import Tables
from entitymill.tables.runs import Runs
from entitymill_reports.prometheus_metrics import read_totals

from .conftest import DAY


def add(tables: Tables, number: int, **values: object) -> None:
    row = {"run_id": f"run {number}", "started_at": DAY + timedelta(days=number), "epoch": number, "mode": "compare"}
    tables.append(Runs(tables)._build_frame(RunRow.from_values({**row, **values})), "runs")


def test_an_output_is_of_the_source_whose_run_came_to_its_end(tables: Tables) -> None:
    runs = Runs(tables)
    assert runs.read_record().owner is None
    runs.create()
    add(tables, 1, status="failed", source="/a")
    assert runs.read_record().owner == "/a"
    add(tables, 2, status="done", source="/a")
    add(tables, 3, status="failed", source="/b")
    add(tables, 4, status="done", mode="maintenance")
    seen = runs.read_record()
    assert seen.last is not None
    assert seen.latest is not None
    assert (seen.owner, seen.last.run_id, seen.latest.run_id, seen.epoch) == ("/a", "run 3", "run 4", 4)
    add(tables, 5, status="done", source="/b")
    assert runs.read_record().owner == "/b"


@pytest.mark.parametrize(
    ("rows", "settled"),
    [
        ([], False),
        ([{"status": "done", "settled": True}], True),
        ([{"status": "failed", "settled": False}], False),
        ([{"status": "running"}], False),
        ([{"status": "failed", "settled": False}, {"status": "done", "settled": True, "mode": "maintenance"}], True),
        ([{"status": "done", "settled": True}, {"status": "done", "mode": "none", "epoch": None}], True),
    ],
)
def test_the_run_of_the_greatest_epoch_says_whether_the_tables_are_settled(
    tables: Tables, rows: list[dict[str, Any]], *, settled: bool
) -> None:
    Runs(tables).create()
    for number, row in enumerate(rows, 1):
        add(tables, number, **row)
    assert Runs(tables).read_record().settled == settled


def test_full_runs_that_did_not_end_are_those_since_the_last_that_did(tables: Tables) -> None:
    Runs(tables).create()
    assert Runs(tables).find_unfinished_full_runs("f1") == set()
    add(tables, 1, status="failed", mode="full", fingerprint="f1")
    add(tables, 2, status="done", mode="full", fingerprint="f1")
    add(tables, 3, status="died", mode="full", fingerprint="f1")
    add(tables, 4, status="stopped", mode="full", fingerprint="f2")
    add(tables, 5, status="done", mode="maintenance")
    add(tables, 6, status="failed", mode="full", fingerprint="f1")
    assert Runs(tables).find_unfinished_full_runs("f1") == {"run 3", "run 6"}
    add(tables, 7, status="done", mode="compare", fingerprint="f1")
    assert Runs(tables).find_unfinished_full_runs("f1") == set()


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
    Runs(tables).append_idle(RunRow("idle", DAY, DAY, status="done", mode="none"))
    assert [row["run_id"] for row in tables.read("runs").collect()] == ["idle"]
    assert len(tries) == 2 - effective


def test_the_figures_of_jobs_are_without_maintenance(tables: Tables) -> None:
    Runs(tables).create()
    add(tables, 1, status="done", documents=3)
    add(tables, 2, status="failed", documents=0)
    add(tables, 3, status="done", mode="maintenance")
    add(tables, 4, status="done", mode=None)  # of an older version
    totals = read_totals(tables)
    assert totals is not None
    assert (totals.runs, totals.documents) == ({"done": 2, "failed": 1}, 3)


def test_a_run_with_nothing_to_do_is_a_success_and_raises_no_counter(tables: Tables) -> None:
    """`optimize` deletes its row, and Prometheus would take a smaller counter for a reset."""
    Runs(tables).create()
    add(tables, 1, status="done", documents=3, ended_at=DAY)
    add(tables, 2, status="done", mode="none", ended_at=DAY + timedelta(hours=1))
    totals = read_totals(tables)
    assert totals is not None
    assert totals.runs == {"done": 1}
    assert totals.last_success == (DAY + timedelta(hours=1)).timestamp()
