"""Documents in and out of the tables, a unit at a time, so that a run may die between any two commits.

1. `entities` (and before it `annotations`) change in one commit.
2. `documents` says in one commit what `entities` holds now.

A run that died between the two is undone by the next one: see `recovery`. So a document without a row in `documents` has
none in `entities`, and units of such documents are appended without a look at what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.platform.sql_names import literal
from entitymill.tables import table_creation, table_rows
from entitymill.tables.commits import Commits
from entitymill.tables.layout import OF_UNITS, Tables
from entitymill.tables.table_rows import Stamp

FEW = 1000
"""Documents that Delta is told by name: so a table changes at half the cost of a MERGE."""


@dataclass(frozen=True)
class Counted:
    """What the documents of a unit are.

    first, last: smallest and greatest doc_id; none where there are no documents.
    ids: all of them, where they were asked for.
    some_failed: whether recognition gave up some.
    """

    first: str | None = None
    last: str | None = None
    ids: list[str] | None = None
    some_failed: bool = False


@dataclass(frozen=True)
class Unit:
    """Recognised documents that are published together.

    recognised: schemas.RECOGNISED and perhaps `passthrough` and schemas.ANNOTATIONS; read several times, so cached.
    known: whether some may have rows in the tables already.
    counted: of these documents, and perhaps of some that failed.
    """

    recognised: DataFrame
    known: bool
    counted: Counted


class Publisher:
    """What a run changes in `entities`, `annotations` and `documents`."""

    def __init__(
        self, tables: Tables, commits: Commits, stamp: Stamp, passthrough: list[T.StructField], *, annotations: bool
    ) -> None:
        """Create the tables that are missing.

        Args:
            tables: of the output, or those that wait to be swapped in.
            commits: of this run.
            stamp: of this run.
            passthrough: the carried fields.
            annotations: whether `annotations` is written too.
        """
        self.tables = tables
        self._commits = commits
        self._stamp = stamp
        self._schema = schemas.entities(passthrough)
        self._annotations = annotations
        # Where earlier runs wrote annotations and this one does not, theirs go with their documents.
        self._outdated = not annotations and tables.exists("annotations")
        self._unit = 0
        made = tables.parquet or table_creation.create(tables, "entities", self._schema)
        self.fresh = table_creation.create(tables, "documents", schemas.DOCUMENTS) and made
        """Whether the tables were made just now, and so are empty."""
        if annotations:
            table_creation.create(tables, "annotations", schemas.ANNOTATION_TABLE)

    def publish(self, unit: Unit, removed: DataFrame | None = None, *, tombstones: bool = False) -> None:
        """Make the tables say of a unit's documents what was recognised in them.

        Args:
            unit: to publish.
            removed: doc_id of documents to take out in the same commits, each once.
            tombstones: whether to leave a row of status `removed` in `documents` for these, for what is swapped in later.
        """
        if unit.counted.first is None and removed is None:
            return
        self._unit += 1
        change: Callable[[str, DataFrame], None] = self._append
        if unit.known or removed is not None:
            change = self._exchange_of(unit, removed)
        if self._annotations:
            change("annotations", table_rows.annotated(unit.recognised, self._stamp).to(schemas.ANNOTATION_TABLE))
        elif self._outdated and (unit.known or removed is not None):
            change("annotations", self.tables.read("annotations").limit(0))
        change("entities", table_rows.entities(unit.recognised, self._schema, self._stamp).to(self._schema))
        done = table_rows.documents(unit.recognised, self._stamp).select(*schemas.DOCUMENTS.names).to(schemas.DOCUMENTS)
        if removed is not None and tombstones:
            done = done.unionByName(table_rows.tombstones(removed, self._stamp), allowMissingColumns=True)
        change("documents", done)

    def remove(self, ids: DataFrame, *, tombstones: bool = False) -> None:
        """Take documents out of the tables: as `publish`, where there is no unit to do it with."""
        nothing = self.tables.spark.createDataFrame([], T.StructType(schemas.RECOGNISED))
        carried = [field for field in self._schema if field.name not in schemas.ENTITY_COLUMNS]
        if carried:
            nothing = nothing.withColumn("passthrough", F.lit(None).cast(T.StructType(carried)))
        if self._annotations:
            nothing = nothing.withColumns({f.name: F.lit(None).cast(f.dataType) for f in schemas.ANNOTATIONS})
        self.publish(Unit(nothing, known=True, counted=Counted(ids=[])), ids, tombstones=tombstones)

    def clear(self) -> None:
        """Empty the tables, where one of them was lost: nothing the others say can be trusted then."""
        for name in OF_UNITS[::-1]:
            if self.tables.exists(name):
                self._commits.change(name, partial(self.tables.delete, name))

    def _append(self, name: str, frame: DataFrame) -> None:
        self._commits.append(self._sized(name, frame), name, self._unit, to=self.tables)

    def _exchange_of(self, unit: Unit, removed: DataFrame | None) -> Callable[[str, DataFrame], None]:
        """What puts rows in the place of all that a table has of a unit's documents, and of removed ones."""
        own, between = unit.counted, None
        out = unit.recognised.select("doc_id")
        ids = None if own.ids is None else set(own.ids)
        if removed is not None:
            out = out.unionByName(removed.select("doc_id"))
            if ids is not None:
                ids.update(row["doc_id"] for row in removed.select("doc_id").limit(FEW + 1).collect())
        elif own.first is not None and own.last is not None:
            between = own.first, own.last
        if ids is not None and len(ids) <= FEW:
            return partial(self._replace, condition=f"doc_id IN ({', '.join(map(literal, sorted(ids)))})")
        return partial(self._exchange, out=out, between=between)

    def _replace(self, name: str, frame: DataFrame, *, condition: str) -> None:
        self._commits.replace(self._sized(name, frame), name, condition, self._unit, to=self.tables)

    def _exchange(self, name: str, frame: DataFrame, *, out: DataFrame, between: tuple[str, str] | None) -> None:
        change: Callable[[], None] = partial(self.tables.exchange, name, out, frame, between)
        self._commits.change(name, change, self._unit)

    def _sized(self, name: str, frame: DataFrame) -> DataFrame:
        return self.tables.sized(frame, by="label" if name == "entities" else None)


def adopt(tables: Tables, commits: Commits) -> None:
    """Make all documents those of a run that is about the whole source, and no slice's."""
    if tables.read("documents").where("slice IS NOT NULL").take(1):
        update = f"UPDATE {tables.reference('documents')} SET slice = NULL WHERE slice IS NOT NULL"  # noqa: S608  # quoted
        commits.change("documents", lambda: tables.spark.sql(update))
