"""What the tables must hold: of every text what one clean run found in it, of every source the union over its rows."""

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


def paragraphs(count: int, longest: int = 400) -> list[str]:
    """Different short texts, the same on every call."""
    texts = pq.read_table(SPEECHES, columns=["text"])["text"].to_pylist()
    found = dict.fromkeys(line.strip() for text in texts for line in text.splitlines() if 40 < len(line.strip()) <= longest)
    return list(found)[:: max(1, len(found) // count)][:count]


POOL = paragraphs(24)
"""What the integration tests' documents are made of."""


class Truth:
    """Read from the output of a clean run over texts whose ids are known."""

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
        """The tables hold exactly what a clean run over this source would have written: each row, once."""
        entities, documents = held(output)
        assert documents == self.documents(source)
        assert entities == self.entities(source)


def held(output: Path) -> tuple[Rows, Rows]:
    """Rows of `entities` and `documents`, without run ids and times, read without Spark."""
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
