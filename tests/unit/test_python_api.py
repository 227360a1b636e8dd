"""Test tagging without Spark: the Python API (`entitymill.load`) and the command `entitymill tag`."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import entitymill
from entitymill import cli, python_api
from entitymill.commands import tag, tagging_in_child
from entitymill.errors import ModelError, SettingsError, SourceError
from entitymill.recognition import hardware, model_loading_limits
from entitymill.workers import child_process

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo"
TEXT = "Angela Merkel flew with joy \U0001f600 to Paris. Berlin's mayor did not."
EXPECTED = [("Angela Merkel", "PER", 0), ("Paris", "LOC", 0), ("Berlin", "LOC", 1)]


@pytest.fixture(scope="module")
def tagger() -> entitymill.TextTagger:
    return entitymill.load(DEMO, threads=1)


def brief(mentions: list[entitymill.Mention]) -> list[tuple[str, str, int]]:
    return [(mention.entity, mention.label, mention.sentence_id) for mention in mentions]


def test_one_text_gives_its_mentions(tagger: entitymill.TextTagger) -> None:
    found = tagger(TEXT)
    assert brief(found) == EXPECTED
    assert all(TEXT[mention.begin : mention.end] == mention.entity for mention in found)
    assert all(mention.sentence_begin <= mention.begin < mention.end <= mention.sentence_end for mention in found)


def test_lists_and_columns_give_a_list_each_and_none_has_none(tagger: entitymill.TextTagger) -> None:
    texts = [TEXT, None, "", TEXT]
    expected = [EXPECTED, [], [], EXPECTED]
    assert [brief(found) for found in tagger(texts)] == expected
    assert [brief(found) for found in tagger(pd.Series(texts))] == expected
    assert [brief(found) for found in tagger(pd.Series(texts, dtype="string"))] == expected
    assert tagger([]) == []


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_arrow_in_arrow_out_nulls_stay_null(tagger: entitymill.TextTagger, kind: pa.DataType) -> None:
    whole = (
        pa.array(["cut off", TEXT, None, "", TEXT]).cast(kind)
        if kind != pa.string()
        else pa.array(["x", TEXT, None, "", TEXT])
    )
    rows = tagger(whole.slice(1)).to_pylist()
    assert [row and [(m["entity"], m["label"], m["sentence_id"]) for m in row] for row in rows] == [
        EXPECTED,
        None,
        [],
        EXPECTED,
    ]
    assert rows == tagger(pa.chunked_array([whole.slice(1, 2), whole.slice(3)])).to_pylist()
    assert tagger(pa.chunked_array([], pa.string())).to_pylist() == []


def test_many_texts_are_cut_into_windows_with_the_same_result(
    tagger: entitymill.TextTagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory that recognition needs grows with the texts that it gets at once."""
    texts = [TEXT, None, "", TEXT * 3, "Nobody.", TEXT, None]
    column = pa.array(texts)
    expected, arrow = tagger(texts), tagger(column).to_pylist()
    sizes: list[int] = []
    recognize = tagger.recognizer

    def count(window: pa.Array) -> Any:
        sizes.append(len(window))
        return recognize(window)

    monkeypatch.setattr(python_api, "WINDOW_CHARS", 10)
    monkeypatch.setattr(tagger, "recognizer", count)
    assert tagger(texts) == expected
    assert sum(sizes) == len(texts) and len(sizes) > 2
    sizes.clear()
    assert tagger(column).to_pylist() == arrow
    assert sum(sizes) == len(texts) and len(sizes) > 2
    assert tagger(pa.array([], pa.string())).to_pylist() == []


def test_lone_surrogates_are_code_points_like_others(tagger: entitymill.TextTagger) -> None:
    text = "\ud800 Merkel\udc00 went to Paris."
    found = tagger(text)
    assert brief(found)[-1][0] == "Paris"
    assert all(text[mention.begin : mention.end] == mention.entity for mention in found)


def test_mentions_are_trimmed_unless_they_are_not_to_be(tagger: entitymill.TextTagger) -> None:
    untrimmed = entitymill.load(DEMO, threads=1, trim=False)
    assert [mention.entity for mention in untrimmed("They saw Berlin's mayor.")] == ["Berlin's"]
    assert [mention.entity for mention in tagger("They saw Berlin's mayor.")] == ["Berlin"]


@pytest.mark.parametrize("detector", ["rules", "sentencex"])
def test_other_detectors_need_no_model(detector: str) -> None:
    assert brief(entitymill.load(DEMO, detector=detector, threads=1)(TEXT)) == EXPECTED  # type: ignore[arg-type]


