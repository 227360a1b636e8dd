"""The corpora the demo model is trained and scored on: where each file is, how far its labels are trusted.

File format: one `token<TAB>tag` per line, IOB2 over PER, ORG, LOC, MISC, a blank line between sentences.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

LABELS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
TAG_ID = {tag: i for i, tag in enumerate(LABELS)}


@dataclass(frozen=True)
class Sentence:
    """One tagged sentence and how its labels enter the loss."""

    tokens: list[str]
    tags: list[str]
    weight: float = 1.0
    """Weight of the sentence's tokens in the loss."""
    misc_unknown: bool = False
    """True where the source's guideline leaves MISC mentions untagged: an O then means "O or MISC"."""


@dataclass(frozen=True)
class Source:
    """One corpus file."""

    path: str
    repeat: int = 1
    weight: float = 1.0
    misc_unknown: bool = False
    fraction: float = 1.0
    """Share of the file drawn anew for each epoch."""


CROSSNER_DOMAINS = ("ai", "literature", "music", "science")
TRAIN = [
    # Silver labels (a tagger's, corrected in part): half of it per epoch, at half weight.
    Source("gmb/train.bio4.tsv", weight=0.5, fraction=0.5),
    Source("wnut17/train.bio4.tsv"),
    Source("crossner/politics.train.bio4.tsv", repeat=2),
    Source("crossner/politics.dev.bio4.tsv", repeat=2),
    # The domains' own types (algorithm, protein, genre ...) became O, so their MISC is incomplete.
    *(
        Source(f"crossner/{domain}.{part}.bio4.tsv", misc_unknown=True)
        for domain in CROSSNER_DOMAINS
        for part in ("train", "dev")
    ),
    # Universal NER has PER, ORG, LOC alone.
    Source("uner-ewt/en_ewt-ud-dev.bio4.tsv", misc_unknown=True),
    Source("uner-ewt/en_ewt-ud-test.bio4.tsv", misc_unknown=True),
]
HELD_OUT_EVERY = {"crossner/politics.dev.bio4.tsv": 4, "uner-ewt/en_ewt-ud-test.bio4.tsv": 4}
"""Every n-th sentence of these files is never trained on: the gold text this recipe is scored on."""


def read(path: Path) -> list[tuple[list[str], list[str]]]:
    """Sentences of one file as (tokens, tags)."""
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
    """The sentences of one epoch: every source as often, and as much of it, as TRAIN says."""
    epoch: list[Sentence] = []
    for source in TRAIN:
        every = HELD_OUT_EVERY.get(source.path)
        kept = [s for i, s in enumerate(read(data / source.path)) if not every or i % every]
        drawn = rng.sample(kept, round(len(kept) * source.fraction))
        epoch += [
            Sentence(_recase(tokens, rng), tags, source.weight, source.misc_unknown)
            for _ in range(source.repeat)
            for tokens, tags in drawn
        ]
    return epoch


def _recase(tokens: list[str], rng: random.Random) -> list[str]:
    """Now and then a headline or a careless typist: all capitals (2 %), all lower case (4 %)."""
    draw = rng.random()
    if draw < 0.02:
        return [t.upper() for t in tokens]
    # "US" in lower case would teach that the pronoun is a country.
    if draw < 0.06 and "US" not in tokens:
        return [t.lower() for t in tokens]
    return tokens


def evaluation_sets(data: Path) -> dict[str, tuple[list[tuple[list[str], list[str]]], bool]]:
    """Name -> (sentences, whether MISC is scored): text that no epoch contains."""
    sets = {
        "gmb test": (read(data / "gmb/test.bio4.tsv"), True),
        "wnut17 test": (read(data / "wnut17/test.bio4.tsv"), True),
    }
    for path, every in HELD_OUT_EVERY.items():
        name = f"{path.split('/')[0]} held out"
        sets[name] = (read(data / path)[::every], not path.startswith("uner"))
    return sets
