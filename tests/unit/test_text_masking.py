"""Test how mentions in a text are masked and marked, including mentions whose spans overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill.tables.text_masking import mask_text
from entitymill.terminal import console_text
from entitymill_reports import page_excerpts

Span = tuple[int, int, str]


@st.composite
def texts_with_spans(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """Draw a text of distinct characters that occur in no mask, and spans of this text in any order."""
    text = "".join(map(chr, range(0x4E00, 0x4E00 + draw(st.integers(1, 30)))))
    begins = st.integers(0, len(text) - 1)
    span = begins.flatmap(lambda at: st.tuples(st.just(at), st.integers(at + 1, len(text)), st.sampled_from(["PER", "LOC"])))
    return text, draw(st.lists(span, max_size=8))


def inside(spans: list[Span]) -> set[int]:
    return {at for begin, end, _ in spans for at in range(begin, end)}


@given(texts_with_spans())
def test_a_mask_hides_every_character_in_a_span_and_no_other(given_: tuple[str, list[Span]]) -> None:
    text, spans = given_
    hidden = inside(spans)
    assert mask_text(text, spans, "X") == "".join("X" if at in hidden else one for at, one in enumerate(text))
    rest = mask_text(text, spans, "<{label}>").replace("<PER>", "").replace("<LOC>", "")
    assert rest == "".join(one for at, one in enumerate(text) if at not in hidden)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 4, "PER"), (2, 6, "LOC")], "[PER]ghij"),
        ([(0, 8, "ORG"), (2, 4, "LOC")], "[ORG]ij"),
        ([(0, 2, "LOC"), (0, 5, "ORG")], "[ORG]fghij"),
        ([(1, 3, "PER"), (1, 3, "LOC")], "a[LOC]defghij"),
        ([(0, 3, "PER"), (3, 5, "LOC")], "[PER][LOC]fghij"),
    ],
)
def test_overlapping_spans_are_masked_as_one(spans: list[Span], expected: str) -> None:
    """Overlapping spans must get one mask; adjacent spans that share no character must keep separate masks."""
    assert mask_text("abcdefghij", spans, "[{label}]") == expected


@given(texts_with_spans())
def test_marked_texts_show_each_character_once(given_: tuple[str, list[Span]]) -> None:
    text, spans = given_
    line = console_text.mark_mentions(text, sorted(spans), colors=False).plain
    assert [one for one in line if one in text] == list(text)


@given(texts_with_spans())
def test_sentences_of_the_page_show_each_character_once(given_: tuple[str, list[Span]]) -> None:
    text, spans = given_
    mentions = [
        {"doc_id": "a", "sentence_id": 0, "mention_id": str(number), "begin": begin, "end": end, "label": label}
        | {"confidence": 1.0, "sample": sample}
        for number, (begin, end, label) in enumerate(sorted(spans))
        for sample in ("least", "random")
    ]
    sentence = page_excerpts._build_sentence(text, ("a", 0, 0, len(text)), mentions)
    assert "".join(part.text for part in sentence.parts) == text
    assert "".join(part.text for part in sentence.parts if part.label) == "".join(text[at] for at in sorted(inside(spans)))
