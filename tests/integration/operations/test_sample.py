"""Test `entitymill sample` on the tables of a small job."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from entitymill import settings
from entitymill.commands import evaluate
from entitymill.commands import sample as command
from entitymill.errors import SettingsError
from entitymill.tables.mention_sample import MentionSample, SampleRequest, draw_sample
from integration.conftest import Job

SOURCE = "source.passthrough=[year]"
CITIES = ("Paris", "Berlin", "London", "Madrid")
TEXTS = [f"😀 Angela Merkel flew to {CITIES[number % 4]} 🛫. Nobody saw it. She met Barack Obama." for number in range(12)]
TEXTS.append("👍🏽 Helmut Kohl lived in Ludwigshafen.")


@pytest.fixture(scope="module")
def filled(module_job: Job) -> Job:
    years = pa.array([None if number % 3 == 0 else 2000 + number % 3 for number in range(len(TEXTS))], pa.int32())
    ids = [f"d{number}" for number in range(len(TEXTS))]
    module_job.texts(pa.table({"id": ids, "text": TEXTS, "year": years})).run(SOURCE)
    return module_job


def draw(
    job: Job, count: int, strategy: str = "random", by: str = "label", seed: int = 0, *, text: bool = False
) -> MentionSample:
    loaded = settings.load(None, job.options(SOURCE), {})
    return draw_sample(job.spark, loaded, SampleRequest(count, strategy, by, seed), show_text=text)


def ids(sample: MentionSample) -> list[str]:
    return [mention["mention_id"] for mention in sample.mentions]


def write(job: Job, to: Path, *options: str) -> int:
    given = [word for option in job.options(SOURCE) for word in ("--set", option)]
    return command.main([*given, "--to", str(to), *options])


def test_the_same_seed_gives_the_same_sample(filled: Job) -> None:
    first = draw(filled, 10)
    assert ids(draw(filled, 10)) == ids(first)
    assert sorted(ids(draw(filled, 10, seed=1))) != sorted(ids(first))
    assert len(set(ids(first))) == 10
    assert first.sentences is None
    assert first.population == filled.read("entities").count()


def test_strata_get_equal_shares(filled: Job) -> None:
    labels = Counter(mention["label"] for mention in draw(filled, 10).mentions)
    assert labels == {"PER": 5, "LOC": 5}
    by_year = draw(filled, 9, by="year")
    years = {f"d{number}": number % 3 for number in range(len(TEXTS))}
    assert Counter(years[mention["doc_id"]] for mention in by_year.mentions) == {0: 3, 1: 3, 2: 3}
    assert by_year.strata == 3
    with pytest.raises(SettingsError, match=r"--by: text is neither .* choose one of label, year"):
        draw(filled, 9, by="text")


def test_the_least_confident_mentions_of_each_label_come_first(filled: Job) -> None:
    found = draw(filled, 6, "least-confident").mentions
    for label in ("LOC", "PER"):
        held = filled.read("entities").where(F.col("label") == label).orderBy("confidence").limit(3).collect()
        drawn = [mention["confidence"] for mention in found if mention["label"] == label]
        assert drawn == [row["confidence"] for row in held]


def test_rare_spellings_come_once_each_and_first(filled: Job) -> None:
    entities = {row["mention_id"]: row["entity"] for row in filled.read("entities").collect()}
    found = [entities[mention_id] for mention_id in ids(draw(filled, 4, "rare"))]
    assert found[0] == "Ludwigshafen"
    assert found[1] in CITIES
    assert found[2] == "Helmut Kohl"
    assert len(set(found)) == 4


def test_sentences_are_those_of_the_source_and_have_all_their_mentions(filled: Job) -> None:
    found = draw(filled, 8, text=True)
    assert found.sentences is not None
    assert sorted(mention for sentence in found.sentences for mention in sentence["drawn"]) == sorted(ids(found))
    for sentence in found.sentences:
        whole = TEXTS[int(sentence["doc_id"][1:])]
        assert whole[sentence["begin"] :].startswith(sentence["text"])
        expected = 2 if "flew" in sentence["text"] or "lived" in sentence["text"] else 1
        assert len(sentence["mentions"]) == expected


def test_without_leave_no_text_is_in_the_file(filled: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert write(filled, tmp_path / "x.csv", "--count", "6") == 0
    written = (tmp_path / "x.csv").read_text(encoding="utf8")
    words = {word for text in TEXTS for word in text.split() if len(word) > 2 or not word.isascii()}
    assert [word for word in words if word in written] == []
    rows = list(csv.DictReader(written.splitlines()))
    assert len(rows) == 6
    assert "6 of 38 mentions, 2 values of label" in capfd.readouterr().out


def test_offsets_in_the_files_survive_emoji(filled: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert write(filled, tmp_path / "x.json", "--show-text", "--count", "8") == 0
    for task in json.loads((tmp_path / "x.json").read_text(encoding="utf8")):
        whole = TEXTS[int(task["data"]["doc_id"][1:])]
        for result in task["predictions"][0]["result"]:
            value = result["value"]
            assert task["data"]["text"][value["start"] : value["end"]] == value["text"]
            assert whole[task["data"]["offset"] + value["start"] :].startswith(value["text"])
    assert write(filled, tmp_path / "x.conll", "--show-text", "--count", "8") == 0
    assert "\tB-PER\n" in (tmp_path / "x.conll").read_text(encoding="utf8")
    capfd.readouterr()
    assert evaluate.main(["--reviewed", str(tmp_path / "x.conll"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["all"]
    assert [found[name] for name in ("reviewed", "correct", "precision", "recall")] == [8, 8, 1, 1]


def test_tasks_that_reviewers_accept_are_all_correct(filled: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert write(filled, tmp_path / "x.json", "--show-text", "--count", "8") == 0
    tasks = json.loads((tmp_path / "x.json").read_text(encoding="utf8"))
    exported = [{"data": task["data"], "annotations": [{"result": task["predictions"][0]["result"]}]} for task in tasks]
    (tmp_path / "export.json").write_text(json.dumps(exported), encoding="utf8")
    capfd.readouterr()
    assert evaluate.main(["--reviewed", str(tmp_path / "export.json"), "--json"]) == 0
    scores = json.loads(capfd.readouterr().out)
    assert {label: (one["reviewed"], one["precision"], one["recall"]) for label, one in scores.items()} == {
        "LOC": (4, 1.0, 1.0),
        "PER": (4, 1.0, 1.0),
        "all": (8, 1.0, 1.0),
    }


def test_mentions_of_changed_documents_are_left_out(filled: Job) -> None:
    """Mentions of documents that changed in the source must be left out. Keep this test last: it changes the source."""
    changed = [*TEXTS[:6], *(f"Changed. {text}" for text in TEXTS[6:])]
    rows = {"id": [f"d{number}" for number in range(len(TEXTS))], "text": changed, "year": pa.nulls(len(TEXTS), pa.int32())}
    filled.texts(pa.table(rows))
    found = draw(filled, 100, text=True)
    assert {mention["doc_id"] for mention in found.mentions} == {f"d{number}" for number in range(6)}
    assert (len(found.mentions), found.left_out) == (18, 20)
