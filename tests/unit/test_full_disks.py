"""Test that a full disk is reported in one sentence with its path, but not if only an error message mentions one."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from entitymill.errors import StorageError
from entitymill.run import exit_codes
from entitymill.spark import files_on_this_machine

SAID = "org.apache.spark.SparkException: Job aborted: Lost task 0.0: java.io.IOException: No space left on device"


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Watch two directories, and none that other tests of this process have watched."""
    monkeypatch.setattr(files_on_this_machine, "_watched", {})
    files_on_this_machine.register_directory(f"file:{tmp_path}/out/new", "output.path")
    files_on_this_machine.register_directory("s3a://lake/out", "output.path")
    return tmp_path


def make_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))


def test_an_error_of_this_process_needs_no_look_at_the_disk() -> None:
    """An OSError of this process must count without a check of the disk, because an exceeded quota leaves free space."""
    said = exit_codes.convert_error(OSError(errno.EDQUOT, "quota", "/lake/page.html"))
    assert isinstance(said, StorageError)
    assert str(said).startswith("/lake/page.html: there is no space left; published data is intact")


@pytest.mark.parametrize("error", [RuntimeError(SAID), OSError(errno.ENOSPC, "no room"), OSError(errno.EDQUOT, "quota")])
def test_a_full_disk_is_named(error: Exception, watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_full(monkeypatch)
    said = exit_codes.convert_error(error)
    assert isinstance(said, StorageError)
    assert f"output.path: the disk of {watched}/out/new is full" in str(said)
    assert "s3a" not in str(said)


def test_words_alone_are_no_full_disk() -> None:
    """If the disk has free space, a message about a full disk must not count, because Spark's errors may quote documents."""
    assert not isinstance(exit_codes.convert_error(RuntimeError(SAID)), StorageError)


def test_other_errors_on_a_full_disk_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    make_full(monkeypatch)
    assert not isinstance(exit_codes.convert_error(RuntimeError("division by zero")), StorageError)
    assert not isinstance(exit_codes.convert_error(OSError(errno.EACCES, "denied")), StorageError)
