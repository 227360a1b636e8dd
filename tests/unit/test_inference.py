import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entitymill.recognition.tagger import Tags
from entitymill.recognition.tagger.inference import Tagger

HUGGING_FACE = json.loads((Path(__file__).parents[1] / "golden" / "hf_probabilities.json").read_text(encoding="utf8"))
SENTENCES = [row["tokens"] for row in HUGGING_FACE]
RNG = np.random.default_rng(7)


def run(tagger: Tagger, sentences: list[list[str]]) -> Tags:
    return tagger.tag([token for s in sentences for token in s], np.array([len(s) for s in sentences], np.int64))


@pytest.mark.parametrize("row", HUGGING_FACE, ids=lambda row: " ".join(row["tokens"])[:20])
def test_tags_and_probabilities_are_hugging_faces(tagger: Tagger, row: dict[str, list[str]]) -> None:
    found = run(tagger, [row["tokens"]])

    assert [tagger.labels[tag] for tag in found.tags] == row["tags"]
    assert found.confidences == pytest.approx(row["probabilities"], abs=1e-4)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.permutations(range(len(SENTENCES))), st.integers(1, len(SENTENCES)))
def test_neighbours_and_order_change_nothing_in_f32(tagger: Tagger, order: list[int], taken: int) -> None:
    chosen = [SENTENCES[i] for i in order[:taken]]

    together, alone = run(tagger, chosen), [run(tagger, [sentence]) for sentence in chosen]

    assert together.tags.tolist() == [tag for one in alone for tag in one.tags.tolist()]
    np.testing.assert_allclose(together.confidences, np.concatenate([one.confidences for one in alone]), atol=1e-5)


def test_more_sentences_than_are_planned_together_keep_their_order(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tagger, SENTENCES)
    monkeypatch.setattr("entitymill.recognition.tagger.inference.SENTENCES_AT_ONCE", 4)
    assert run(tagger, SENTENCES).tags.tolist() == whole.tags.tolist()


def test_sentences_without_tokens_are_allowed(tagger: Tagger) -> None:
    with_empty = run(tagger, [[], SENTENCES[0], [], SENTENCES[1], []])
    assert with_empty.tags.tolist() == run(tagger, SENTENCES[:2]).tags.tolist()
    assert run(tagger, []).tags.tolist() == []


def test_no_token_of_a_sentence_over_the_limit_is_dropped(tagger: Tagger) -> None:
    long = [token for sentence in SENTENCES * 8 for token in sentence if token != "."]

    found = run(tagger, [[*long, *SENTENCES[0]]])

    assert found.split.tolist() == [True]
    assert (found.confidences > 0).all()
    assert [tagger.labels[tag] for tag in found.tags[-len(SENTENCES[0]) :]] == HUGGING_FACE[0]["tags"]


def test_windows_agree_with_the_whole_sentence(load_tagger: Callable[..., Tagger]) -> None:
    long = [token for i in RNG.permutation(len(SENTENCES))[:14] for token in SENTENCES[i]]
    whole, windowed = run(load_tagger(max_length=512), [long]), run(load_tagger(max_length=96), [long])

    assert (whole.split.tolist(), windowed.split.tolist()) == ([False], [True])
    assert (whole.tags == windowed.tags).mean() >= 0.97


def test_int8_says_nearly_the_same_and_ignores_neighbours(load_tagger: Callable[..., Tagger], tagger: Tagger) -> None:
    quick = load_tagger("int8")
    together = run(quick, SENTENCES)

    assert (together.tags == run(tagger, SENTENCES).tags).mean() >= 0.98
    alone = np.concatenate([run(quick, [sentence]).tags for sentence in SENTENCES])
    assert (together.tags == alone).mean() >= 0.995
