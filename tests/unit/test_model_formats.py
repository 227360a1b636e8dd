"""Test that `entitymill prepare` follows no symbolic link that leads out of a model's directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from entitymill.errors import ModelError
from entitymill_models import model_formats, prepare_command
from unit import tiny

KIND = "distilbert"


def moved(file: Path, to: Path, link: str | Path) -> None:
    """Move a file, and put a symbolic link in its place."""
    to.parent.mkdir(parents=True, exist_ok=True)
    file.rename(to)
    file.symlink_to(link)


def cached(into: Path) -> Path:
    """Write a model in the layout of huggingface_hub's cache; return the directory of its snapshot."""
    repository = into / "hub" / "models--me--ner"
    snapshot = Path(shutil.copytree(tiny.TINY / KIND, repository / "snapshots" / "0123abcd"))
    for number, file in enumerate(sorted(snapshot.iterdir())):
        moved(file, repository / "blobs" / f"digest{number}", f"../../blobs/digest{number}")
    return snapshot


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "assets", "notes.txt"])
def test_a_link_out_of_the_directory_is_refused_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source = tiny.copied(KIND, tmp_path / "made")
    for other in ("assets", "notes.txt"):
        (source / other).touch()
    moved(source / name, tmp_path / "secret", tmp_path / "secret")
    assert prepare_command.main([str(source), str(tmp_path / "out")]) == 5
    said = " ".join(capsys.readouterr().err.split())
    assert f"{source}/{name} is a symbolic link to {tmp_path}/secret, outside of {source}" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("link", ["../secret", "inner/../../secret", "/nowhere/at/all", "../made2/x"])
def test_relative_and_dangling_links_are_judged_by_where_they_lead(tmp_path: Path, link: str) -> None:
    (tmp_path / "made" / "inner").mkdir(parents=True)
    (tmp_path / "made" / "config.json").symlink_to(link)
    with pytest.raises(ModelError, match=r"config\.json is a symbolic link to"):
        model_formats.check_links(tmp_path / "made")


def test_a_link_to_a_link_is_judged_by_its_end(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a").symlink_to("b")
    (tmp_path / "made" / "b").symlink_to("../elsewhere")
    with pytest.raises(ModelError, match="outside of"):
        model_formats.check_links(tmp_path / "made")


def test_links_inside_the_directory_and_a_link_to_it_are_followed(tmp_path: Path) -> None:
    source = tiny.copied(KIND, tmp_path / "made")
    moved(source / "config.json", source / "files" / "config.json", "files/config.json")
    (tmp_path / "latest").symlink_to(source)
    found, _ = model_formats.read_model(tmp_path / "latest", tmp_path / "made")
    assert found.labels == tuple(tiny.LABELS)


def test_a_snapshot_of_the_hugging_face_cache_is_prepared(tmp_path: Path) -> None:
    assert prepare_command.main([str(cached(tmp_path)), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_snapshot_reaches_its_own_blobs_only(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    other = tmp_path / "hub" / "models--you--ner" / "blobs" / "digest"
    other.parent.mkdir(parents=True)
    other.touch()
    (snapshot / "vocab.txt").unlink(missing_ok=True)
    (snapshot / "vocab.txt").symlink_to("../../../models--you--ner/blobs/digest")
    with pytest.raises(ModelError, match=r"vocab\.txt is a symbolic link"):
        model_formats.check_links(snapshot)


def test_blobs_that_are_themselves_elsewhere_are_refused(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    blobs = snapshot.parents[1] / "blobs"
    moved(blobs, tmp_path / "secrets", tmp_path / "secrets")
    with pytest.raises(ModelError, match="outside of"):
        model_formats.check_links(snapshot)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ModelError, match="loop"):
        model_formats.check_links(tmp_path)
