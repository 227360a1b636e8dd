"""Test the first code block of docs/airflow.md, as a user types it: a run, then a standalone Airflow with the page's DAG."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from airflow_home import ROOT, Home, wait_for
from deltalake import DeltaTable

from page_code import read_code_block

DONE_BY_MAKE = ("make run ", "python3 -m venv ", ".venv-airflow/bin/python -m pip ")
ALONE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
"""Prefix of a command that gets its own network, because the log servers of `airflow standalone` listen on every address."""


def test_the_pages_first_block(tmp_path: Path) -> None:
    lines = read_code_block("docs/airflow.md", "AIRFLOW_CONN_SPARK_DEFAULT").splitlines()
    assert all(line.startswith(start) for line, start in zip(lines, DONE_BY_MAKE, strict=False))
    *typed, standalone = lines[len(DONE_BY_MAKE) :]
    exports = [line for line in typed if line.startswith("export ")]
    home = Home(tmp_path)
    theirs = {name: value for name, value in home.environment.items() if not name.startswith(("AIRFLOW", "ENTITYMILL"))}
    home.environment = {**theirs, "HOME": str(tmp_path)}

    done = subprocess.run(
        ["bash", "-euc", "\n".join(typed)],
        cwd=ROOT, env=home.environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    [last] = DeltaTable(str(ROOT / "build" / "demo" / "runs")).to_pyarrow_table().sort_by("started_at").to_pylist()[-1:]
    assert (last["status"], last["run_id"] in done.stdout) == ("done", True)

    printed = home.start_command(
        *ALONE, "bash", "-euc", "\n".join(["ip link set lo up", *exports, f"exec {standalone}"]), directory=ROOT
    )
    try:
        wait_for(lambda: "Airflow is ready" in printed.read_text(errors="replace"), "a standalone Airflow", 400)
        found = wait_for(lambda: _dags(tmp_path / "airflow" / "airflow.db"), "its DAGs", 300)
    finally:
        home.stop()
    assert found["extract_speeches"] == 1, "paused"


def _dags(database: Path) -> dict[str, int]:
    """Return DAG id -> 1 if the DAG is paused, otherwise 0; empty until the page's DAG is listed."""
    with closing(sqlite3.connect(database)) as connection:
        found = dict(connection.execute("SELECT dag_id, is_paused FROM dag").fetchall())
    return found if "extract_speeches" in found else {}
