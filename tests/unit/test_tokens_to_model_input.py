from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.inference import read_tokenizer
from entitymill.recognition.tagger.tokens_to_model_input import (
    CONTEXT_SHARE,
    SPECIAL_PIECES,
    CompleteRows,
    Encoder,
    Windows,
    plan_windows,
)

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

    owned = [token for a, b in zip(windows.own_begin, windows.own_end, strict=True) for token in range(a, b)]
    assert owned == list(range(starts[-1]))
    assert (windows.begin <= windows.own_begin).all()
    assert (windows.own_end <= windows.end).all()


@given(sentences)
def test_no_window_is_over_capacity_or_crosses_a_sentence(pieces: list[list[int]]) -> None:
    windows, piece_starts, starts = planned(pieces)

    assert (piece_starts[windows.end] - piece_starts[windows.begin] <= CAPACITY).all()
    sentence_of = np.searchsorted(starts, windows.begin, side="right")
    assert (sentence_of == np.searchsorted(starts, windows.end - 1, side="right")).all()


@given(sentences)
def test_just_the_long_sentences_are_split(pieces: list[list[int]]) -> None:
    windows, _, _ = planned(pieces)

    assert windows.split_sentences.tolist() == [i for i, s in enumerate(pieces) if sum(s) > CAPACITY]


@pytest.mark.parametrize("tokens", [511, 1000, 5000])
def test_inner_tokens_have_context_on_either_side(tokens: int) -> None:
    capacity = 510
    windows, _, _ = planned([[1] * tokens], capacity)

    context = capacity // CONTEXT_SHARE
    assert (windows.own_begin[1:] - windows.begin[1:] >= context).all()
    assert (windows.end[:-1] - windows.own_end[:-1] >= context).all()
    assert all(second < first_end for (_, first_end), (second, _) in pairwise(zip(windows.begin, windows.end, strict=True)))


def test_a_sentence_with_a_word_of_more_pieces_than_a_row_is_counted_as_split(
    demo_files: dict[str, Path], demo_manifest: bundle.Manifest
) -> None:
    """The sentence must count as split, because the word is cut and the tagger does not see the rest of its pieces."""
    rows = CompleteRows(Encoder(read_tokenizer(demo_files, demo_manifest), CAPACITY), CAPACITY + SPECIAL_PIECES)
    fits, cut = "." * CAPACITY, "." * (CAPACITY + 1)
    tokens = ["Paris", fits, cut, "Rome", cut, "met"]
    starts = np.array([0, 1, 2, 3, 6])
    assert rows.make_rows(tokens, starts, np.arange(6)).split.tolist() == [2, 3]
    assert rows.make_rows(["Paris", fits], np.array([0, 1, 2]), np.arange(2)).split.tolist() == []
