from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from entitymill.errors import ModelError
from entitymill.recognition.tagger import tokens_to_model_input
from entitymill.recognition.tagger.tokens_to_model_input import Encoder, build_wordpiece_tokenizer, gather_rows

words = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), max_size=30)


def pieces_of(encoder: Encoder, tokens: list[str]) -> list[list[int]]:
    found = encoder.encode(tokens)
    return [found.ids[a:b].tolist() for a, b in pairwise(found.starts)]


@given(words)
def test_word_by_word_is_what_the_whole_sentence_encodes_to(encoder: Encoder, tokens: list[str]) -> None:
    tokenizer: Tokenizer = encoder._tokenizer
    whole = tokenizer.encode(tokens, is_pretokenized=True, add_special_tokens=False)
    expected: list[list[int]] = [[] for _ in tokens]
    for piece, word in zip(whole.ids, whole.word_ids, strict=True):
        assert word is not None
        expected[word].append(piece)

    unknown = tokenizer.token_to_id("[UNK]")
    assert unknown is not None
    assert pieces_of(encoder, tokens) == [pieces or [unknown] for pieces in expected]


def test_a_token_that_normalization_empties_still_has_a_piece(encoder: Encoder) -> None:
    assert pieces_of(encoder, ["\u0301", "Paris", "\x00"])[0] == pieces_of(encoder, ["\x00"])[0]
    assert all(len(pieces) == 1 for pieces in pieces_of(encoder, ["\u0301", "\x00"]))


def test_a_monstrous_token_keeps_its_first_pieces(encoder: Encoder) -> None:
    url = "a." * 2000
    assert len(pieces_of(encoder, [url])[0]) == 510


def test_the_cache_starts_anew_when_full(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_to_model_input, "MAX_CACHED_WORDS", 3)
    first = pieces_of(encoder, ["Angela", "Merkel", "met"])
    pieces_of(encoder, ["Emmanuel", "Macron"])
    assert pieces_of(encoder, ["Angela", "Merkel", "met"]) == first
    assert len(encoder._word_numbers) <= 3


def test_the_cache_starts_anew_when_its_words_are_long(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache must also be cleared if it has few words with many characters, as in a column of base64 texts."""
    monkeypatch.setattr(tokens_to_model_input, "MAX_CACHED_CHARACTERS", 1000)
    encoder._clear()
    words = [f"{number}" * 300 for number in range(10)]
    alone = [pieces_of(encoder, [word])[0] for word in words]
    assert sum(map(len, encoder._word_numbers)) <= 1000
    assert pieces_of(encoder, words) == alone
    assert pieces_of(encoder, words[:2]) == alone[:2]
    assert sum(map(len, encoder._word_numbers)) <= 1000


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=8), st.data())
def test_gather_picks_rows_of_a_ragged_array(ragged: list[list[int]], data: st.DataObject) -> None:
    values = np.array([value for row in ragged for value in row], np.int32)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in ragged])]).astype(np.int64)
    rows = data.draw(st.lists(st.integers(0, len(ragged) - 1), max_size=10))

    found, ends = gather_rows(values, starts, np.array(rows, np.int64))

    assert [found[a:b].tolist() for a, b in pairwise(ends)] == [ragged[row] for row in rows]


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "paris", "Paris", "zoe", "Zoe", "Zo", "##ë"]


@pytest.mark.parametrize(
    ("lowercase", "expected"), [(True, ["paris", "zoe"]), (False, ["Paris", "Zo", "##ë"])], ids=["uncased", "cased"]
)
def test_a_bare_vocabulary_is_read_in_either_casing(tmp_path: Path, lowercase: bool, expected: list[str]) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf8")

    encoder = Encoder(build_wordpiece_tokenizer(path, lowercase=lowercase), 10)

    assert [VOCABULARY[i] for i in encoder.encode(["Paris", "Zoë"]).ids] == expected


def test_a_vocabulary_without_special_pieces_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("a\nb\n")
    with pytest.raises(ModelError, match=r"no \[CLS\]"):
        Encoder(build_wordpiece_tokenizer(path, lowercase=True), 10)
