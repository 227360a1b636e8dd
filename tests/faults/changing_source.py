"""A small table of texts that changes from run to run, and what the stub engine finds in it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

from delta_reader import read_delta

WORDS = [
    "Anna",
    "Bob",
    "Cairo",
    "Delhi",
    "Essen",
    "Fritz",
    "Gaza",
    "Hanoi",
    "Ida",
    "Jena",
    "Kiew",
    "Lima",
    "Mona",
    "Nora",
    "Oslo",
    "Paul",
    "Rom",
    "Sofia",
    "Tom",
    "Ulm",
    "Wien",
]
DAYS = ("mon", "tue")
FEED = {"delta.enableChangeDataFeed": "true"}
Rows = list[tuple[object, ...]]


@dataclass
class Source:
    """A table of texts on disk, with a copy of its rows in memory.

    kind: `feed` (Delta with a change feed), `delta` or `parquet`.
    rows: id -> (day, text).
    fresh: number of the next new id.
    """

    path: Path
    chance: random.Random
    kind: str
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    fresh: int = 0

    def text(self) -> str:
        return " ".join(self.chance.choices(WORDS, k=4))

    def add(self, number: int) -> None:
        for _ in range(number):
            self.rows[f"d{self.fresh:03}"] = (self.chance.choice(DAYS), self.text())
            self.fresh += 1

    def change(self, kind: str) -> None:
        """Change rows as `kind` says, and write the table."""
        keys = sorted(self.rows)
        some = self.chance.sample(keys, min(2, len(keys)))
        if kind in ("append", "mixed") or not keys:
            self.add(2)
        if kind in ("update", "mixed", "full", "model"):
            for key in some[:1]:
                self.rows[key] = (self.rows[key][0], self.text())
        if kind in ("delete", "mixed") and len(keys) > 2:
            del self.rows[some[-1]]
        if kind == "rewrite":
            self.rows = {key: (day, self.text() if key in some else text) for key, (day, text) in self.rows.items()}
        self.write(kind)

    def write(self, kind: str) -> None:
        table = pa.table(
            {
                "id": list(self.rows),
                "day": [day for day, _ in self.rows.values()],
                "text": [text for _, text in self.rows.values()],
            }
        )
        if self.kind == "parquet":
            pq.write_table(table, f"{self.path}.parquet")
        elif not DeltaTable.is_deltatable(str(self.path)):
            write_deltalake(self.path, table, configuration=FEED if self.kind == "feed" else None)
        elif kind == "rewrite":
            write_deltalake(self.path, table, mode="overwrite")
        else:
            merge = DeltaTable(str(self.path)).merge(table, "t.id = s.id", source_alias="s", target_alias="t")
            merge = merge.when_matched_update_all("t.text <> s.text").when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete().execute()

    def options(self) -> list[str]:
        if self.kind == "parquet":
            return ["source.format=parquet", f"source.path={self.path}.parquet"]
        return ["source.format=delta", f"source.path={self.path}"]


def expected(rows: dict[str, tuple[str, str]]) -> tuple[Rows, Rows]:
    """Return the sorted rows of `entities` and `documents` that a run with the stub engine must write for a source."""
    mentions, documents = [], []
    for key, (_, text) in rows.items():
        first, second, _ = text.split(" ", 2)
        for begin, entity, label in ((0, first, "PER"), (len(first) + 1, second, "LOC")):
            mentions.append((key, f"{key}:{begin}-{begin + len(entity)}", begin, begin + len(entity), entity, label))
        documents.append((key, hashlib.sha256(text.encode()).hexdigest(), "done", 2))
    return sorted(mentions), sorted(documents)


def held(output: Path) -> tuple[Rows, Rows]:
    """Return the sorted rows of `entities` and `documents`, read without Spark."""
    entities = output / "entities"
    delta = (entities / "_delta_log").exists()
    table = read_delta(entities) if delta else pq.read_table(entities, partitioning="hive")
    mention = ("doc_id", "mention_id", "begin", "end", "entity", "label")
    mentions = sorted(tuple(row[name] for name in mention) for row in table.to_pylist())
    document = ("doc_id", "text_hash", "status", "entities")
    documents = sorted(tuple(row[name] for name in document) for row in read_delta(output / "documents").to_pylist())
    return mentions, documents
