"""Test where the three detectors find sentences, and that no malicious text slows any of them down."""

from __future__ import annotations

import time
from functools import cache
from math import inf
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from entitymill.errors import ModelError
from entitymill.recognition import offsets, sentences, sentences_dl, tokens
from entitymill.recognition.sentences import Detector, DetectorKind
from entitymill.recognition.tagger.tokens_to_model_input import Encoder
from hostile_texts import HOSTILE_TEXTS, LONG, SAMPLE, healthy
from own_segments import segment_texts

SAVED = Path(__file__).parents[2] / "models" / "sentence_detector"
KINDS: tuple[DetectorKind, ...] = ("dl", "rules", "sentencex")
SHARE = 10
TRIES = 6


@cache
def detector(kind: DetectorKind) -> Detector:
    return sentences.open_detector(kind, sentences.find_detector_files(SAVED))


def found(kind: DetectorKind, text: str) -> list[str]:
    units = text.encode("utf-16-le")
    return [
        units[2 * begin : 2 * end].decode("utf-16-le") for begin, end in segment_texts(detector(kind), [text])[0].sentences
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wanted",
    [
        ["Angela Merkel came to Paris.", "Nobody else did!", "Why?"],
        ["😀 They met in Rome.", "Then 𝒳 came."],
        ["Mr. Smith and Dr. Jones of the U.S. came."],
        ["It cost 3.14 dollars.", "They paid."],
    ],
    ids=lambda wanted: wanted[0][:12],
)
def test_plain_english_is_cut_where_a_reader_would(kind: DetectorKind, wanted: list[str]) -> None:
    assert found(kind, " ".join(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a ╔ b. c. d", ["a ╔ b.", "c.", "d"]),
        ("\uf050a. b\uf056 c. d\uf057", ["\uf050a.", "b\uf056 c.", "d\uf057"]),
        ("He said 'x'\\ and left. Then. ", ["He said 'x'\\ and left.", "Then."]),
        ("'a. b'\\ c. d", ["'a. b'\\ c.", "d"]),
    ],
)
def test_where_spark_nlps_rules_lose_count_ours_do_not(text: str, wanted: list[str]) -> None:
    assert found("rules", text) == wanted


@pytest.mark.parametrize(("text", "wanted"), [("A.\xa0B. C", 1), ("No. 5.\u3000Then. " * 3, 3)])
def test_sentencex_survives_white_space_of_more_bytes(text: str, wanted: int) -> None:
    assert len(found("sentencex", text)) >= wanted
    assert "".join("".join(found("sentencex", text)).split()) == "".join(text.split())


def test_sentencex_finds_the_same_however_long_the_text_is(monkeypatch: pytest.MonkeyPatch) -> None:
    long = " ".join(f"{text} {number}." for number in range(40) for text in SAMPLE)
    wrapped = ("Angela Merkel went " + "on and on " * 700 + "to Paris. ") * 2 + "Then she left."
    by_passage = [segment_texts(detector("sentencex"), [text]) for text in (long, wrapped)]
    monkeypatch.setattr(sentences, "_PASSAGE_CHARACTERS", 10**9)
    whole = [segment_texts(detector("sentencex"), [text]) for text in (long, wrapped)]
    assert by_passage == whole
    assert [len(found[0].sentences) for found in whole] == [len(whole[0][0].sentences), 3]
    assert len(whole[0][0].sentences) > 200


def test_sentencex_finds_the_end_of_a_long_sentence_wherever_it_is() -> None:
    for length in range(1980, 2020):
        long = "The " + "word " * (length // 5 - 2) + "x" * (length % 5) + "said."
        spans = segment_texts(detector("sentencex"), [f"{long} Next he left. And another went."])[0].sentences
        assert [end - begin for begin, end in spans] == [len(long), 13, 17], length


def test_where_sentencex_breaks_off_the_rules_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def broken(*_: str) -> None:
        raise PanicException

    text = "One came. Two left."
    monkeypatch.setattr("sentencex.get_sentence_boundaries", broken)
    assert found("sentencex", text) == found("rules", text)


def test_a_keyboard_interrupt_is_no_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sentencex.get_sentence_boundaries", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found("sentencex", "One.")


def test_a_detector_without_its_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a saved SentenceDetectorDLModel"):
        sentences.open_detector("dl", sentences.find_detector_files(tmp_path))


def test_logits_do_not_depend_on_how_many_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = detector("dl")._network  # type: ignore[attr-defined]
    windows = np.random.default_rng(1).integers(0, 70, (1100, 11)).astype(np.uint16)
    whole = network.compute_logits(windows)
    assert np.allclose(
        whole, np.concatenate([network.compute_logits(windows[at : at + 7]) for at in range(0, 1100, 7)]), atol=1e-12
    )
    assert len({*whole.round(6)}) > 1000


def test_a_text_of_control_characters_is_one_deep_sentence_whatever_the_network_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in Spark NLP, a text of only control characters must be one sentence, even if the network finds several."""
    monkeypatch.setattr(detector("dl")._network, "compute_logits", lambda windows: np.ones(len(windows)))  # type: ignore[attr-defined]
    found = segment_texts(detector("dl"), ["a\nb", "\x01\n\x02", "\x01"])
    assert [cut.sentences for cut in found] == [[(0, 1), (2, 3)], [(0, 3)], []]


def test_windows_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text[:2000] for text in HOSTILE_TEXTS.values()]
    wanted = segment_texts(detector("dl"), texts)
    monkeypatch.setattr(sentences_dl, "_HASH_FACTORS", np.zeros(11, np.uint64))
    assert segment_texts(detector("dl"), texts) == wanted


def seconds(kind: DetectorKind, text: str, encoder: Encoder) -> float:
    """Return the CPU seconds that a text takes before the tagger's network runs."""
    encoder._clear()
    began = time.process_time()
    whole = offsets.read_texts(pa.array([text]))
    cut = tokens.tokenize(whole, detector(kind).find_breaks(whole))
    pieces = encoder.encode(whole.extract_substrings(cut.token_begin, cut.token_end))
    spent = time.process_time() - began
    assert len(pieces.ids) >= len(cut.token_begin) >= len(cut.sentence_begin)
    return spent


@pytest.mark.deep
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_takes_more_than_ten_times_its_share_of_time(kind: DetectorKind, encoder: Encoder) -> None:
    share = min(seconds(kind, healthy(LONG), encoder) for _ in range(TRIES))
    slow = {}
    for name, text in HOSTILE_TEXTS.items():
        # Use the fastest of several tries, because this machine may be busy.
        least = inf
        for _ in range(TRIES):
            least = min(least, seconds(kind, text, encoder) / share / max(1, len(text) / LONG))
            if least < SHARE:
                break
        if least >= SHARE:
            slow[name] = round(least, 1)
    assert slow == {}


def test_there_is_enough_that_is_nasty() -> None:
    assert len(HOSTILE_TEXTS) >= 60
    assert sum(len(text) >= LONG for text in HOSTILE_TEXTS.values()) >= 60
    assert max(map(len, HOSTILE_TEXTS.values())) >= 1_000_000


def test_what_is_no_panic_of_sentencex_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("sentencex.get_sentence_boundaries", broken)
    with pytest.raises(ValueError, match="a bug"):
        sentences._find_begins("One. Two.")
