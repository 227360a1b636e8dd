"""Test DAG runs with real spark-submit and Delta tables, started by `airflow dags test` and by the scheduler."""

from __future__ import annotations

import os
import signal
from datetime import date
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow_home import FOUND, MET, NOBODY, Home, Rows, wait_for
from deltalake import DeltaTable

from entitymill_dags import check
from entitymill_dags.tables import Output

FIRST, SECOND, THIRD = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
SOURCE: Rows = {(FIRST, "a"): MET, (FIRST, "b"): MET, (SECOND, "c"): MET, (SECOND, "d"): NOBODY}
DAG = "extract_speeches"


def expected(rows: Rows) -> list[tuple[str, str, str]]:
    return [(key, *mention) for (_, key), text in sorted(rows.items(), key=lambda row: row[0][1]) for mention in FOUND[text]]


def of(day: date, rows: Rows = SOURCE) -> Rows:
    return {key: text for key, text in rows.items() if key[0] == day}


@pytest.mark.deep
def test_dags_test_runs_one_interval(home: Home) -> None:
    home.write_source(SOURCE)
    home.table()

    printed = home.airflow("dags", "test", DAG, "2026-01-02", timeout=900)

    assert "state=success" in printed or "DagRun Finished" in printed
    assert home.mentions() == expected(of(FIRST))
    _the_check_sees_what_is_wrong(home)


def _the_check_sees_what_is_wrong(home: Home) -> None:
    output = Output(path=str(home.output))
    condition = "`held on` >= DATE '2026-01-01' AND `held on` < DATE '2026-01-02'"
    report = check.read_report(output, condition)
    assert (report["documents"], report["entities"], report["status"]) == (2, 6, "done")
    assert check.find_faults(report, 0.05) == []
    DeltaTable(str(home.output / "entities")).delete("doc_id = 'b' AND label = 'LOC'")
    [fault] = check.find_faults(check.read_report(output, condition), 0.05)
    assert "counts 6 entities, but the table entities has 5 rows" in fault
    with pytest.raises(AirflowFailException, match="covered `held on` >= DATE '2026-01-02'"):
        check.read_report(output, condition.replace("2026-01-02", "2026-01-03").replace("2026-01-01", "2026-01-02"))


def test_the_scheduler_runs_two_intervals_a_killed_task_and_a_backfill(home: Home) -> None:
    home.write_source(SOURCE)
    # Exactly two intervals are due, because of the end date.
    home.table(catchup=True, end_date="2026-01-02")
    home.start()

    _kill_once_something_is_published(home)
    wait_for(lambda: _succeeded(home, DAG, 2), "two scheduled runs", 900)

    assert home.mentions() == expected(SOURCE)
    tries = [_task(home, run, "extract")["try_number"] for run in sorted(home.runs(DAG))]
    assert tries == [2, 1]
    assert sorted(row["status"] for row in home.read("runs")) == ["died", "done", "done"]
    _the_report_is_linked(home)
    _bad_params_are_refused(home)

    changed = {**SOURCE, (FIRST, "b"): NOBODY, (FIRST, "e"): MET, (SECOND, "d"): MET, (THIRD, "f"): MET}
    del changed[(FIRST, "a")]
    home.write_source(changed)
    # The backfill runs the first two days without a pause, so one day's check may run during the other day's run.
    home.airflow(
        "backfill", "create", "--dag-id", DAG, "--from-date", "2026-01-01", "--to-date", "2026-01-02",
        "--reprocess-behavior", "completed",
    )  # fmt: skip
    wait_for(lambda: len(home.read("runs")) == 5 and _succeeded(home, DAG, 2), "the backfill", 600)

    # The slices of these days match the current source. The backfill did not include the third day.
    assert home.mentions() == expected({**of(FIRST, changed), **of(SECOND, changed)})
    wait_for(lambda: _succeeded(home, "follow_speeches", 1), "the DAG that follows the asset", 300)


def _kill_once_something_is_published(home: Home) -> None:
    log = home.output / "entities" / "_delta_log"
    # Version 0 creates the table, and version 1 has the first document.
    wait_for((log / f"{1:020d}.json").exists, "the first unit", 600)
    [java] = [pid for pid, line in home.job_processes() if "org.apache.spark.deploy.SparkSubmit" in line]
    os.kill(java, signal.SIGKILL)
    assert 0 < len(home.mentions()) < len(expected(of(FIRST)))


def _succeeded(home: Home, dag: str, count: int) -> bool:
    states = home.runs(dag)
    assert "failed" not in states.values(), states
    return len(states) >= count and set(states.values()) == {"success"}


def _task(home: Home, run: str, task: str) -> dict[str, Any]:
    return home.api(f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/{task}")[1]


def _the_report_is_linked(home: Home) -> None:
    run = max(home.runs(DAG))
    _, links = home.api(f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/check/links")
    assert links["extra_links"]["Run report"] == f"/dags/{DAG}/runs/{run}/tasks/check/xcom"
    _, report = home.api(f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/check/xcomEntries/report")
    assert "| entities | 3 |" in report["value"]


def _bad_params_are_refused(home: Home) -> None:
    for conf in ({"max_reject_ratio": 7}, {"settings": ["output.path=/elsewhere"]}):
        status, answer = home.api(f"/api/v2/dags/{DAG}/dagRuns", {"logical_date": "2026-01-09T00:00:00Z", "conf": conf})
        assert status in (400, 422), answer
