"""Publish and remove documents, one unit at a time, with one commit per table.

The order is `annotations`, `entities`, `documents`, because `documents` says what `entities` contains.
docs/decisions.md says what a run leaves that dies between these commits, and how the next run finds it.
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
"""Up to this many documents are replaced by a condition that lists their ids, at half the cost of a MERGE."""


@dataclass(frozen=True)
class UnitIds:
    """Ids of a unit's documents.

    first, last: smallest and greatest doc_id; None if there are no documents.
    ids: all ids; None if they were not collected.
    some_failed: whether recognition failed for some documents.
    """

    first: str | None = None
    last: str | None = None
    ids: list[str] | None = None
    some_failed: bool = False


@dataclass(frozen=True)
class Unit:
    """Recognized documents that are published together, and documents that are removed with them.

    recognised: schemas.RECOGNISED and perhaps `passthrough` and schemas.ANNOTATIONS; read several times, so cache it.
    known: whether some documents may already have rows in the tables.
    doc_ids: ids of these documents, and perhaps of some that failed.
    removed: doc_id of documents to remove, each once; None if there are none.
    """

    recognised: DataFrame
    known: bool
    doc_ids: UnitIds
    removed: DataFrame | None = None


class Publisher:
    """Writes a run's results to `entities`, `annotations` and `documents`."""

    def __init__(
        self, tables: Tables, commits: Commits, stamp: Stamp, passthrough: list[T.StructField], *, annotations: bool
    ) -> None:
        """Prepare; the tables must exist.

        Args:
            tables: in the run's private session.
            commits: of the run.
            stamp: of the run.
            passthrough: fields of the passthrough columns.
            annotations: whether `annotations` is written too.
        """
        self.tables = tables
        self._commits = commits
        self._stamp = stamp
        self._schema = schemas.entities_schema(passthrough)
        self._annotations = annotations
        self._unit = 0
        # If earlier runs wrote annotations and this one does not, they are deleted with their documents.
        self._old_annotations = not annotations and tables.exists("annotations")

    def publish(self, unit: Unit) -> None:
        """Publish a unit: replace the results of its documents, and remove its removed documents."""
        if unit.doc_ids.first is None and unit.removed is None:
            return
        replaces = unit.known or unit.removed is not None
        change = self._choose_replacement(unit) if replaces else self._append
        self._unit += 1
        with self._commits.track_change(self._unit):
            if self._annotations:
                annotated = unit.recognised.withColumn("run_id", F.lit(self._stamp.run_id))
                change("annotations", annotated.to(schemas.ANNOTATION_TABLE))
            elif self._old_annotations and replaces:
                change("annotations", self.tables.read("annotations").limit(0))
            change("entities", table_rows.build_entities(unit.recognised, self._stamp).to(self._schema))
            change("documents", table_rows.build_documents(unit.recognised, self._stamp).to(schemas.DOCUMENTS))

    def remove(self, ids: DataFrame) -> None:
        """Remove documents from the tables, if there is no unit to remove them with."""
        nothing = self.tables.spark.createDataFrame([], T.StructType(schemas.RECOGNISED))
        self.publish(Unit(nothing, known=True, doc_ids=UnitIds(ids=[]), removed=ids))

    def move_to_slice(self, ids: DataFrame) -> None:
        """Assign documents, whose other columns are up to date, to this run's slice."""
        rows = ids.select("doc_id", F.lit(self._stamp.slice).alias("slice"))
        self._commits.execute("documents", lambda: self.tables.upsert("documents", rows, ["slice"]))

    def clear_slices(self) -> None:
        """Remove all documents from their slices: they now belong to runs over the complete source."""
        if self.tables.read("documents").where("slice IS NOT NULL").take(1):
            update = f"UPDATE {self.tables.sql_name('documents')} SET slice = NULL WHERE slice IS NOT NULL"  # noqa: S608
            self._commits.execute("documents", lambda: self.tables.spark.sql(update))

    def _append(self, name: str, frame: DataFrame) -> None:
        self._commits.append(self._fit_file_size(name, frame), name)

    def _choose_replacement(self, unit: Unit) -> Callable[[str, DataFrame], None]:
        """Return the function that replaces a table's rows of a unit's documents, published and removed."""
        out = unit.recognised.select("doc_id")
        ids = None if unit.doc_ids.ids is None else set(unit.doc_ids.ids)
        if unit.removed is not None:
            out = out.unionByName(unit.removed.select("doc_id"))
            if ids is not None:
                ids.update(row["doc_id"] for row in unit.removed.select("doc_id").limit(MAX_LISTED_IDS + 1).collect())
        if ids is not None and len(ids) <= MAX_LISTED_IDS:
            return partial(self._replace, condition=f"doc_id IN ({', '.join(map(quote_literal, sorted(ids)))})")
        ends = [unit.doc_ids.first, unit.doc_ids.last]
        if unit.removed is not None:
            ends += list(unit.removed.agg(F.min("doc_id"), F.max("doc_id")).collect()[0])
        present = [one for one in ends if one is not None]
        between = (min(present), max(present)) if present else None
        return partial(self._merge, out=out, between=between)

    def _replace(self, name: str, frame: DataFrame, *, condition: str) -> None:
        self._commits.replace(self._fit_file_size(name, frame), name, condition)

    def _merge(self, name: str, frame: DataFrame, *, out: DataFrame, between: tuple[str, str] | None) -> None:
        self._commits.execute(name, partial(self.tables.replace_documents, name, out, frame, between))

    def _fit_file_size(self, name: str, frame: DataFrame) -> DataFrame:
        return self.tables.fit_file_size(frame, by="label" if name == "entities" else None)


class RejectsWriter:
    """Writes a run's rejected rows to `rejects`."""

    def __init__(self, tables: Tables, commits: Commits, stamp: Stamp) -> None:
        """Prepare; the table must exist."""
        self._tables = tables
        self._commits = commits
        self._stamp = stamp
        self._empty = tables.is_empty("rejects")

    def replace_all(self, rejected: DataFrame, *, any_rejected: bool) -> None:
        """Replace all rejects of this run's source, or of its slice.

        Args:
            rejected: doc_id, stage, code, detail.
            any_rejected: whether there are any.
        """
        condition = f"slice = '{self._stamp.slice}'" if self._stamp.slice else None
        if any_rejected or (not self._empty and self._tables.read("rejects").where(condition or "true").take(1)):
            self._commits.replace(self._build_rows(rejected), "rejects", condition)

    def replace_touched(self, touched: DataFrame, rejected: DataFrame, *, any_rejected: bool, any_stale: bool) -> None:
        """Replace the rejects of some ids.

        Args:
            touched: doc_id of all rows that were checked; null stands for rows without an id.
            rejected: doc_id, stage, code, detail.
            any_rejected: whether there are any.
            any_stale: whether the table has rows of touched ids.
        """
        if not any_stale:
            if any_rejected:
                self.add(rejected)
            return
        ids, rows = touched.select("doc_id").distinct(), self._build_rows(rejected)
        self._commits.execute("rejects", lambda: self._tables.replace_documents("rejects", ids, rows))

    def add(self, rejected: DataFrame) -> None:
        """Append rejected rows: doc_id, stage, code, detail."""
        self._commits.append(self._build_rows(rejected), "rejects")

    def _build_rows(self, rejected: DataFrame) -> DataFrame:
        built = table_rows.build_rejects(rejected, self._stamp).to(schemas.REJECTS)
        return self._tables.fit_file_size(built)
