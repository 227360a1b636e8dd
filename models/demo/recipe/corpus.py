"""Read the corpora that train and score the demo model; TRAIN lists their files and how much each counts.

A file has one `token<TAB>tag` per line, with IOB2 tags for PER, ORG, LOC and MISC, and a blank line between sentences.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import augment
import text
from augment import Gold

LABELS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
TAG_ID = {tag: i for i, tag in enumerate(LABELS)}
CURLY = 0.2
"""Share of sentences that get curly quotes and apostrophes, which most documents have, but none of these corpora."""


@dataclass(frozen=True)
class Sentence:
    """One tagged sentence, and how its tags count in the loss."""

    tokens: list[str]
    tags: list[str]
    weight: float = 1.0
    """Weight of the sentence's tokens in the loss."""
    misc_unknown: bool = False
    """True if the source does not tag MISC mentions: an O then means "O or MISC"."""


@dataclass(frozen=True)
class Source:
    """One corpus file."""

    path: str
    repeat: int = 1
    weight: float = 1.0
    misc_unknown: bool = False
    fraction: float = 1.0
    """Share of the file that is drawn for each epoch."""
    hyphens: bool = False
    """True if "al-Qaeda" is three tokens."""
    swapped: float = 0.0
    """Share of the sentences in which some names are replaced by others."""


CROSSNER_DOMAINS = ("ai", "literature", "music", "science")
TRAIN = [
    # Silver labels (assigned by a tagger, partly corrected): a quarter of the file per epoch, at half weight.
    Source("gmb/train.bio4.tsv", weight=0.5, fraction=0.25),
    Source("gmb/dev.bio4.tsv", weight=0.5, fraction=0.25),
    Source("wnut17/train.bio4.tsv", repeat=2, swapped=0.25),
    Source("wnut17/dev.bio4.tsv", repeat=2, swapped=0.25),
    Source("crossner/politics.train.bio4.tsv", repeat=2, swapped=0.15),
    Source("crossner/politics.dev.bio4.tsv", repeat=2, swapped=0.15),
    # The entity types of these domains (algorithm, protein, genre ...) became O, so MISC is incomplete.
    *(
        Source(f"crossner/{domain}.{part}.bio4.tsv", misc_unknown=True, swapped=0.15)
        for domain in CROSSNER_DOMAINS
        for part in ("train", "dev")
    ),
    # Universal NER has only PER, ORG and LOC.
    Source("uner-ewt/en_ewt-ud-dev.bio4.tsv", repeat=2, misc_unknown=True, hyphens=True, swapped=0.25),
    Source("uner-ewt/en_ewt-ud-test.bio4.tsv", repeat=2, misc_unknown=True, hyphens=True, swapped=0.25),
]
HELD_OUT_EVERY = {"crossner/politics.dev.bio4.tsv": 4, "uner-ewt/en_ewt-ud-test.bio4.tsv": 4}
"""For each of these files, a number n: every n-th sentence is never used for training, but only for scoring."""


def read(path: Path) -> list[tuple[list[str], list[str]]]:
    """Return the tokens and the tags of each sentence in a file."""
    sentences: list[tuple[list[str], list[str]]] = []
    tokens: list[str] = []
    tags: list[str] = []
    for line in path.read_text(encoding="utf8").split("\n"):
        if line.strip():
            token, tag = line.split("\t")[:2]
            tokens.append(token)
            tags.append(tag)
        elif tokens:
            sentences.append((tokens, tags))
            tokens, tags = [], []
    if tokens:
        sentences.append((tokens, tags))
    return sentences


def training_epoch(data: Path, rng: random.Random) -> list[Sentence]:
    """Return the sentences of one epoch, tokenized as in the job; TRAIN says how much of each source, and how often."""
    kept = {source.path: _training_part(data, source.path) for source in TRAIN}
    names = augment.names(kept[source.path] for source in TRAIN if source.swapped)
    epoch: list[Sentence] = []
    for source in TRAIN:
        drawn: list[Gold] = []
        for _ in range(source.repeat):
            order = sorted(rng.sample(range(len(kept[source.path])), round(len(kept[source.path]) * source.fraction)))
            drawn += augment.glued([kept[source.path][i] for i in order], rng)
        drawn = [augment.swapped(gold, names, rng) if rng.random() < source.swapped else gold for gold in drawn]
        written = [text.joined(tokens, curly=rng.random() < CURLY, hyphens=source.hyphens) for tokens, _ in drawn]
        gold = [text.mentions(sentence, tags) for sentence, (_, tags) in zip(written, drawn, strict=True)]
        for tokens, tags in text.retokenized([sentence.text for sentence in written], gold):
            epoch.append(Sentence(augment.recased(tokens, rng), tags, source.weight, source.misc_unknown))
    return epoch


def _training_part(data: Path, path: str) -> list[Gold]:
    """Return the sentences of a file, except those that are kept for scoring."""
    every = HELD_OUT_EVERY.get(path)
    return [gold for i, gold in enumerate(read(data / path)) if not every or i % every]
