"""Test the task's command line with the Python packages of the runtime, in a process that already has a Spark session."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import bundle

RUNTIME = bundle.ROOT / ".venv-databricks" / "bin" / "python"
TEXT = "Angela Merkel met Emmanuel Macron in Paris."


def test_the_packages_are_those_of_the_runtime() -> None:
    listed = subprocess.run(
        [str(RUNTIME), "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, timeout=60, check=True
    ).stdout.lower()
    published = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (Path(__file__).parent / "runtime.txt").read_text(), re.MULTILINE))
    installed = {name.replace("_", "-"): version for name, version in re.findall(r"^(\S+)==(\S+)$", listed, re.MULTILINE)}
    for name in ("numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "pyspark"):
        assert installed[name] == published[name]


def test_the_task_runs_in_a_session_that_is_there(wheel: Path, tmp_path: Path) -> None:
    library, stub = tmp_path / "library", Path(__file__).with_name("runtime_stub.py")
    pip = [str(RUNTIME), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(library)]
    subprocess.run([*pip, str(wheel)], timeout=120, check=True)
    arguments = bundle.command_line(
        "prod",
        source="spark_catalog.raw.articles",
        output_schema="spark_catalog.articles_out",
        model=str(bundle.ROOT / "models" / "demo"),
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    done = subprocess.run(
        [str(RUNTIME), str(stub), str(bundle.ROOT / "build" / "jars"), str(tmp_path), TEXT, *arguments],
        env={**environment, "PYTHONPATH": str(library)},
        cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).removeprefix("RESULT"))
    assert seen["package"].startswith(str(library))
    assert seen["spark"] == "3.5.2"
    assert seen["failed"] == []
    assert seen["same"]
    assert seen["entities"] == ["Angela Merkel", "Emmanuel Macron", "Paris"]
    assert seen["modes"] == ["first", "none"]
    assert "EXIT 3" in done.stdout
