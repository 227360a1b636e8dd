import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.offsets import code_points

text = st.text(st.characters(exclude_categories=("Cs",)))


@given(text, st.data())
def test_a_span_in_utf16_units_is_the_same_text_in_code_points(written: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(written)))
    end = data.draw(st.integers(begin, len(written)))
    units = [len(written[:at].encode("utf-16-le")) // 2 for at in (begin, end)]

    found = code_points(written, np.array(units, np.int32)).tolist()

    assert found == [begin, end]


def test_an_emoji_before_an_entity_moves_it_by_one_not_two() -> None:
    written = "😀 Angela"
    assert code_points(written, np.array([0, 2, 3, 9], np.int32)).tolist() == [0, 1, 2, 8]
