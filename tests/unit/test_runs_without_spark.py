"""Delta tables are read without Spark: whatever the partitions' names, and without a crash when the process ends."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyarrow.fs import LocalFileSystem

from entitymill.tables.runs_without_spark import open_dataset

ROWS = [{"id": str(i), "part": part} for i, part in enumerate(["a b", "ü%", "x/y:z", "a%20b"])]
PROGRAM = """
import sys
from pathlib import Path
from entitymill.tables.runs_without_spark import open_dataset
print(open_dataset(Path(sys.argv[1])).to_table().num_rows)
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a Delta table with one file per row of ROWS, and return its directory."""
    write_deltalake(tmp_path / "table", pa.Table.from_pylist(ROWS), partition_by=["part"])
    return tmp_path / "table"


def test_all_rows_are_read_whatever_their_partitions_names(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    for path in (table, Path("table")):
        assert sorted(open_dataset(path).to_table().to_pylist(), key=lambda row: row["id"]) == ROWS


def test_a_process_that_ends_right_after_reading_succeeds(table: Path) -> None:
    # With deltalake's own file system, about one of three such processes aborted, so several are started.
    assert isinstance(open_dataset(table).filesystem.base_fs, LocalFileSystem)
    for _ in range(8):
        command = [sys.executable, "-c", PROGRAM, str(table)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, str(len(ROWS)), "")


def test_a_shallow_clone_is_left_to_spark(table: Path) -> None:
    [log] = (table / "_delta_log").glob("*.json")
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["path"] = f"file:{table}/{action['add']['path']}"
    log.write_text("\n".join(json.dumps(action) for action in actions))
    with pytest.raises(ValueError, match="shallow clone"):
        open_dataset(table)
