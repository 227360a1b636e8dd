"""Test that decoding gives each sentence its best valid sequence of tags, independently of other sentences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from entitymill.recognition.best_tags_and_confidence import ViterbiDecoder, make_labels_consistent

LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")
ORDERS = (LABELS, ("I-ORG", "B-PER", "O", "I-PER", "B-ORG"))
LONGEST = 5


def probabilities(seed: int, tokens: int, labels: int = len(LABELS)) -> NDArray[np.float32]:
    chance = np.random.default_rng(seed)
    values = chance.random((tokens, labels)) ** 3
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def valid(tags: list[int], labels: tuple[str, ...]) -> bool:
    names = ["O", *(labels[tag] for tag in tags)]
    return all(not now.startswith("I-") or before in (f"B-{now[2:]}", now) for before, now in itertools.pairwise(names))


def best_by_trying_all(scores: NDArray[np.float32], labels: tuple[str, ...]) -> float:
    logs = np.log(scores.astype(np.float64))
    return max(
        sum(logs[place, tag] for place, tag in enumerate(tags))
        for tags in itertools.product(range(len(labels)), repeat=len(scores))
        if valid(list(tags), labels)
    )


@given(seed=st.integers(0, 10**6), tokens=st.integers(1, LONGEST), labels=st.sampled_from(ORDERS))
def test_it_is_as_good_as_the_best_of_all_valid_sequences(seed: int, tokens: int, labels: tuple[str, ...]) -> None:
    scores = probabilities(seed, tokens)
    tags = ViterbiDecoder(labels).decode(scores, np.zeros(tokens, np.int64)).tolist()
    assert valid(tags, labels)
    total = sum(np.log(scores[place, tag].astype(np.float64)) for place, tag in enumerate(tags))
    assert total == pytest.approx(best_by_trying_all(scores, labels), abs=1e-9)


@given(
    seed=st.integers(0, 10**6), lengths=st.lists(st.integers(0, 12), max_size=12), order=st.randoms(use_true_random=False)
)
def test_a_sentence_is_decoded_alike_whatever_stands_beside_it(seed: int, lengths: list[int], order: object) -> None:
    decoder = ViterbiDecoder(LABELS)
    sentences = [probabilities(seed + number, length) for number, length in enumerate(lengths)]
    alone = [decoder.decode(one, np.zeros(len(one), np.int64)).tolist() for one in sentences]
    numbers = list(range(len(sentences)))
    order.shuffle(numbers)  # type: ignore[attr-defined]
    whole = np.concatenate([np.zeros((0, len(LABELS)), np.float32), *(sentences[number] for number in numbers)])
    sentence_of = np.repeat(np.arange(len(numbers)), [lengths[number] for number in numbers])
    together = decoder.decode(whole, sentence_of).tolist()
    assert together == [tag for number in numbers for tag in alone[number]]
    assert all(valid(tags, LABELS) for tags in alone)


def test_a_valid_sequence_of_best_tags_stays() -> None:
    scores = np.eye(5, dtype=np.float32)[[0, 1, 2, 2, 3, 4, 0]] * 0.9 + 0.02
    assert ViterbiDecoder(LABELS).decode(scores, np.zeros(7, np.int64)).tolist() == [0, 1, 2, 2, 3, 4, 0]


def test_a_kind_without_a_b_may_begin_with_an_i() -> None:
    labels = ("O", "I-PER", "B-ORG", "I-ORG")
    scores = np.eye(4, dtype=np.float32)[[1, 0, 1, 2]] * 0.9 + 0.02
    assert ViterbiDecoder(labels).decode(scores, np.zeros(4, np.int64)).tolist() == [1, 0, 1, 2]


def test_probabilities_of_zero_are_no_error() -> None:
    scores = np.eye(5, dtype=np.float32)[[0, 2, 0]]
    with np.errstate(all="raise"):
        tags = ViterbiDecoder(LABELS).decode(scores, np.zeros(3, np.int64)).tolist()
    assert valid(tags, LABELS)


def test_mentions_spelled_alike_get_the_label_with_the_most_confidence() -> None:
    keys = [(0, "Jordan"), (0, "Jordan"), (0, "Jordan"), (1, "Jordan"), (0, "Paris")]
    kinds, confidences = make_labels_consistent(keys, np.array([0, 1, 1, 0, 0]), np.array([0.9, 0.6, 0.5, 0.4, 0.3]))
    assert kinds.tolist() == [1, 1, 1, 0, 0], "documents do not look at each other"
    assert confidences.tolist() == pytest.approx([0.55, 0.6, 0.5, 0.4, 0.3])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 3), st.floats(0.1, 1)), max_size=20),
    st.randoms(use_true_random=False),
)
def test_the_order_of_documents_does_not_matter(mentions: list[tuple[int, str, int, float]], order: object) -> None:
    def labels(chosen: list[tuple[int, str, int, float]]) -> dict[tuple[int, str], set[int]]:
        keys = [(document, text) for document, text, _, _ in chosen]
        kinds, _ = make_labels_consistent(keys, np.array([m[2] for m in chosen], np.int64), np.array([m[3] for m in chosen]))
        found: dict[tuple[int, str], set[int]] = {}
        for key, kind in zip(keys, kinds.tolist(), strict=True):
            found.setdefault(key, set()).add(kind)
        return found

    documents = [0, 1, 2]
    order.shuffle(documents)  # type: ignore[attr-defined]
    moved = [mention for document in documents for mention in mentions if mention[0] == document]
    together = labels(moved)
    assert all(len(kinds) == 1 for kinds in together.values())
    for document in documents:
        alone = [mention for mention in mentions if mention[0] == document]
        assert labels(alone).items() <= together.items()
