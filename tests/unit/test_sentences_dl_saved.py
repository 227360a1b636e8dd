"""Test that a saved SentenceDetectorDLModel is read, and that a damaged or unsupported one is refused with one sentence."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from entitymill.errors import ModelError
from entitymill.recognition import model_loading_limits, sentences, sentences_dl_saved
from entitymill.recognition.sentences_dl_saved import METADATA, NETWORK
from fuzzing import attempt, report, tries
from unit.damage import damaged, repacked

CARRIED = Path(__file__).parents[2] / "models" / "sentence_detector"
FILES = sentences.find_detector_files(CARRIED)
DAMAGES = tries(250, 500)


def read(metadata: Path, network: Path) -> sentences_dl_saved.SavedDetector:
    return sentences_dl_saved.read_detector(metadata, network, "the detector")


def changed(tmp_path: Path, **parameters: object) -> Path:
    saved = json.loads(FILES[METADATA].read_text(encoding="utf8"))
    for name, value in parameters.items():
        if name == "class":
            saved[name] = value
        else:
            saved["paramMap"][name] = value
    path = tmp_path / "part-00000"
    path.write_text(json.dumps(saved), encoding="utf8")
    return path


def test_the_carried_detector_is_read_whole() -> None:
    found = read(FILES[METADATA], FILES[NETWORK])

    assert {name: array.ndim for name, array in found.weights.items()} == sentences_dl_saved._WEIGHTS
    assert all(array.dtype == np.float32 for array in found.weights.values())
    assert max(found.ids.values()) < len(found.weights[sentences_dl_saved.EMBEDDING])
    assert found.ids["."] > 0


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"modelArchitecture": "bilstm"}, "was saved with modelArchitecture 'bilstm', but this program's detector supports"),
        ({"customBounds": ["%"]}, r"was saved with customBounds \['%'\]"),
        ({"useCustomBoundsOnly": True}, "was saved with useCustomBoundsOnly True"),
        ({"explodeSentences": True}, "was saved with explodeSentences True"),
        ({"minLength": 3}, "was saved with minLength 3"),
        ({"maxLength": 512}, "was saved with maxLength 512"),
        ({"splitLength": 100}, "was saved with splitLength 100"),
        ({"class": "com.johnsnowlabs.nlp.SentenceDetector"}, "is a SentenceDetector, not a SentenceDetectorDLModel"),
        ({"class": None}, "is a None, not a SentenceDetectorDLModel"),
        ({"Encoder": []}, "lists no characters with valid ids"),
        ({"Encoder": [{"a": "x"}]}, "lists no characters with valid ids"),
        ({"Encoder": 3}, "lists no characters with valid ids"),
        ({"Encoder": [{"a": -1}]}, "one is empty or has a negative id"),
        ({"Encoder": [{"": 1}]}, "one is empty or has a negative id"),
        ({"Encoder": [{"a": 10**6}]}, "the layers do not fit each other"),
        ({"Encoder": [{"a": 1e400}]}, "lists no characters with valid ids"),
        ({"impossiblePenultimates": 3}, "lists no characters with valid ids"),
    ],
)
def test_another_kind_of_detector_is_refused(tmp_path: Path, parameters: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=rf"^segmentation\.model: .*the detector.*{said}"):
        read(changed(tmp_path, **parameters), FILES[NETWORK])


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "3", '"a"', "[" * 100_000, "{}", '{"class": 1, "paramMap": 2, "defaultParamMap": 3}'],
    ids=lambda content: content[:20],
)
def test_metadata_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "part-00000"
    path.write_text(content, encoding="utf8")
    with pytest.raises(ModelError, match="is not valid metadata of a Spark NLP model"):
        read(path, FILES[NETWORK])


def test_a_directory_that_is_no_saved_model_is_refused(tmp_path: Path) -> None:
    for name in ("nothing", "network alone", "metadata alone"):
        directory = tmp_path / name
        (directory / METADATA).mkdir(parents=True)
        if name == "network alone":
            shutil.copy(FILES[NETWORK], directory / NETWORK)
        if name == "metadata alone":
            shutil.copy(FILES[METADATA], directory / METADATA / "part-00000")
        with pytest.raises(ModelError, match="is not a saved SentenceDetectorDLModel: specify the directory of such"):
            sentences.find_detector_files(directory)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    for files in ((tmp_path / "no", FILES[NETWORK]), (FILES[METADATA], tmp_path / "no"), (tmp_path, tmp_path)):
        with pytest.raises(ModelError):
            read(*files)


@pytest.mark.parametrize("what", ["metadata", "zip", "index", "data"])
def test_damaged_files_raise_a_model_error_and_nothing_else(tmp_path: Path, what: str) -> None:
    with zipfile.ZipFile(FILES[NETWORK]) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist() if not member.is_dir()}
    [inner] = [
        name for name in members if name.endswith({"index": ".index", "data": ".data-00000-of-00001"}.get(what, ".index"))
    ]
    refused = 0
    for number in range(DAMAGES):
        path, files = tmp_path / f"{number}", dict(FILES)
        with attempt(f"detector: {what}", number) as draw:
            if what == "metadata":
                path.write_bytes(damaged(FILES[METADATA].read_bytes(), draw))
                files[METADATA] = path
            else:
                whole = FILES[NETWORK].read_bytes()
                path.write_bytes(
                    damaged(whole, draw) if what == "zip" else repacked({**members, inner: damaged(members[inner], draw)})
                )
                files[NETWORK] = path
            try:
                read(files[METADATA], files[NETWORK])
            except ModelError as error:
                refused += str(error).startswith("segmentation.model: ")
        path.unlink()
    report(f"detector: {what}", damaged=DAMAGES, refused=refused)
    # Damage to a name or to a weight's last digit is not detected here; the workers check the SHA-256 of each file.
    assert refused > DAMAGES * (0 if what == "data" else 0.3)


def test_a_part_that_would_unpack_to_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_loading_limits, "MAX_DETECTOR_FILE_BYTES", 1000)
    with pytest.raises(ModelError, match="a file in the archive has more than 1,000 bytes"):
        read(FILES[METADATA], FILES[NETWORK])


def test_an_entry_of_the_index_that_ends_after_its_block_is_refused() -> None:
    """Without this check, the key would contain bytes of the list that follows the entries."""
    no_restarts, uncompressed = bytes(4), b"\0"
    for lengths, is_complete in ((b"\0\3\1", True), (b"\0\7\1", False), (b"\0\3\2", False)):
        block = lengths + b"abcd" + no_restarts
        if is_complete:
            assert list(sentences_dl_saved._read_block(block + uncompressed, 0, len(block))) == [(b"abc", b"d")]
        else:
            with pytest.raises(ValueError, match="or is incomplete"):
                list(sentences_dl_saved._read_block(block + uncompressed, 0, len(block)))
