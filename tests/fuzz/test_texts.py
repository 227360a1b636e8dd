"""Test recognition of odd texts: mentions are in order, have the text at their offsets, and can be masked."""

from __future__ import annotations

import itertools
import random

import pyarrow as pa

from difficult_texts import GROUPS, generate_texts
from entitymill.recognition import sentences
from entitymill.recognition.recognizer import Recognizer
from entitymill.recognition.tagger.inference import Tagger
from entitymill.tables.text_masking import mask_text
from fuzzing import attempt, report, tries
from hostile_texts import PHRASES, SAMPLE
from unit.test_recognizer import FILES, KINDS, check_mentions

AT_ONCE = 61
ODD = [atom for group in GROUPS for atom in group]
EVERY_PHRASE = [text[:60] for text in PHRASES.values()]


def odd_text(draw: random.Random, fuzz: str) -> str:
    """Return sentences with names, and with odd characters and phrases before, between and inside the words."""
    words = " ".join(draw.choices(SAMPLE, k=draw.choice([1, 2, 2, 3, 3]))).split(" ")
    for _ in range(draw.choice([0, 1, 3, 10])):
        at = draw.randrange(len(words) + 1)
        words[at:at] = [draw.choice([draw.choice(ODD), draw.choice(EVERY_PHRASE)])]
    if draw.random() < 0.3:  # inside words, too
        at = draw.randrange(len(words))
        words[at] = words[at][:2] + draw.choice(ODD) + words[at][2:]
    return draw.choice([fuzz, ""]) + draw.choice([" ", " ", "", "\n"]).join(words)


def test_every_mention_of_an_odd_text_is_its_text(tagger: Tagger) -> None:
    batches, texts, mentions = tries(3, 84), 0, 0
    for number in range(batches):
        with attempt("texts", number) as draw:
            every = [odd_text(draw, fuzz) for fuzz in generate_texts(AT_ONCE, seed=draw.randrange(10**9))]
            kind = KINDS[number % len(KINDS)]
            trim = number % 2 == 0
            found = Recognizer(sentences.open_detector(kind, FILES), tagger, trim=trim)(pa.array(every, pa.large_string()))
            check_mentions(every, found)
            for text, of_it in zip(every, found.mentions.to_pylist(), strict=True):
                spans = [(one["begin"], one["end"], one["label"]) for one in of_it]
                assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
                assert len(mask_text(text, spans, "*")) == len(text)
                mentions += len(spans)
        texts += len(every)
    assert mentions > 6.33 * texts
    report("texts", texts=texts, mentions=mentions)
