from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_home import Home

# Importing Airflow creates and reads AIRFLOW_HOME.
_SCRATCH = tempfile.mkdtemp(prefix="entitymill-airflow-")
os.environ |= {"AIRFLOW_HOME": _SCRATCH, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}


def pytest_unconfigure() -> None:
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Yield an Airflow installation with its own Postgres; all its processes end with the test."""
    made = Home(tmp_path)
    try:
        made.start_postgres()
        made.airflow("db", "migrate")
        yield made
    finally:
        made.stop()
