from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.tagger.model_rows import CONTEXT_SHARE, Windows, plan_windows

CAPACITY = 16
sentences = st.lists(st.lists(st.integers(1, CAPACITY), min_size=1, max_size=60), min_size=1, max_size=8)


def planned(pieces: list[list[int]], capacity: int = CAPACITY) -> tuple[Windows, np.ndarray, np.ndarray]:
    flat = np.array([count for sentence in pieces for count in sentence], np.int64)
    piece_starts = np.concatenate([[0], np.cumsum(flat)])
    sentence_starts = np.concatenate([[0], np.cumsum([len(sentence) for sentence in pieces])])
    return plan_windows(piece_starts, sentence_starts, capacity), piece_starts, sentence_starts


@given(sentences)
def test_every_token_is_decided_once_by_a_window_that_holds_it(pieces: list[list[int]]) -> None:
    windows, _, starts = planned(pieces)

    owned = [token for a, b in zip(windows.own_first, windows.own_last, strict=True) for token in range(a, b)]
    assert owned == list(range(starts[-1]))
    assert (windows.first <= windows.own_first).all()
    assert (windows.own_last <= windows.last).all()


@given(sentences)
def test_no_window_is_over_capacity_or_crosses_a_sentence(pieces: list[list[int]]) -> None:
    windows, piece_starts, starts = planned(pieces)

    assert (piece_starts[windows.last] - piece_starts[windows.first] <= CAPACITY).all()
    sentence_of = np.searchsorted(starts, windows.first, side="right")
    assert (sentence_of == np.searchsorted(starts, windows.last - 1, side="right")).all()


@given(sentences)
def test_just_the_long_sentences_are_split(pieces: list[list[int]]) -> None:
    windows, _, _ = planned(pieces)

    assert windows.split_sentences.tolist() == [i for i, s in enumerate(pieces) if sum(s) > CAPACITY]


@pytest.mark.parametrize("tokens", [511, 1000, 5000])
def test_inner_tokens_have_context_on_either_side(tokens: int) -> None:
    capacity = 510
    windows, _, _ = planned([[1] * tokens], capacity)

    context = capacity // CONTEXT_SHARE
    assert (windows.own_first[1:] - windows.first[1:] >= context).all()
    assert (windows.last[:-1] - windows.own_last[:-1] >= context).all()
    assert all(second < first_end for (_, first_end), (second, _) in pairwise(zip(windows.first, windows.last, strict=True)))
