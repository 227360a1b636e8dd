"""Test that a damaged or malicious model is refused with a ModelError or read as data, without side effects.

`make test-fuzz` tries 6,000 models (see tests/fuzzing.py).
"""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from entitymill.errors import ModelError
from entitymill.recognition.tagger import bundle
from entitymill_models import huggingface, model_formats, sparknlp_field_files, sparknlp_saved
from entitymill_models.sparknlp_saved import Allowance
from entitymill_sparknlp import saved_model_check
from fuzzing import attempt, report, tries
from unit import tiny
from unit.damage import damaged, repacked, watch

TRIES = tries(800, 6000)
SHARES = {"manifest": 0.38, "zip": 0.3, "stream": 0.3, "model": 0.02}
DEMO = Path(__file__).parents[2] / "models" / "demo"
FIELD = (Path(__file__).parents[1] / "golden" / "saved_vocabulary" / "part-00000").read_bytes()
AWAY = (
    "../out",
    "/out",
    "a/../../out",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "a\0b",
    "~/out",
    "file:/out",
    "C:out",
    "a\nb",
    "x" * 300,
)
"""Strings that are not plain file names; many of them would be paths to other directories."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
Attempt = Callable[[Path, random.Random], object]


def a_manifest(directory: Path, draw: random.Random) -> None:
    """Read a manifest with an unusual entry, and write the copies that the driver would write."""
    manifest = json.loads((DEMO / bundle.MANIFEST).read_text(encoding="utf8"))
    files, chosen = manifest["files"], draw.choice(sorted(manifest["files"]))
    odd = draw.choice([*AWAY, "../" * 9 + str(directory.parent / "out"), files[chosen].upper(), files[chosen][1:] + "/"])
    match draw.choice(["digest", "name", "more", "field", "bytes", "fewer"]):
        case "digest":
            files[chosen] = odd
        case "name":
            files[odd] = files.pop(chosen)
        case "more":
            files[odd] = files[chosen]
        case "field":
            values: tuple[object, ...] = (None, 10**30, -1, "", [], {}, True, odd, float("inf"), "\ud800")
            manifest[draw.choice(sorted(manifest))] = draw.choice(values)
        case "fewer":
            del files[chosen]
    content = json.dumps(manifest).encode()
    (directory / bundle.MANIFEST).write_bytes(damaged(content, draw) if draw.random() < 0.4 else content)
    found, paths = bundle.read_directory(directory)
    for shipped in found.shipped_names().values():
        (directory / shipped).write_bytes(b"copied")
    bundle.check_files(paths, found, "here")


def a_zip(directory: Path, draw: random.Random) -> None:
    members = {"metadata/part-00000": b'{"class": "x"}\n' * 20, "network": bytes(range(256)) * 4, "empty": b""}
    if draw.random() < 0.4:
        members[draw.choice(AWAY) or "/"] = b"harm"
    content = repacked(members, draw.choice(METHODS))
    (directory / "model.zip").write_bytes(damaged(content, draw) if draw.random() < 0.8 else content)
    (directory / "into").mkdir()
    sparknlp_saved.unpack(
        directory / "model.zip", directory / "into", "model.zip", Allowance.for_archive(directory / "model.zip")
    )


def a_stream(directory: Path, draw: random.Random) -> None:
    content = damaged(FIELD, draw)
    if draw.random() < 0.5:  # an intact file, so that the damaged records are read
        content = sparknlp_field_files.write_records(
            [damaged(record, draw) for record in sparknlp_field_files.read_records(FIELD, "here")]
        )
    for record in sparknlp_field_files.read_records(content, "here"):
        for pair in sparknlp_field_files.read_pairs(record, "here"):
            assert all(type(value) in (str, int) for value in pair)


def a_model(directory: Path, draw: random.Random) -> None:
    """Read a saved model with one damaged file, as a directory or as a zip like those of Spark NLP's models hub."""
    chosen = tiny.saved_onnx(directory / "saved")
    file = draw.choice(sorted(path for path in chosen.rglob("*") if path.is_file()))
    file.write_bytes(damaged(file.read_bytes(), draw))
    if draw.random() < 0.5:
        files = {str(path.relative_to(chosen)): path.read_bytes() for path in chosen.rglob("*") if path.is_file()}
        chosen = directory / "saved.zip"
        chosen.write_bytes(repacked(files, draw.choice(METHODS[:2])))
    (directory / "scratch").mkdir()
    model_formats.read_model(chosen, directory / "scratch")


