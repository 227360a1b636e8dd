"""Test the package `recognition` as a whole, from texts to mentions, with the bundled model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difficult_texts import GROUPS
from entitymill import schemas
from entitymill.recognition import offsets, sentences, tokens
from entitymill.recognition.best_tags_and_confidence import Scaling
from entitymill.recognition.recognizer import Recognition, Recognizer, build_recognition, join_tags
from entitymill.recognition.tagger import Execution, Tags, bundle
from entitymill.recognition.tagger.inference import Tagger
from entitymill.tables.text_masking import mask_text

FILES = sentences.find_detector_files(Path(__file__).parents[2] / "models" / "sentence_detector")
KINDS: tuple[sentences.DetectorKind, ...] = ("dl", "rules", "sentencex")
Make = Callable[..., Recognizer]


@pytest.fixture(scope="session")
def make(tagger: Tagger) -> Make:
    def made(kind: sentences.DetectorKind = "dl", *, trim: bool = True, by: Tagger = tagger) -> Recognizer:
        return Recognizer(sentences.open_detector(kind, FILES), by, trim=trim)

    return made


def mentions(found: Recognition) -> list[list[dict[str, Any]]]:
    return found.mentions.to_pylist()


def named(found: Recognition) -> list[list[tuple[str, str, int]]]:
    return [[(m["entity"], m["label"], m["sentence_id"]) for m in text] for text in mentions(found)]


def close(found: Recognition) -> list[list[dict[str, Any]]]:
    return [[{**m, "confidence": pytest.approx(m["confidence"], abs=1e-5)} for m in text] for text in mentions(found)]


atoms = st.sampled_from(
    ["Angela Merkel", " met ", "Paris", ". ", "😀", "𝒳", "é", "\u200f", "\0", "\n", *GROUPS[0], *GROUPS[7]]
)
texts = st.lists(st.lists(atoms, max_size=10).map("".join), max_size=4)


def test_the_parts_of_recognition_take_all_of_its_time(make: Make) -> None:
    recognizer, texts = make(), pa.array(["Angela Merkel met Emmanuel Macron in Paris."] * 100)
    before, began = asdict(recognizer.seconds), perf_counter()
    recognizer(texts)
    whole = perf_counter() - began
    spent = {part: seconds - before[part] for part, seconds in asdict(recognizer.seconds).items()}
    assert tuple(spent) == schemas.PARTS
    assert min(spent.values()) > 0
    assert sum(spent.values()) == pytest.approx(whole, rel=0.1)


def check_mentions(texts: list[str], found: Recognition) -> None:
    assert len(found.mentions) == len(found.sentences) == len(found.tokens) == len(found.split_sentences) == len(texts)
    for text, of_it, count in zip(texts, mentions(found), found.sentences.to_pylist(), strict=True):
        for mention in of_it:
            assert text[mention["begin"] : mention["end"]] == mention["entity"] != ""
            assert mention["sentence_begin"] <= mention["begin"] < mention["end"] <= mention["sentence_end"]
            assert 0 <= mention["sentence_id"] < count
            assert mention["token_count"] >= 1
            assert 0 < mention["confidence"] <= 1


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(texts=texts, trim=st.booleans())
def test_every_mention_is_the_text_at_its_offsets(
    make: Make, kind: sentences.DetectorKind, texts: list[str], trim: bool
) -> None:
    check_mentions(texts, make(kind, trim=trim)(pa.array(texts, pa.string())))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_get_their_own_mentions_and_counts(make: Make, kind: sentences.DetectorKind) -> None:
    texts = ["", "😀 Angela Merkel met Emmanuel Macron. Then nobody else came.", " ", "They met in Paris."]
    found = make(kind)(pa.array(texts))

    assert named(found) == [[], [("Angela Merkel", "PER", 0), ("Emmanuel Macron", "PER", 0)], [], [("Paris", "LOC", 0)]]
    assert found.sentences.to_pylist() == [0, 2, 0, 1]
    assert found.tokens.to_pylist() == [0, 12, 0, 5]
    assert mentions(found)[1][0]["begin"] == 2


def test_neighbours_change_nothing(make: Make) -> None:
    texts = ["Angela Merkel came.", "", "They met in Paris. It rained in Rome.", "Apple Inc. of Austin, Texas, said no."]
    recognize = make()
    alone = [close(recognize(pa.array([text])))[0] for text in texts]
    assert mentions(recognize(pa.array(texts))) == alone
    assert mentions(recognize(pa.array(["x. y", *texts, "Berlin."]).slice(1, 4))) == alone
    assert mentions(recognize(pa.array(texts, pa.large_string()))) == alone


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_gives_no_rows_and_empty_texts_none_each(make: Make, kind: sentences.DetectorKind) -> None:
    for width in (pa.string(), pa.large_string()):
        assert mentions(make(kind)(pa.array([], width))) == []
        assert mentions(make(kind)(pa.array(["", "", "\x01"], width))) == [[], [], []]


def test_mentions_are_trimmed_where_they_are_to_be(make: Make) -> None:
    text = "Angela Merkel's party won in “Paris”. It is America's."
    trimmed, whole = (named(make(trim=trim)(pa.array([text])))[0] for trim in (True, False))
    assert [entity for entity, _, _ in trimmed][:1] == ["Angela Merkel"]
    assert [entity for entity, _, _ in whole][:1] == ["Angela Merkel's"]
    assert {label for _, label, _ in trimmed} == {label for _, label, _ in whole}


def test_a_token_that_is_trimmed_off_is_not_counted() -> None:
    whole = offsets.read_texts(pa.array(["So “ Paris Hilton ” left"]))
    cut = tokens.tokenize(whole, np.zeros(0, np.int64))
    told = Tags(
        np.arange(6), np.array([0, 1, 2, 2, 2, 0], np.int16), np.full(6, 0.5, np.float32), None, np.zeros(1, np.bool_)
    )
    found = join_tags(whole, cut, told, ["O", "B-PER", "I-PER"])

    trimmed, untrimmed = (build_recognition(found, trim=trim).mentions.to_pylist()[0] for trim in (True, False))

    assert [(m["entity"], m["token_count"]) for m in trimmed] == [("Paris Hilton", 2)]
    assert [(m["entity"], m["token_count"]) for m in untrimmed] == [("“ Paris Hilton ”", 4)]


def test_a_token_without_a_tag_ends_a_span() -> None:
    whole = offsets.read_texts(pa.array(["Paris Hilton left"]))
    cut = tokens.tokenize(whole, np.zeros(0, np.int64))
    told = Tags(np.array([2, 0]), np.array([2, 1], np.int16), np.full(2, 0.5, np.float32), None, np.zeros(1, np.bool_))
    found = build_recognition(join_tags(whole, cut, told, ["O", "B-PER", "I-PER"]), trim=True).mentions.to_pylist()[0]
    assert [m["entity"] for m in found] == ["Paris", "left"]


def test_a_sentence_said_again_has_its_mentions_again(make: Make) -> None:
    sentence = "Angela Merkel met Emmanuel Macron in Paris."
    once, often = (make()(pa.array([" ".join([sentence] * count)])) for count in (1, 50))

    assert often.sentences.to_pylist() == [50]
    assert [(m["sentence_id"], m["begin"] - m["sentence_begin"], m["entity"]) for m in mentions(often)[0]] == [
        (number, m["begin"], m["entity"]) for number in range(50) for m in mentions(once)[0]
    ]


def test_sentences_over_the_models_limit_are_tagged_whole_and_counted(
    make: Make, load_tagger: Callable[..., Tagger]
) -> None:
    long = "They met " + "and talked and met again and " * 30 + "at last came to Paris, where Angela Merkel was."
    found = make(by=load_tagger(max_length=64))(pa.array([long, "She came.", f"{long} {long}"]))

    assert found.split_sentences.to_pylist() == [1, 0, 2]
    assert [entity for entity, _, _ in named(found)[0]] == ["Paris", "Angela Merkel"]


def test_annotations_are_spark_nlps(make: Make) -> None:
    text = "😀 It rained. Angela Merkel's car was in Paris."
    found = make("rules")(pa.array(["", text]), annotations=True)
    units = text.encode("utf-16-le")

    assert set(found.annotations) == {"ner", "ner_chunk"}
    assert found.annotations["ner"].to_pylist()[0] == found.annotations["ner_chunk"].to_pylist()[0] == []
    tags, chunks = (found.annotations[name].to_pylist()[1] for name in ("ner", "ner_chunk"))
    assert len(tags) == found.tokens.to_pylist()[1]
    for annotated in (*tags, *chunks):
        written = units[2 * annotated["begin"] : 2 * annotated["end"] + 2].decode("utf-16-le")
        metadata = dict(annotated["metadata"])
        assert written == (metadata["word"] if annotated["annotatorType"] == "named_entity" else annotated["result"])
    # NerConverter's chunks are never trimmed.
    assert [(chunk["result"], dict(chunk["metadata"])["sentence"]) for chunk in chunks] == [
        ("Angela Merkel's", "1"),
        ("Paris", "1"),
    ]
    assert all(abs(sum(float(p) for n, p in tag["metadata"] if n not in ("word", "sentence")) - 1) < 1e-4 for tag in tags)


def test_the_models_scaling_changes_confidences_alone_and_not_with_spark_nlps_encoding(
    demo_files: dict[str, Path], demo_manifest: bundle.Manifest
) -> None:
    scaled = demo_manifest.model_copy(update={"confidence": {"PER": Scaling(temperature=2, offset=-1)}})
    plain = demo_manifest.model_copy(update={"confidence": {}})
    detector = sentences.open_detector("rules", {})
    written = pa.array(["Angela Merkel flew to Paris."], pa.large_string())

    def rows(manifest: bundle.Manifest, execution: Execution) -> list[dict[str, Any]]:
        return mentions(Recognizer(detector, Tagger.load(demo_files, manifest, execution), trim=True)(written))[0]

    before, after = rows(plain, Execution()), rows(scaled, Execution())
    person = before[0]["confidence"]
    assert after[0]["confidence"] == pytest.approx(1 / (1 + np.exp(-(np.log(person / (1 - person)) / 2 - 1))), abs=1e-5)
    assert after[1] == before[1]  # LOC has no scaling
    assert {**after[0], "confidence": 0} == {**before[0], "confidence": 0}
    as_sparknlp = Execution(encoding="sparknlp")
    assert rows(scaled, as_sparknlp) == rows(plain, as_sparknlp)


def test_html_is_no_part_of_mentions_and_offsets_count_it(tagger: Tagger) -> None:
    text = "<p>Angela Merkel<br>flew to <b>Paris</b>.</p><!-- Berlin --><ul><li>Emmanuel <i>Macron</i></ul>"
    recognizer = Recognizer(sentences.open_detector("sentencex", {}), tagger, trim=True, markup="html")
    found = recognizer(pa.array(["", text, "Paris"], pa.large_string()))
    check_mentions(["", text, "Paris"], found)
    assert [mention["entity"] for mention in mentions(found)[1]] == ["Angela Merkel", "Paris", "Emmanuel <i>Macron"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_tag_ends_a_sentence(tagger: Tagger, kind: sentences.DetectorKind) -> None:
    text = "<ul><li>the <i>talks</i> in Paris<li>a walk\nwith Angela Merkel<br>in Rome</ul><!-- é --><p>😀 Nobody came</p>"
    recognizer = Recognizer(sentences.open_detector(kind, FILES), tagger, trim=True, markup="html")
    for texts in ([text], ["", text, "Paris"], [text.replace("😀", "Yes")]):
        found = recognizer(pa.array(texts))
        check_mentions(texts, found)
        (named_,) = (rows for rows in named(found) if len(rows) > 1)
        assert [(entity, sentence) for entity, _, sentence in named_] == [("Paris", 0), ("Angela Merkel", 1), ("Rome", 2)]
        assert max(found.sentences.to_pylist()) == 4


WIDE = "Came to\u00a0Paris and met\u2003Angela\u00a0Merkel\u202f(with\u00a0Emmanuel\u3000Macron\u00a0) at\u2028Apple\u00a0."


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trim", [True, False])
def test_blanks_of_any_width_separate_words(make: Make, kind: sentences.DetectorKind, trim: bool) -> None:
    for texts in ([WIDE], ["", f"😀 {WIDE}", "\u00a0"]):
        found = make(kind, trim=trim)(pa.array(texts), annotations=True)
        check_mentions(texts, found)
        row = len(texts) // 2
        entities = [entity for entity, _, _ in named(found)[row]]
        assert entities == ["Paris", "Angela\u00a0Merkel", "Emmanuel\u3000Macron", "Apple"]
        assert [chunk["result"] for chunk in found.annotations["ner_chunk"].to_pylist()[row]] == entities
    assert (found.sentences[2].as_py(), found.tokens[2].as_py()) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_sparknlp_splits_words_only_at_ascii_blanks(
    make: Make, load_tagger: Callable[..., Tagger], kind: sentences.DetectorKind
) -> None:
    detector = sentences.open_detector(kind, FILES)
    texts = offsets.read_texts(pa.array([WIDE]))
    expected = tokens.tokenize(texts, detector.find_breaks(texts))
    words = texts.extract_substrings(expected.token_begin, expected.token_end)
    assert "met\u2003Angela\u00a0Merkel\u202f(with\u00a0Emmanuel\u3000Macron\u00a0" in words

    found = make(kind, by=load_tagger(encoding="sparknlp"))(pa.array([WIDE]), annotations=True)

    assert [dict(tag["metadata"])["word"] for tag in found.annotations["ner"].to_pylist()[0]] == words
    assert (found.tokens.to_pylist(), found.sentences.to_pylist()) == ([len(words)], [len(expected.sentence_begin)])


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("<p>Satya Nadella", "<p>[PER]"),
        ("<p>Satya Nadella flew to <b>Paris</b>.</p>", "<p>[PER] flew to <b>[LOC]</b>.</p>"),
        ("<p>Satya <b>Nadella</b> flew to Paris.</p>", "<p>[PER]</b> flew to [LOC].</p>"),
    ],
)
def test_a_mask_covers_the_name_and_leaves_the_tags_around_it(tagger: Tagger, text: str, masked: str) -> None:
    """With `source.markup: html`, `entitymill redact` must keep tags around a name, and mask a tag within a name."""
    recognizer = Recognizer(sentences.open_detector("sentencex", {}), tagger, trim=True, markup="html")
    (found,) = mentions(recognizer(pa.array([text])))
    assert mask_text(text, [(m["begin"], m["end"], m["label"]) for m in found], "[{label}]") == masked
