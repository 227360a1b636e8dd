from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bench.stub_engine import stub_tagger
from delta_reader import read_delta
from entitymill import schemas, settings
from entitymill.run.extraction import SMALL_QUERIES
from entitymill.settings import Settings
from entitymill.settings.sections import SourceSettings
from entitymill.source.reader import Source
from entitymill.spark.private_session import override_conf
from entitymill.tables import Tables, recovery
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.output_tables import WRITE_CONFS
from entitymill.tables.publisher import Provenance, Publisher, Unit, UnitIds

DAY = datetime(2026, 11, 26, tzinfo=timezone.utc)
SCHEMAS = {"entities": schemas.entities_schema([]), "documents": schemas.DOCUMENTS, "rejects": schemas.REJECTS}
"""Table -> schema, for the tables that every run writes."""


@pytest.fixture(autouse=True, scope="module")
def small(spark: SparkSession) -> Iterator[None]:
    """Set Spark properties that suit frames of ten rows."""
    with override_conf(spark, {**WRITE_CONFS, **SMALL_QUERIES, "spark.sql.shuffle.partitions": "1"}):
        yield


def chosen(directory: Path, *overrides: str) -> Settings:
    return settings.load(None, ["source.path=x", f"output.path={directory}/out", *overrides], {})


def tables_at(spark: SparkSession, directory: Path, *overrides: str) -> Tables:
    return Tables(spark, chosen(directory, *overrides).output)


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    return tables_at(spark, tmp_path)


def read_rows(tables: Tables, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table's latest version, without Spark."""
    return read_delta(tables.address(name).removeprefix("file:")).to_pylist()


def frame_of(spark: SparkSession, rows: Iterable[Sequence[Any]], schema: str) -> DataFrame:
    """Return a frame in one partition that needs no Python workers; every job over `createDataFrame(rows)` starts them.

    Args:
        spark: the session.
        rows: values that JSON can represent.
        schema: columns of simple types in DDL, such as "doc_id string, chars int".
    """
    names = [column.split()[0] for column in schema.split(", ")]
    text = json.dumps([dict(zip(names, row, strict=True)) for row in rows])
    return spark.range(0, 1, 1, 1).select(F.inline(F.from_json(F.lit(text), f"array<struct<{schema}>>")))


@pytest.fixture
def source_of(spark: SparkSession) -> Callable[..., Source]:
    """Return a function that makes a source of (id, text) pairs."""

    def make(*rows: tuple[Any, Any], max_chars: int = 100) -> Source:
        frame = frame_of(spark, rows, "doc_id string, text string")
        chosen = SourceSettings(path="x", max_chars=max_chars)
        return Source(frame, [], "1", "", "", False, None, None, chosen)

    return make


class Writing:
    """Publishes documents to tables; each unit is published by a run of its own, with its own epoch."""

    def __init__(self, tables: Tables, slice_: str | None = None) -> None:
        self.tables, self.epoch, self.slice = tables, 1, slice_

    def provenance(self) -> Provenance:
        return Provenance(f"run {self.epoch}", DAY, "/texts", "stub", "f1", "1", self.slice)

    def recognized(self, *rows: tuple[str, str]) -> DataFrame:
        frame = frame_of(self.tables.spark, rows, "doc_id string, text string")
        return stub_tagger(frame.withColumns({"text_hash": F.sha2("text", 256), "chars": F.length("text")}))

    def publish(self, *rows: tuple[str, str], known: bool, removed: tuple[str, ...] = (), few: bool = True) -> None:
        """Publish one unit as the next run. `few` says whether the unit lists its ids, or knows only their range."""
        commits = Commits(self.tables, f"run {self.epoch}", self.epoch)
        if not self.tables.exists("documents"):
            recovery.create_missing(self.tables, SCHEMAS)
        publisher = Publisher(self.tables, commits, self.provenance(), [], annotations=False)
        self.epoch += 1
        ids = [key for key, _ in rows]
        counted = UnitIds(min(ids, default=None), max(ids, default=None), ids if few else None)
        gone = frame_of(self.tables.spark, [(key,) for key in removed], "doc_id string") if removed else None
        publisher.publish(Unit(self.recognized(*rows), known, counted, gone))

    def held(self) -> tuple[dict[str, list[str]], list[str]]:
        """Return doc_id -> entities, and the sorted doc_ids of `documents`."""
        found: dict[str, list[str]] = {}
        for row in sorted(read_rows(self.tables, "entities"), key=lambda row: (row["doc_id"], row["begin"])):
            found.setdefault(row["doc_id"], []).append(row["entity"])
        return found, sorted(row["doc_id"] for row in read_rows(self.tables, "documents"))


@pytest.fixture
def writing(tables: Tables) -> Writing:
    return Writing(tables)
