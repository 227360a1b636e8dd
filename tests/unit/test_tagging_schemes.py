"""Test that the labels of each tagging scheme give the mentions that the model was trained to find."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from entitymill.errors import ModelError
from entitymill.recognition.tagger import Execution, bundle
from entitymill.recognition.tagger.inference import Tagger
from entitymill.recognition.tags_to_mentions import TagScheme
from entitymill_models import huggingface, precision_loss, prepare_command, tagging_schemes
from unit import tiny

KIND = "distilbert"
SCHEMES = {
    "bilou": (["O", "B-PER", "I-PER", "L-PER", "U-PER"], ["O", "B-PER", "I-PER", "I-PER", "B-PER"], "iob2"),
    "iobes": (["S_LOC", "B_LOC", "o", "E_LOC", "I_LOC"], ["B-LOC", "B-LOC", "O", "I-LOC", "I-LOC"], "iob2"),
    "bmes": (["O", "B-LOC", "M-LOC", "E-LOC", "S-LOC"], ["O", "B-LOC", "I-LOC", "I-LOC", "B-LOC"], "iob2"),
    "iob2": (tiny.LABELS, tiny.LABELS, "iob2"),
    "iob1": (["O", "I-PER", "I-LOC", "B-LOC", "I-ORG"], ["O", "I-PER", "I-LOC", "B-LOC", "I-ORG"], "iob1"),
    "io": (["I-PER", "O", "I-LOC", "I-ORG", "I-MISC"], ["I-PER", "O", "I-LOC", "I-ORG", "I-MISC"], "iob1"),
    "plain": (["O", "PER", "LOC", "ORG", "E-MAIL"], ["O", "I-PER", "I-LOC", "I-ORG", "I-E-MAIL"], "iob1"),
}


def made(labels: list[str], into: Path, *options: str) -> tuple[int, Path]:
    source = tiny.copied(KIND, into)
    tiny.change_config(source, id2label={str(i): label for i, label in enumerate(labels)})
    return prepare_command.main([str(source), str(into / "out"), *options]), into / "out"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_probabilities_add_where_labels_become_one(tmp_path: Path, scheme: str) -> None:
    labels, expected, joined = SCHEMES[scheme]
    given = ["--labels", "plain"] if scheme == "plain" else []
    code, place = made(labels, tmp_path, *given)
    assert code == 0
    manifest, files = bundle.read_directory(place)
    assert manifest.scheme == joined
    names = bundle.read_tags(files[bundle.LABELS])
    assert list(names) == list(dict.fromkeys(expected))

    scores = np.exp(tiny.expected_logits(KIND).astype(np.float64))
    scores /= scores.sum(axis=-1, keepdims=True)
    summed = np.stack([scores[..., [name == label for label in expected]].sum(axis=-1) for name in names], axis=-1)

    found = np.exp(tiny.logits(ov.Core().read_model(files[bundle.NETWORK]), KIND).astype(np.float64))
    np.testing.assert_allclose(found / found.sum(axis=-1, keepdims=True), summed, atol=1e-5, rtol=0)


def test_a_packed_run_finds_what_one_sentence_alone_finds(tmp_path: Path) -> None:
    """Summing the probabilities of equal labels must not prevent packing, and the tagger must return the sums."""
    _, place = made(SCHEMES["bilou"][0], tmp_path)
    manifest, files = bundle.read_directory(place)
    tagger = Tagger.load(files, manifest, Execution())
    assert tagger._positions is not None
    tokens = [token for sentence in tiny.SENTENCES for token in sentence]
    together = tagger.tag(tokens, np.array([len(sentence) for sentence in tiny.SENTENCES]), scores=True)
    alone = [tagger.tag(sentence, np.array([len(sentence)]), scores=True) for sentence in tiny.SENTENCES]
    assert together.tags.tolist() == [tag for tags in alone for tag in tags.tags.tolist()]
    assert together.scores is not None and together.scores.shape[1] == 3
    np.testing.assert_allclose(together.scores.sum(axis=1), 1, atol=1e-5)


def test_kinds_of_plain_labels_part_mentions(tmp_path: Path) -> None:
    labels, _, _ = SCHEMES["io"]
    _, place = made(labels, tmp_path)
    tags = tiny.EXPECTED["models"][KIND]["tags"]
    as_trained = [[labels[tiny.LABELS.index(tag)] for tag in sentence] for sentence in tags]
    expected = set()
    for number, sentence in enumerate(as_trained):
        for tag, run in groupby(range(len(sentence)), key=sentence.__getitem__):
            places = list(run)
            if tag != "O":
                expected.add((number, places[0], places[-1] + 1, tag[2:]))
    assert precision_loss.find_mentions(place, "f32", tiny.SENTENCES) == expected
    assert len({kind for *_, kind in expected}) > 1


def test_iob1_is_told_by_its_user(tmp_path: Path) -> None:
    """The option must select IOB1, whose labels can equal those of IOB2; mentions and the bundle's digest must differ."""
    _, place = made(tiny.LABELS, tmp_path, "--labels", "iob1")
    told, _ = bundle.read_directory(place)
    assert told.scheme == "iob1"
    assert told.digest() != told.model_copy(update={"scheme": "iob2"}).digest()
    scheme = TagScheme(tiny.LABELS, splits_kinds=True)
    tags = np.array([tiny.LABELS.index(tag) for tag in ("I-PER", "I-LOC", "B-LOC", "I-LOC", "O", "I-PER")], np.int16)
    found = scheme.join_tags_to_spans(tags, np.ones(len(tags), np.float32), np.zeros(len(tags), np.int64))
    assert list(zip(found.begin.tolist(), found.end.tolist(), strict=True)) == [(0, 1), (1, 2), (2, 4), (5, 6)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4"],
            "must be O and at least one other tag, none of them twice, but are LABEL_0",
        ),
        (["O", "B-PER", "I-PER", "PAD", "X"], r"\(O, .*\) mix two schemes: PAD has no prefix such as B-"),
        (["O", "PER", "PER", "LOC", "ORG"], "none of them twice"),
        (["O", "B-PER", "I-PER", "PAD" * 200, "X"], r"(?s)\A.{,200}: (PAD){13}P… has no prefix such as .{,120}\Z"),
    ],
)
def test_labels_that_mean_nothing_are_refused(labels: list[str], message: str) -> None:
    found = huggingface.read_directory(tiny.TINY / KIND, KIND)
    with pytest.raises(ModelError, match=message):
        tagging_schemes._convert(labels, "it", None)
    assert tagging_schemes.convert_labels(found, "it")[0].labels == tuple(tiny.LABELS)


@pytest.mark.parametrize(("number", "label"), [(3, "S-a/b"), (1, f"B-{'x' * 300}"), (4, "E-__HIVE_DEFAULT_PARTITION__")])
def test_a_label_that_cannot_name_a_partition_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, label: str
) -> None:
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    labels[number] = label
    code, place = made(labels, tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert code == 5
    assert f"Label {number} (counted from 0) of {tmp_path}" in said
    assert len(said) < 700
    assert not place.exists()


def test_a_bundle_says_itself_what_its_labels_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, place = made(SCHEMES["io"][0], tmp_path)
    assert prepare_command.main([str(place), str(tmp_path / "again"), "--labels", "iob2"]) == 2
    assert "already states its scheme: leave the option out" in " ".join(capsys.readouterr().err.split())
    assert prepare_command.main([str(place), str(tmp_path / "again")]) == 0
    assert bundle.read_directory(tmp_path / "again")[0].scheme == "iob1"
