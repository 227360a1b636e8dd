"""Test the private directory of a process: its permissions, and its deletion after a clean exit and after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import pytest

from entitymill.spark import files_on_this_machine, jvm_launch

PROGRAM = """
import sys, time
from pathlib import Path
from entitymill.spark.files_on_this_machine import open_private_directory
print(open_private_directory(Path(sys.argv[1])), flush=True)
(open_private_directory(Path(sys.argv[1])) / "blockmgr-1").mkdir()
if sys.argv[2] == "wait":
    time.sleep(300)
"""


def start(parent: Path, what: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(parent), what], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_only_this_user_can_read_it_and_a_clean_exit_deletes_it(tmp_path: Path) -> None:
    process, directory = start(tmp_path / "new" / "parent", "leave")
    assert process.wait(60) == 0
    assert (directory.parent, directory.exists()) == (tmp_path / "new" / "parent", False)

    process, directory = start(tmp_path, "wait")
    assert directory.stat().st_mode & 0o777 == 0o700
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert directory.exists()


def test_the_next_process_deletes_it_after_a_kill_and_never_before(tmp_path: Path) -> None:
    living, in_use = start(tmp_path, "wait")
    killed, left_behind = start(tmp_path, "wait")
    killed.kill()
    killed.wait(60)
    stranger = tmp_path / "entitymill-process-of-somebody"
    stranger.mkdir()
    (tmp_path / "entitymill-process-link").symlink_to(in_use)

    files_on_this_machine.delete_unused(tmp_path)

    assert (in_use.exists(), left_behind.exists(), stranger.exists()) == (True, False, True)
    os.kill(living.pid, signal.SIGSTOP)  # a frozen process still needs it
    files_on_this_machine.delete_unused(tmp_path)
    assert in_use.exists()
    living.kill()
    living.wait(60)
    files_on_this_machine.delete_unused(tmp_path)
    assert not in_use.exists()


def test_a_directory_that_another_process_takes_for_left_behind_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process looks for unused directories when this one has created its directory, but not locked it yet."""
    lock = files_on_this_machine._lock
    taken: list[Path] = []

    def lock_late(directory: Path) -> IO[str]:
        if not taken:
            taken.append(directory)
            (directory / files_on_this_machine._LOCK).touch()
            opened = os.open(directory / files_on_this_machine._LOCK, os.O_RDWR)
            shutil.rmtree(directory)  # by the other process
            return os.fdopen(opened, "w")
        return lock(directory)

    monkeypatch.setattr(files_on_this_machine, "_lock", lock_late)
    directory, held = files_on_this_machine._create_locked_directory(tmp_path)
    held.close()
    assert directory.is_dir()
    assert [directory] != taken


@pytest.mark.parametrize(
    ("properties", "variable", "parent"),
    [
        ({}, "", "temporary"),
        ({"spark.local.dir": "chosen"}, "", "chosen"),
        ({"spark.local.dir": "a,b"}, "", None),
        ({}, "x", None),
    ],
)
def test_where_spark_keeps_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, properties: dict[str, str], variable: str, parent: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(files_on_this_machine, "_directories", {})
    monkeypatch.delenv("SPARK_LOCAL_DIRS", raising=False)
    if variable:
        monkeypatch.setenv("SPARK_LOCAL_DIRS", variable)
    found = files_on_this_machine.choose_local_directory(properties).get("spark.local.dir")
    assert (None if found is None else Path(found).resolve().parent) == (None if parent is None else tmp_path / parent)


def test_properties_are_read_as_spark_submit_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "spark.conf"
    file.write_text(
        "# a comment\nspark.local.dir   /big disk\n\nspark.app.name=x\nspark.driver.extraJavaOptions -Da=b -Dc:d\nlone\n"
    )
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"--properties-file {file} pyspark-shell")
    assert jvm_launch.read_file_properties() == {
        "spark.local.dir": "/big disk", "spark.app.name": "x", "spark.driver.extraJavaOptions": "-Da=b -Dc:d",
    }  # fmt: skip
