"""Jars and models of the repository, wherever a command is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from entitymill.settings import sections
from entitymill.spark import repository_files, session, storage

ROOT = Path(__file__).parents[2]


def test_the_defaults_are_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As cron and systemd start a command."""
    monkeypatch.chdir(tmp_path)
    assert storage.prefer_local_file(sections.ModelSettings().path) == f"file://{(ROOT / 'models' / 'demo').resolve()}"
    assert storage.prefer_local_file("models/sentence_detector").startswith("file:///")
    repository = tmp_path / "clone"
    (repository / "build" / "jars").mkdir(parents=True)
    (repository / "build" / "jars" / "delta.jar").touch()
    monkeypatch.setattr(repository_files, "REPOSITORY", repository)
    assert session._find_jars(sections.SparkSettings()) == [str(repository / "build" / "jars" / "delta.jar")]


@pytest.mark.parametrize("path", ["/nowhere/models/demo", "s3a://bucket/models/demo", "models/none", "../models/demo"])
def test_all_else_is_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "models" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert repository_files.find_installed(path) == path
    assert repository_files.find_installed("models/demo") == "models/demo"


def test_what_is_only_in_this_directory_is_written_with_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert repository_files.pin_path("models/demo") == "models/demo"
    monkeypatch.setattr(repository_files, "REPOSITORY", None)
    assert repository_files.pin_path("models/demo") == f"{tmp_path}/models/demo"
    assert repository_files.pin_path("models/none") == "models/none"