def test_what_is_no_text_or_no_model_is_refused(tagger: entitymill.TextTagger, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="pass one of its columns"):
        tagger(pd.DataFrame({"text": [TEXT]}))
    with pytest.raises(TypeError, match="not int"):
        tagger([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="not int64"):
        tagger(pa.array([1]))
    with pytest.raises(ModelError, match=r"has no manifest\.json"):
        entitymill.load(tmp_path)
    with pytest.raises(ModelError, match="not a saved SentenceDetectorDLModel"):
        entitymill.load(DEMO, detector_model=tmp_path)
    for wrong in ({"precision": "fp32"}, {"detector": "punkt"}):
        with pytest.raises(SettingsError, match="is not one of"):
            entitymill.load(DEMO, **wrong)  # type: ignore[arg-type]
    for threads in (-1, 2.5, 10**12):
        with pytest.raises(SettingsError, match="threads must be a whole number from 1 to 1024, not"):
            entitymill.load(DEMO, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="trim must be True or False, not 'false'"):
        entitymill.load(DEMO, trim="false")  # type: ignore[arg-type]


def test_a_model_without_a_detector_beside_it_takes_the_carried_one(tmp_path: Path) -> None:
    copied = shutil.copytree(DEMO, tmp_path / "alone" / "ner")
    assert brief(entitymill.load(copied, threads=1)(TEXT)) == EXPECTED


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, entitymill, entitymill.cli, entitymill.settings, entitymill.commands.tag;"
        "sys.exit(any(name in sys.modules for name in ('openvino', 'pyspark', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT / "jobs").returncode == 0


def test_the_command_marks_texts_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text(TEXT, encoding="utf8")
    assert cli.main(["tag", "Nobody came.", str(tmp_path / "letter.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Nobody came."
    assert lines[3] == "[Angela Merkel PER] flew with joy \U0001f600 to [Paris LOC]. [Berlin LOC]'s mayor did not."


def test_the_command_reads_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in `entitymill tag <(…)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=[TEXT])
    writer.start()
    assert cli.main(["tag", str(pipe)]) == 0
    writer.join()
    assert "PER]" in capsys.readouterr().out


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(TEXT))
    assert tag.main(["--json", "-"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["entity"], row["label"], row["sentence_id"]) for row in rows] == EXPECTED
    assert all(TEXT[row["begin"] : row["end"]] == row["entity"] for row in rows)


def test_standard_input_that_is_no_text_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf8"))
    assert tag.main(["-"]) == 3
    assert "- is not UTF-8 text" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "letter.txt"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["tag", str(path)]) == 3
    assert str(path) in capsys.readouterr().err.replace("\n", "")


def test_a_file_that_may_not_be_looked_up_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SourceError, match=r"^/secret/letter\.txt cannot be read: Permission denied\.$"):
        list(tag._read_texts(["/secret/letter.txt"]))
    assert list(tag._read_texts(["Angela Merkel"])) == [("text 1", "Angela Merkel")]


@pytest.mark.parametrize(
    "argument",
    ["letter.txt", "my letter.txt", "my letters/a b.HTML", "letters/paris", "Dear Angela Merkel.md"],
)
def test_a_missing_file_is_not_tagged_as_a_text(capsys: pytest.CaptureFixture[str], argument: str) -> None:
    assert cli.main(["tag", argument]) == 3
    assert f"{argument} looks like a path, but there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "She sent letter.txt.",
        "letter.txt came",
        "They met.\nIn a.txt",
        "Paris " * 60 + "a.txt",
        "a/b c",
        "She wrote the page index.html",
    ],
)
def test_a_text_is_not_taken_for_a_missing_file(text: str) -> None:
    assert list(tag._read_texts([text])) == [("text 1", text)]


def test_texts_are_tagged_in_windows_with_the_same_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(tmp_path / f"{number}.txt") for number in range(5)]
    for number, file in enumerate(files):
        Path(file).write_text(f"{TEXT} " * number, encoding="utf8")
    assert tag.main(["--json", *files]) == 0
    whole = capsys.readouterr().out
    assert whole.count("\n") == 10 * len(EXPECTED)

    monkeypatch.setattr(tag, "FACTORY", f"{__name__}:open_small_tagger")
    monkeypatch.setattr(child_process, "WINDOW_CHARS", 2 * len(TEXT))
    assert tag.main(["--json", *files]) == 0
    assert capsys.readouterr().out == whole
    assert list(child_process.cut_texts(["aa", "", "b", "cccc", "d"], 3)) == [["aa", "", "b"], ["cccc"], ["d"]]


def open_small_tagger(*arguments: Any) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Return a tagger that refuses more than the largest window of the test above."""
    assert arguments[-1] == 4 * len(f"{TEXT} ")  # for the limit of its memory
    recognize = tagging_in_child.open_tagger(*arguments)

    def tag_window(batch: pa.RecordBatch) -> pa.RecordBatch:
        assert sum(map(len, batch.column("text").to_pylist())) <= arguments[-1]
        return recognize(batch)

    return tag_window


def test_a_text_that_needs_more_memory_than_the_container_has_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag, "FACTORY", f"{__name__}:open_tagger_in_small_container")
    (tmp_path / "short.txt").write_text(TEXT, encoding="utf8")
    (tmp_path / "long.txt").write_text("They met in Paris . " * 200_000, encoding="utf8")
    assert tag.main([str(tmp_path / "short.txt")]) == 0
    assert tag.main([str(tmp_path / "long.txt")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"There is not enough memory to tag these texts with the model {tag.MODEL} (out of memory): " in said
    assert "tag shorter texts, or give this container more memory." in said


def open_tagger_in_small_container(*arguments: Any) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Return a tagger that may use 150 MB in addition to its model."""
    hardware.read_memory_limit = lambda: 4 * 150_000_000
    model_loading_limits._MIN_TAGGING_BYTES = 1
    return tagging_in_child.open_tagger(*arguments)


def test_one_command_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["--help"]) == cli.main(["--version"]) == 0
    assert f"entitymill {entitymill.__version__}" in capsys.readouterr().out
    assert cli.main(["tga"]) == 2
    assert "tga is not a command" in capsys.readouterr().err
    assert cli.main(["--config", "nowhere.yaml", "--print-config"]) == 2  # as in 0.1.0: `extract` is the default
    assert "nowhere.yaml" in capsys.readouterr().err
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as left:
            cli.main([name, "--help"])
        assert left.value.code == 0
