"""Compute the tables that a run must write: for each source row, the results of one clean run for its text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from delta_reader import read_delta

SPEECHES = Path(__file__).parents[1] / "data" / "state_union.parquet"
MENTION = ("sentence_id", "sentence_begin", "sentence_end", "begin", "end", "entity", "label", "token_count")
DOCUMENT = ("status", "chars", "sentences", "tokens", "split_sentences", "entities")
Rows = list[tuple[object, ...]]


def read_paragraphs(count: int, longest: int = 400) -> list[str]:
    """Return up to `count` different paragraphs of 41 to `longest` characters, the same on every call."""
    texts = pq.read_table(SPEECHES, columns=["text"])["text"].to_pylist()
    found = dict.fromkeys(line.strip() for text in texts for line in text.splitlines() if 40 < len(line.strip()) <= longest)
    return list(found)[:: max(1, len(found) // count)][:count]


TEXT_POOL = read_paragraphs(24)
"""The texts of the integration tests' documents."""


class ExpectedTables:
    """The rows that any source made of known texts must produce, read from the output of one clean run over these texts."""

    def __init__(self, output: Path, source: Mapping[str, str]) -> None:
        self._mentions: dict[str, Rows] = {text: [] for text in source.values()}
        for row in read_delta(output / "entities").to_pylist():
            self._mentions[source[row["doc_id"]]].append((*(row[name] for name in MENTION), round(row["confidence"], 3)))
        documents = read_delta(output / "documents").to_pylist()
        self._documents = {source[row["doc_id"]]: tuple(row[name] for name in DOCUMENT) for row in documents}
        assert len(self._documents) == len(self._mentions)

    def entities(self, source: Mapping[str, str]) -> Rows:
        mentions = ((key, mention) for key, text in source.items() for mention in self._mentions[text])
        return sorted((key, f"{key}:{mention[3]}-{mention[4]}", *mention) for key, mention in mentions)

    def documents(self, source: Mapping[str, str]) -> Rows:
        return sorted(
            (key, hashlib.sha256(text.encode()).hexdigest(), *self._documents[text]) for key, text in source.items()
        )

    def check(self, output: Path, source: Mapping[str, str]) -> None:
        """Assert that the tables contain exactly the rows that a clean run over this source would write, each once."""
        entities, documents = read_tables(output)
        assert documents == self.documents(source)
        assert entities == self.entities(source)


def read_tables(output: Path) -> tuple[Rows, Rows]:
    """Return the rows of `entities` and `documents`, read without Spark, and without run ids and times."""
    if (output / "entities" / "_delta_log").exists():
        entities = read_delta(output / "entities")
    else:
        entities = pq.read_table(output / "entities", partitioning="hive")
    documents = read_delta(output / "documents")
    mentions = [
        (row["doc_id"], row["mention_id"], *(row[name] for name in MENTION), round(row["confidence"], 3))
        for row in entities.to_pylist()
    ]
    done = [(row["doc_id"], row["text_hash"], *(row[name] for name in DOCUMENT)) for row in documents.to_pylist()]
    return sorted(mentions), sorted(done)
