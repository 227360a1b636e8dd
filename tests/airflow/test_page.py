"""docs/airflow.md, from the laptop to the scheduler's page: its first block as it is typed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from airflow_home import ROOT, Home, wait_for
from deltalake import DeltaTable

from pages import block

DONE_BY_MAKE = ("make run ", "python3 -m venv ", ".venv-airflow/bin/python -m pip ")
NOT_THE_PAGES = ("ENTITYMILL_TABLES", "AIRFLOW_CONN_SPARK_DEFAULT", "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION")


def test_the_pages_first_block(tmp_path: Path) -> None:
    lines = block("docs/airflow.md", "AIRFLOW_CONN_SPARK_DEFAULT").splitlines()
    assert all(line.startswith(start) for line, start in zip(lines, DONE_BY_MAKE, strict=False))
    *typed, standalone = lines[len(DONE_BY_MAKE) :]
    exports = [line for line in typed if line.startswith("export ")]
    home = Home(tmp_path)
    own = {"HOME": str(tmp_path), "AIRFLOW__API__HOST": "127.0.0.1", "AIRFLOW__API__PORT": str(home.port)}
    for name in NOT_THE_PAGES:
        del home.environment[name]
    home.environment |= own

    done = subprocess.run(
        ["bash", "-euc", "\n".join(typed)],
        cwd=ROOT, env=home.environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    [last] = DeltaTable(str(ROOT / "build" / "demo" / "runs")).to_pyarrow_table().sort_by("started_at").to_pylist()[-1:]
    assert (last["status"], last["run_id"] in done.stdout) == ("done", True)

    home.start_command("bash", "-euc", "\n".join([*exports, f"exec {standalone}"]), directory=ROOT)
    try:
        found: list[dict[str, Any]] = wait_for(lambda: _dags(home), "the DAGs of a standalone Airflow", 180)
    finally:
        home.stop()
    assert {dag["dag_id"]: dag["is_paused"] for dag in found}["extract_speeches"]


def _dags(home: Home) -> list[dict[str, Any]]:
    if not home.log_in():
        return []
    _, answer = home.api("/api/v2/dags")
    found: list[dict[str, Any]] = answer.get("dags", [])
    return found if "extract_speeches" in {dag["dag_id"] for dag in found} else []
