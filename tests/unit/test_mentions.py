import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.mentions import TagScheme

LABELS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]


def spans(tags: list[str], sentences: list[int] | None = None) -> list[tuple[int, int, str]]:
    scheme = TagScheme(LABELS)
    found = scheme.spans(
        np.array([LABELS.index(tag) for tag in tags], np.int16),
        np.full(len(tags), 0.5, np.float32),
        np.array(sentences or [0] * len(tags), np.int64),
    )
    kinds = [scheme.kinds[kind] for kind in found.kinds]
    return list(zip(found.first.tolist(), found.last.tolist(), kinds, strict=True))


def as_spark_nlp_joins(tags: list[str], sentences: list[int]) -> list[tuple[int, int, str]]:
    """NerTagsEncoding.fromIOB of Spark NLP 5.5.3, sentence by sentence, in its own order of steps."""
    found = []
    start: int | None = None
    kind = ""
    for i, tag in enumerate(tags):
        if i and sentences[i] != sentences[i - 1] and start is not None:
            found.append((start, i, kind))
            start = None
        if start is not None and (tag.startswith("B-") or tag == "O"):
            found.append((start, i, kind))
            start = None
        if start is None and tag != "O":
            start, kind = i, tag[2:]
    if start is not None:
        found.append((start, len(tags), kind))
    return found


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], []),
        (["O", "O"], []),
        (["B-PER", "I-PER", "O"], [(0, 2, "PER")]),
        (["B-PER", "B-PER"], [(0, 1, "PER"), (1, 2, "PER")]),
        (["O", "I-ORG", "I-ORG"], [(1, 3, "ORG")]),
        # NerConverter goes on through an I- of another label; the first token names the span.
        (["B-PER", "I-ORG", "O", "B-ORG"], [(0, 2, "PER"), (3, 4, "ORG")]),
    ],
)
def test_tags_join_to_spans(tags: list[str], expected: list[tuple[int, int, str]]) -> None:
    assert spans(tags) == expected


def test_a_span_ends_with_its_sentence() -> None:
    assert spans(["B-PER", "I-PER", "I-PER"], [0, 0, 1]) == [(0, 2, "PER"), (2, 3, "PER")]


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.booleans())))
def test_spans_are_those_of_spark_nlps_converter(tokens: list[tuple[str, bool]]) -> None:
    tags = [tag for tag, _ in tokens]
    sentences = np.cumsum([new for _, new in tokens]).tolist() if tokens else []

    assert spans(tags, sentences) == as_spark_nlp_joins(tags, sentences)


def test_confidence_is_the_mean_over_the_spans_tokens() -> None:
    scheme = TagScheme(LABELS)
    found = scheme.spans(
        np.array([0, 1, 2, 0, 3], np.int16), np.array([0.1, 0.9, 0.7, 0.2, 0.6], np.float32), np.zeros(5, np.int64)
    )
    assert found.confidences == pytest.approx([0.8, 0.6])


def test_nothing_has_no_spans() -> None:
    found = TagScheme([]).spans(np.zeros(0, np.int16), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert len(found.first) == 0