ATTEMPTS: dict[str, Attempt] = {"manifest": a_manifest, "zip": a_zip, "stream": a_stream, "model": a_model}


@pytest.mark.parametrize("what", ATTEMPTS)
def test_a_damaged_model_is_refused_or_read_and_nothing_else_happens(tmp_path: Path, what: str) -> None:
    tiny.saved_onnx(tmp_path / "whole")
    (tmp_path / "warm").mkdir()
    sparknlp_saved.read_saved_model(tmp_path / "whole", tmp_path / "warm", "here")  # `watch` must not see late imports
    for method in METHODS:
        (tmp_path / "warm.zip").write_bytes(repacked({"\u00e9": b"x"}, method))
        sparknlp_saved.unpack(tmp_path / "warm.zip", tmp_path / "warm", "here", Allowance.for_archive(tmp_path / "warm.zip"))
    kept = sorted(tmp_path.rglob("*"))

    refused, count = 0, round(TRIES * SHARES[what])
    for number in range(count):
        directory = tmp_path / "tries" / f"{number}"
        directory.mkdir(parents=True)
        with attempt(what, number) as draw:
            with watch(directory) as seen:
                try:
                    ATTEMPTS[what](directory, draw)
                except ModelError:
                    refused += 1
            assert not seen
    assert sorted(path for path in tmp_path.rglob("*") if tmp_path / "tries" not in (path, *path.parents)) == kept
    assert {path.name for path in (tmp_path / "tries").iterdir()} == {f"{number}" for number in range(count)}
    assert refused > 0.5 * count
    report(f"damaged: {what}", models=count, refused=refused)


@pytest.mark.parametrize("odd", AWAY)
def test_what_is_no_plain_file_name_is_none_in_any_list(tmp_path: Path, demo_manifest: bundle.Manifest, odd: str) -> None:
    manifest = demo_manifest.model_dump()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": odd}}))

    with pytest.raises(ModelError, match="not a valid file name inside the bundle"):
        bundle.read_manifest(json.dumps({**manifest, "files": {**manifest["files"], odd: "0" * 64}}), "here")
    with pytest.raises(ModelError, match="lists no files, or files outside the model's directory"):
        huggingface._read_weights(tmp_path, "here")


@pytest.mark.parametrize("digest", ["../../../../out/", "/out", "", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "g" * 64])
def test_what_is_no_digest_is_refused_before_a_file_is_called_after_it(demo_manifest: bundle.Manifest, digest: str) -> None:
    manifest = demo_manifest.model_dump()
    with pytest.raises(ModelError, match=r"^here/manifest\.json has no valid SHA-256 of openvino_model\.bin"):
        bundle.read_manifest(json.dumps({**manifest, "files": {**manifest["files"], bundle.WEIGHTS: digest}}), "here")


@pytest.mark.parametrize(
    ("chosen", "refused"),
    [({}, False), ({"stageUids": ["a"]}, False), ({"language": "Python"}, True), ({"language": 1}, True), (None, True)],
)
def test_a_pipeline_that_would_have_pyspark_import_modules_is_told(chosen: object, *, refused: bool) -> None:
    assert saved_model_check.imports_python({"class": "org.apache.spark.ml.PipelineModel", "paramMap": chosen}) == refused


def test_the_watch_sees_what_it_is_for(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with watch(inside) as seen:
        (inside / "fine").write_text("x")
    assert not seen
    for harm in (
        lambda: (tmp_path / "out").write_text("x"),
        (inside / ".." / "out").unlink,
        lambda: (inside / "link").symlink_to(tmp_path),
        (inside / "link" / "out").mkdir,
        lambda: exec("1", {}),  # noqa: S102  # the watch must see this
    ):
        with watch(inside) as seen:
            harm()
        assert seen
