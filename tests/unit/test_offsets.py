"""Test the conversion of offsets between UTF-16 code units and code points."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition import offsets

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
texts = st.lists(text, max_size=6)


@given(texts)
def test_texts_are_read_end_to_end(written: list[str]) -> None:
    for width in (pa.string(), pa.large_string()):
        found = offsets.read_texts(pa.array(written, width))
        assert found.text == "".join(written)
        assert len(found) == len(written)
        assert found.code_units.astype("<u2").tobytes() == found.text.encode("utf-16-le")
        edges = found.to_code_points(found.edges).tolist()
        assert [found.text[begin:end] for begin, end in pairwise(edges)] == written


@given(texts, st.data())
def test_a_span_in_units_is_the_same_text_in_code_points(written: list[str], data: st.DataObject) -> None:
    found = offsets.read_texts(pa.array(written, pa.string()))
    begin = data.draw(st.integers(0, len(found.text)))
    end = data.draw(st.integers(begin, len(found.text)))
    units = np.array([len(found.text[:at].encode("utf-16-le")) // 2 for at in (begin, end)])

    assert found.to_code_points(units).tolist() == [begin, end]
    assert found.to_positions(np.array([begin, end])).tolist() == units.tolist()
    assert found.extract_substrings(units[:1], units[1:]) == [found.text[begin:end]]


@given(texts)
def test_a_place_belongs_to_the_text_it_lies_in(written: list[str]) -> None:
    found = offsets.read_texts(pa.array(written, pa.string()))
    expected = [row for row, text in enumerate(written) for _ in range(offsets.utf16_length(text))]
    assert found.find_texts(np.arange(len(found.code_units))).tolist() == expected


def test_an_emoji_before_an_entity_moves_it_by_one_not_two() -> None:
    found = offsets.read_texts(pa.array(["😀 Angela"]))
    assert found.to_code_points(np.array([0, 2, 3, 9])).tolist() == [0, 1, 2, 8]


def test_a_lone_surrogate_is_one_unit() -> None:
    assert offsets.utf16_length("a\ud800😀") == 4


def test_an_array_without_a_buffer_is_read() -> None:
    assert offsets.read_texts(pa.array(["", ""], pa.string())).edges.tolist() == [0, 0, 0]
    assert offsets.read_texts(pa.array([], pa.string())).edges.tolist() == [0]
