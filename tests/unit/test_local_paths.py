"""Test that files are written atomically and not through planted links, and that commands find the repository's files."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from entitymill.commands import init
from entitymill.settings import load, sections
from entitymill.spark import files_on_this_machine, session, storage
from entitymill.terminal import review_file_writer
from entitymill_reports import drift, page, page_queries, prometheus_metrics, reports_of_a_run

ROOT = Path(__file__).parents[2]
MINE = "not to be touched"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    file = tmp_path / "victim"
    file.write_text(MINE)
    return file


def test_a_page_does_not_go_where_a_link_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: Path) -> None:
    found: Any = SimpleNamespace(run=None, before=[])
    monkeypatch.setattr(page_queries, "read_page_content", lambda *_: found)
    monkeypatch.setattr(page, "render", lambda *_: "<html>")
    monkeypatch.setattr(drift, "compare_runs", lambda *_: None)
    there = tmp_path / "page.html"
    (tmp_path / f".page.html.{os.getpid()}").symlink_to(victim)
    there.symlink_to(victim)
    settings = load(None, ["source.path=x", "output.path=y"], {})
    reports_of_a_run.write_page(cast("Any", None), settings, str(there))
    assert (victim.read_text(), there.read_text(), there.is_symlink()) == (MINE, "<html>", False)


def test_metrics_do_not_go_where_a_link_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: Path) -> None:
    file = tmp_path / "run.prom"
    thread = threading.get_ident()
    for name in (f"run.prom.{os.getpid()}.{thread}", f".run.prom.{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    prometheus_metrics.write_textfile(CollectorRegistry(), str(file), cast("Any", None))
    assert (victim.read_text(), file.read_text()) == (MINE, "")


def test_a_file_with_texts_is_private(tmp_path: Path) -> None:
    review_file_writer.write_file(tmp_path / "texts.csv", "x", private=True)
    assert stat.S_IMODE((tmp_path / "texts.csv").stat().st_mode) == 0o600


def test_a_link_of_the_very_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: Path) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".file.guessed").symlink_to(victim)
    with pytest.raises(FileExistsError):
        files_on_this_machine.write_atomically(tmp_path / "file", b"x")
    assert victim.read_text() == MINE


def test_permissions_are_those_of_any_new_file_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    files_on_this_machine.write_atomically(tmp_path / "file", b"x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "file")}
    assert (len(modes), sorted(path.name for path in tmp_path.iterdir())) == (1, ["file", "other"])
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="directory"):
        files_on_this_machine.write_atomically(tmp_path / "directory", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file", "other"]


def test_the_schema_beside_new_settings_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "schema.json").symlink_to(tmp_path / "nowhere")
    init.write_configuration(tmp_path / "mine.yaml", "source: {path: x}\noutput: {path: y}\n")
    assert not (tmp_path / "nowhere").exists()


def test_the_defaults_are_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default paths must work in any working directory, because cron and systemd start commands in other directories."""
    monkeypatch.chdir(tmp_path)
    assert storage.prefer_local_file(sections.ModelSettings().path) == f"file://{(ROOT / 'models' / 'demo').resolve()}"
    assert storage.prefer_local_file("models/sentence_detector").startswith("file:///")
    repository = tmp_path / "clone"
    (repository / "build" / "jars").mkdir(parents=True)
    (repository / "build" / "jars" / "delta.jar").touch()
    monkeypatch.setattr(files_on_this_machine, "REPOSITORY", repository)
    assert session._find_jars(sections.SparkSettings()) == [str(repository / "build" / "jars" / "delta.jar")]


def test_a_jar_that_somebody_else_has_put_into_this_directory_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in (tmp_path, tmp_path / "clone"):
        (directory / "build" / "jars").mkdir(parents=True)
    monkeypatch.setattr(files_on_this_machine, "REPOSITORY", tmp_path / "clone")
    installed = str(tmp_path / "clone" / "build" / "jars")
    assert files_on_this_machine.find_in_clone("build/jars") == "build/jars"
    owners = {Path("build"): os.getuid(), Path("build/jars"): os.getuid()}
    monkeypatch.setattr(Path, "lstat", lambda path: SimpleNamespace(st_uid=owners[path]))
    for path in owners:
        monkeypatch.setitem(owners, path, 4711)
        assert files_on_this_machine.find_in_clone("build/jars") == installed
        monkeypatch.setitem(owners, path, 0)
        assert files_on_this_machine.find_in_clone("build/jars") == "build/jars"


@pytest.mark.parametrize("path", ["/nowhere/models/demo", "s3a://bucket/models/demo", "models/none", "../models/demo"])
def test_all_else_is_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "models" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert files_on_this_machine.find_in_clone(path) == path
    assert files_on_this_machine.find_in_clone("models/demo") == "models/demo"


def test_what_is_only_in_this_directory_is_written_with_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert files_on_this_machine.pin_path("models/demo") == "models/demo"
    monkeypatch.setattr(files_on_this_machine, "REPOSITORY", None)
    assert files_on_this_machine.pin_path("models/demo") == f"{tmp_path}/models/demo"
    assert files_on_this_machine.pin_path("models/none") == "models/none"
