"""Documents in and out of the tables, a unit at a time, each table in one commit.

First `entities` (and before it `annotations`), then `documents`, which says what `entities` holds now.
docs/decisions.md says what a run that dies between the two leaves, and how the next one finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.spark.sql_text import quote_literal
from entitymill.tables import table_rows
from entitymill.tables.commits import Commits
from entitymill.tables.layout import Tables
from entitymill.tables.table_rows import Stamp

MAX_LISTED_IDS = 1000
"""Documents whose ids are named in a condition: so a table changes at half the cost of a MERGE."""


@dataclass(frozen=True)
class UnitCounts:
    """What the documents of a unit are.

    first, last: smallest and greatest doc_id; None where there are no documents.
    ids: all of them, where they were asked for.
    some_failed: whether recognition gave up some.
    """

    first: str | None = None
    last: str | None = None
    ids: list[str] | None = None
    some_failed: bool = False


@dataclass(frozen=True)
class Unit:
    """Recognised documents that are published together, and documents that are removed with them.

    recognised: schemas.RECOGNISED and perhaps `passthrough` and schemas.ANNOTATIONS; read several times, so cached.
    known: whether some may have rows in the tables already.
    counted: of these documents, and perhaps of some that failed.
    removed: doc_id of documents to take out, each once; None where there are none.
    """

    recognised: DataFrame
    known: bool
    counted: UnitCounts
    removed: DataFrame | None = None


class Publisher:
    """What a run changes in `entities`, `annotations` and `documents`."""

    def __init__(
        self, tables: Tables, commits: Commits, stamp: Stamp, passthrough: list[T.StructField], *, annotations: bool
    ) -> None:
        """Prepare; the tables must be there.

        Args:
            passthrough: the carried fields.
            annotations: whether `annotations` is written too.
        """
        self.tables = tables
        self._commits = commits
        self._stamp = stamp
        self._schema = schemas.entities_schema(passthrough)
        self._annotations = annotations
        self._unit = 0
        # Where earlier runs wrote annotations and this one does not, theirs go with their documents.
        self._outdated = not annotations and tables.exists("annotations")

    def publish(self, unit: Unit) -> None:
        """Make the tables say of a unit's documents what was recognised in them."""
        if unit.counted.first is None and unit.removed is None:
            return
        exchanged = unit.known or unit.removed is not None
        change = self._choose_replacement(unit) if exchanged else self._append
        self._unit += 1
        with self._commits.track_change(self._unit):
            if self._annotations:
                annotated = unit.recognised.withColumn("run_id", F.lit(self._stamp.run_id))
                change("annotations", annotated.to(schemas.ANNOTATION_TABLE))
            elif self._outdated and exchanged:
                change("annotations", self.tables.read("annotations").limit(0))
            change("entities", table_rows.build_entities(unit.recognised, self._stamp).to(self._schema))
            change("documents", table_rows.build_documents(unit.recognised, self._stamp).to(schemas.DOCUMENTS))

    def remove(self, ids: DataFrame) -> None:
        """Take documents out of the tables, where there is no unit to do it with."""
        nothing = self.tables.spark.createDataFrame([], T.StructType(schemas.RECOGNISED))
        self.publish(Unit(nothing, known=True, counted=UnitCounts(ids=[]), removed=ids))

    def move_to_slice(self, ids: DataFrame) -> None:
        """Record that documents, whose rows are as they should be, belong to this run's slice."""
        rows = ids.select("doc_id", F.lit(self._stamp.slice).alias("slice"))
        self._commits.execute("documents", lambda: self.tables.upsert("documents", rows, ["slice"]))

    def clear_slices(self) -> None:
        """Record that all documents belong to runs over the whole source, and to no slice."""
        if self.tables.read("documents").where("slice IS NOT NULL").take(1):
            update = f"UPDATE {self.tables.sql_name('documents')} SET slice = NULL WHERE slice IS NOT NULL"  # noqa: S608
            self._commits.execute("documents", lambda: self.tables.spark.sql(update))

    def _append(self, name: str, frame: DataFrame) -> None:
        self._commits.append(self._fit_file_size(name, frame), name)

    def _choose_replacement(self, unit: Unit) -> Callable[[str, DataFrame], None]:
        """Return what replaces all rows that a table has of a unit's documents, and of removed ones."""
        own, between = unit.counted, None
        out = unit.recognised.select("doc_id")
        ids = None if own.ids is None else set(own.ids)
        if unit.removed is not None:
            out = out.unionByName(unit.removed.select("doc_id"))
            if ids is not None:
                ids.update(row["doc_id"] for row in unit.removed.select("doc_id").limit(MAX_LISTED_IDS + 1).collect())
        if ids is not None and len(ids) <= MAX_LISTED_IDS:
            return partial(self._replace, condition=f"doc_id IN ({', '.join(map(quote_literal, sorted(ids)))})")
        ends = [own.first, own.last]
        if unit.removed is not None:
            ends += list(unit.removed.agg(F.min("doc_id"), F.max("doc_id")).collect()[0])
        present = [one for one in ends if one is not None]
        if present:
            between = min(present), max(present)
        return partial(self._merge, out=out, between=between)

    def _replace(self, name: str, frame: DataFrame, *, condition: str) -> None:
        self._commits.replace(self._fit_file_size(name, frame), name, condition)

    def _merge(self, name: str, frame: DataFrame, *, out: DataFrame, between: tuple[str, str] | None) -> None:
        self._commits.execute(name, partial(self.tables.replace_documents, name, out, frame, between))

    def _fit_file_size(self, name: str, frame: DataFrame) -> DataFrame:
        return self.tables.fit_file_size(frame, by="label" if name == "entities" else None)


class RejectsWriter:
    """What a run changes in `rejects`."""

    def __init__(self, tables: Tables, commits: Commits, stamp: Stamp) -> None:
        """Prepare; the table must be there."""
        self._tables = tables
        self._commits = commits
        self._stamp = stamp
        self._empty = tables.is_empty("rejects")

    def replace_all(self, refused: DataFrame, *, any_rejected: bool) -> None:
        """Make the refused rows of this run's source, or slice, these.

        Args:
            refused: doc_id, stage, code, detail.
            some: whether there are any.
        """
        condition = f"slice = '{self._stamp.slice}'" if self._stamp.slice else None
        if any_rejected or (not self._empty and self._tables.read("rejects").where(condition or "true").take(1)):
            self._commits.replace(self._rows(refused), "rejects", condition)

    def replace_touched(self, touched: DataFrame, refused: DataFrame, *, any_rejected: bool, any_stale: bool) -> None:
        """Make the refused rows of some ids these.

        Args:
            touched: doc_id of all ids that were looked at; null stands for rows without an id.
            refused: doc_id, stage, code, detail.
            some: whether any are refused.
            stale: whether the table has rows of touched ids.
        """
        if not any_stale:
            if any_rejected:
                self.add(refused)
            return
        rows = self._rows(refused)
        self._commits.execute(
            "rejects", lambda: self._tables.replace_documents("rejects", touched.select("doc_id").distinct(), rows)
        )

    def add(self, refused: DataFrame) -> None:
        """Add refused rows: doc_id, stage, code, detail."""
        self._commits.append(self._rows(refused), "rejects")

    def _rows(self, refused: DataFrame) -> DataFrame:
        built = table_rows.build_rejects(refused, self._stamp).to(schemas.REJECTS)
        return self._tables.fit_file_size(built)
