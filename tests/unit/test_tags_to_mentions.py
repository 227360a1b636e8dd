import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.tags_to_mentions import MAX_TRIMMED_CHARS, TagScheme, measure_trim

LABELS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]


def spans(tags: list[str], sentences: list[int] | None = None) -> list[tuple[int, int, str]]:
    scheme = TagScheme(LABELS)
    found = scheme.join_tags_to_spans(
        np.array([LABELS.index(tag) for tag in tags], np.int16),
        np.full(len(tags), 0.5, np.float32),
        np.array(sentences or [0] * len(tags), np.int64),
    )
    kinds = [scheme.kinds[kind] for kind in found.kinds]
    return list(zip(found.begin.tolist(), found.end.tolist(), kinds, strict=True))


def as_spark_nlp_joins(tags: list[str], sentences: list[int]) -> list[tuple[int, int, str]]:
    """Join tags to spans with the algorithm of NerTagsEncoding.fromIOB in Spark NLP 5.5.3."""
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
        # NerConverter continues a span at an I- tag of another label; the first tag determines the label.
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
    found = scheme.join_tags_to_spans(
        np.array([0, 1, 2, 0, 3], np.int16), np.array([0.1, 0.9, 0.7, 0.2, 0.6], np.float32), np.zeros(5, np.int64)
    )
    assert found.confidences == pytest.approx([0.8, 0.6])


def test_nothing_has_no_spans() -> None:
    found = TagScheme([]).join_tags_to_spans(np.zeros(0, np.int16), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert len(found.begin) == 0


def name_in(entity: str) -> str:
    front, back = measure_trim(entity)
    return entity[front : len(entity) - back]


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        # possessives
        ("America's", "America"),
        ("America\u2019s", "America"),
        ("AMERICA'S", "AMERICA"),
        ("the Democrats'", "the Democrats"),
        ("U.S.'s", "U.S."),
        ('"The Wire"\'s', "The Wire"),
        # punctuation
        ("Washington.", "Washington"),
        ("Washington,", "Washington"),
        ('Washington."', "Washington"),
        ("Washington...", "Washington"),
        ("Yahoo!", "Yahoo"),
        ("- Paris -", "Paris"),
        ("#Denver", "Denver"),
        ("\u201cAmerica", "America"),
        ('"The Wire"', "The Wire"),
        ("(NATO)", "NATO"),
        ("(NATO", "NATO"),
        ("NATO)", "NATO"),
        ("[NATO),", "NATO"),
        (") NATO (", "NATO"),
        ("Amazon.com.", "Amazon.com"),
        ("Windows 3.1.", "Windows 3.1"),
        ("'Abd al-Rahman", "Abd al-Rahman"),
        # markup and emoji
        ("Bank</b", "Bank"),
        ("Paulo</a>", "Paulo"),
        ("<p>Satya Nadella", "Satya Nadella"),
        ('href="x">Deutsche Bank</a>.', "Deutsche Bank"),
        ("<b>Bank</b> of America", "Bank"),
        ("Paris\U0001f1eb\U0001f1f7", "Paris"),
        ("\u2764\ufe0f Anna \U0001f468\u200d\U0001f469\u200d\U0001f467", "Anna"),
    ],
)
def test_what_is_no_part_of_a_name_goes(entity: str, expected: str) -> None:
    assert name_in(entity) == expected


@pytest.mark.parametrize(
    "entity",
    [
        "America",
        "U.S.",
        "Washington, D.C.",
        "Acme Inc.",
        "J.P. Morgan & Co.",
        "Martin Luther King Jr.",
        "John F.",
        "St.",
        "Richmond, Va.",
        "Ph.D.",
        "Spider-Man (film)",
        "(I) and (II)",
        'Dwayne "The Rock"',
        "Moody's",
        "Standard & Poor's",
        "MCDONALD'S",
        "'s-Hertogenbosch",
        "'t Hooft",
        ".NET Framework",
        "C++",
        "O'Hara",
        "U.S.-led",
        "I <3 NY",
        "",
        "'s",
        "...",
        '"!"',
    ],
)
def test_what_belongs_to_a_name_stays(entity: str) -> None:
    assert name_in(entity) == entity


def test_an_abbreviation_keeps_one_stop_alone() -> None:
    assert name_in('U.S.."') == "U.S."
    assert name_in('Acme Inc.",') == "Acme Inc."


def test_what_is_too_long_for_a_name_stays() -> None:
    entity = "a" + ")" * MAX_TRIMMED_CHARS
    assert name_in(entity) == entity


@given(st.one_of(st.text(), st.text(alphabet="aS1. '\u2019\"()[]\u201c\u201d,;-#&</>\u2764", max_size=12)))
def test_trimming_never_widens_or_empties_and_twice_is_once(entity: str) -> None:
    front, back = measure_trim(entity)

    assert front >= 0 and back >= 0
    assert front + back < len(entity) or not entity
    assert measure_trim(name_in(entity)) == (0, 0)
