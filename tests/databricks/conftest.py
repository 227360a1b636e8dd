from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bundle
import pytest

# Importing Airflow, which the DAGs need, creates and reads AIRFLOW_HOME.
_SCRATCH = tempfile.mkdtemp(prefix="entitymill-airflow-")
os.environ |= {"AIRFLOW_HOME": _SCRATCH, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}


def pytest_unconfigure() -> None:
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the bundle's build command, in a copy of its sources, and return the path of the wheel."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements-build.lock"):
        shutil.copy(bundle.ROOT / name, place)
    shutil.copytree(bundle.ROOT / "jobs", place / "jobs", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    artifact = bundle.top()["artifacts"]["entitymill"]
    where = place / artifact["path"]
    where.mkdir(exist_ok=True)
    build = artifact["build"].replace("python3", shlex.quote(sys.executable))
    subprocess.run(["bash", "-c", build], cwd=where, timeout=300, check=True)
    [made] = (where / "dist").glob("*.whl")
    return made
