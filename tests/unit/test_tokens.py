"""Test properties that the tokens and sentences of any text must have, with each detector."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difficult_texts import GROUPS
from entitymill.recognition import offsets, sentences, tokens
from entitymill.recognition.tokens import Segments
from own_segments import segment_texts

KINDS = ("dl", "rules", "sentencex")
SPACE = " \t\n\v\f\r\u2187"
"""Characters that Spark NLP's Tokenizer treats as white space."""
SAVED = Path(__file__).parents[2] / "models" / "sentence_detector"

atoms = st.sampled_from([atom for group in GROUPS for atom in group])
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
text = st.lists(st.one_of(atoms, st.sampled_from([" ", "Paris", ". ", "A"]), anything), max_size=12).map("".join)
texts = st.lists(text, max_size=5)
detectors = pytest.mark.parametrize("kind", KINDS)


@cache
def detector(kind: sentences.DetectorKind) -> sentences.Detector:
    return sentences.open_detector(kind, sentences.find_detector_files(SAVED))


def cut(kind: sentences.DetectorKind, column: pa.Array) -> tuple[offsets.Texts, Segments]:
    whole = offsets.read_texts(column)
    return whole, tokens.tokenize(whole, detector(kind).find_breaks(whole))


def spans(found: Segments) -> list[list[int]]:
    arrays = (found.token_begin, found.token_end, found.sentence_of, found.sentence_begin, found.sentence_end)
    return [array.tolist() for array in (*arrays, found.sentence_starts)]


@detectors
@given(texts=texts)
def test_tokens_cover_all_that_is_neither_white_space_nor_a_control_character(
    kind: sentences.DetectorKind, texts: list[str]
) -> None:
    whole, found = cut(kind, pa.array(texts, pa.string()))
    covered = [
        place
        for begin, end in zip(found.token_begin.tolist(), found.token_end.tolist(), strict=True)
        for place in range(begin, end)
    ]
    units = "".join(texts).encode("utf-16-le")
    every = [int.from_bytes(units[at : at + 2], "little") for at in range(0, len(units), 2)]
    shown = [place for place, unit in enumerate(every) if unit > ord(" ") and chr(unit) not in SPACE]

    assert covered == sorted(set(covered))
    assert not set(shown) - set(covered)
    assert not any(chr(every[place]) in SPACE for place in covered)
    assert whole.edges[-1] == len(every)


@detectors
@given(texts=texts)
def test_tokens_lie_in_order_in_their_sentences_and_these_in_their_texts(
    kind: sentences.DetectorKind, texts: list[str]
) -> None:
    whole, found = cut(kind, pa.array(texts, pa.string()))

    assert all(begin < end for begin, end in zip(found.token_begin, found.token_end, strict=True))
    assert all(end <= begin for end, begin in zip(found.token_end[:-1], found.token_begin[1:], strict=True))
    assert found.sentence_of.tolist() == sorted(found.sentence_of)
    assert set(found.sentence_of.tolist()) == set(range(len(found.sentence_begin)))
    for number, (begin, end) in enumerate(zip(found.sentence_begin, found.sentence_end, strict=True)):
        mine = found.sentence_of == number
        assert (found.token_begin[mine].min(), found.token_end[mine].max()) == (begin, end)
    assert found.sentence_tokens.sum() == len(found.token_begin)
    assert found.sentence_starts[-1] == len(found.sentence_begin)
    for row, (first, last) in enumerate(pairwise(found.sentence_starts.tolist())):
        assert (found.sentence_begin[first:last] >= whole.edges[row]).all()
        assert (found.sentence_end[first:last] <= whole.edges[row + 1]).all()


@detectors
@given(texts=texts, before=text, after=text)
def test_a_texts_neighbours_do_not_matter(kind: sentences.DetectorKind, texts: list[str], before: str, after: str) -> None:
    alone = [found for written in texts for found in segment_texts(detector(kind), [written])]
    assert segment_texts(detector(kind), texts) == alone
    assert segment_texts(detector(kind), [before, *texts, after])[1:-1] == alone


@detectors
@given(texts=texts, data=st.data())
def test_a_slice_of_an_array_is_read_from_its_own_start(
    kind: sentences.DetectorKind, texts: list[str], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(texts)))
    size = data.draw(st.integers(0, len(texts) - first))
    for width in (pa.string(), pa.large_string()):
        sliced = cut(kind, pa.array(texts, width).slice(first, size))
        copied = cut(kind, pa.array(texts[first : first + size], pa.string()))
        assert sliced[0].text == copied[0].text
        assert spans(sliced[1]) == spans(copied[1])


@detectors
@pytest.mark.parametrize("empty", [[], [""], ["", "", ""], [" ", "", "\n\t"]], ids=len)
def test_nothing_has_no_sentence(kind: sentences.DetectorKind, empty: list[str]) -> None:
    for width in (pa.string(), pa.large_string()):
        _, found = cut(kind, pa.array(empty, width))
        assert spans(found) == [[], [], [], [], [], [0] * (len(empty) + 1)]


@detectors
def test_empty_texts_at_either_end_move_nothing(kind: sentences.DetectorKind) -> None:
    written = "Angela came. She met him."
    alone = segment_texts(detector(kind), [written])
    assert segment_texts(detector(kind), ["", "", written, "", "\x01", "", written, ""])[2::4] == [alone[0], alone[0]]
    assert len(alone[0].sentences) == 2


def test_punctuation_at_a_words_ends_is_apart() -> None:
    found = segment_texts(detector("rules"), ['("Well-known", U.S.!) -- it\'s'])[0]
    assert [('("Well-known", U.S.!) -- it\'s')[b:e] for b, e in found.tokens] == [
        '("',
        "Well-known",
        '",',
        "U.S",
        ".!)",
        "--",
        "it's",
    ]
