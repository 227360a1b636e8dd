"""Read the evaluation sets as documents of running text with gold mentions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import corpus
import text
from corpus import HELD_OUT_EVERY

SENTENCES = {"gmb/test.bio4.tsv": 5, "crossner/politics.dev.bio4.tsv": 5}
"""Number of sentences that form a document, by file. In other files, where many sentences lack a full stop, it is one."""


@dataclass(frozen=True)
class Document:
    """A text, its gold mentions, and where its sentences begin, in code points."""

    text: str
    mentions: list[text.Mention]
    begins: list[int]


@dataclass(frozen=True)
class EvaluationSet:
    """Text that is never used for training.

    with_misc: whether MISC is scored.
    """

    documents: list[Document]
    with_misc: bool


def evaluation_sets(data: Path) -> dict[str, EvaluationSet]:
    """Return a dict from the name of each evaluation set to the set."""
    sets = {
        "gmb test": EvaluationSet(_documents(data, "gmb/test.bio4.tsv"), with_misc=True),
        "wnut17 test": EvaluationSet(_documents(data, "wnut17/test.bio4.tsv"), with_misc=True),
    }
    for path, every in HELD_OUT_EVERY.items():
        name = f"{path.split('/')[0]} held out"
        sets[name] = EvaluationSet(_documents(data, path, every), with_misc=not path.startswith("uner"))
    return sets


def _documents(data: Path, path: str, every: int = 1) -> list[Document]:
    """Return the documents that consist of every `every`-th sentence of a corpus file."""
    sentences = corpus.read(data / path)[::every]
    step = SENTENCES.get(path, 1)
    hyphens = any(source.hyphens for source in corpus.TRAIN if source.path == path)
    return [_document(sentences[at : at + step], hyphens=hyphens) for at in range(0, len(sentences), step)]


def _document(sentences: list[corpus.Gold], *, hyphens: bool) -> Document:
    """Join gold sentences to one document, with the offsets of its mentions and sentences."""
    written = ""
    mentions: list[text.Mention] = []
    begins = []
    for tokens, tags in sentences:
        sentence = text.joined(tokens, hyphens=hyphens)
        begin = len(written) + bool(written)
        begins.append(begin)
        mentions += [(begin + first, begin + last, label) for first, last, label in text.mentions(sentence, tags)]
        written = f"{written} {sentence.text}" if written else sentence.text
    return Document(written, mentions, begins)
