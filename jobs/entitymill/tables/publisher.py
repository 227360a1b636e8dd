"""Documents in and out of the tables, a unit at a time, so that a run may die between any two commits.

1. `documents` marks the unit's documents pending: they claim nothing, and the next run does them again.
2. `entities` (and `annotations`) change in one commit.
3. `documents` says what `entities` holds now.

So a document without a row in `documents` has none in `entities`, and units of such documents are appended without a look
at what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.naming import quoted_part
from entitymill.tables import rows
from entitymill.tables.commits import Commits
from entitymill.tables.layout import Tables
from entitymill.tables.rows import Stamp


@dataclass(frozen=True)
class Unit:
    """Recognised documents that are published together.

    recognised: schemas.RECOGNISED and perhaps `passthrough` and schemas.ANNOTATIONS; read several times, so cached.
    known: whether some may have rows in the tables already.
    first, last: smallest and greatest doc_id; none where there are no documents.
    """

    recognised: DataFrame
    known: bool
    first: str | None
    last: str | None


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
        if not tables.parquet:
            tables.create("entities", self._schema)
        tables.create("documents", schemas.DOCUMENTS)
        if annotations:
            tables.create("annotations", schemas.ANNOTATION_TABLE)
        self._mine = f"status = 'pending' AND run_id = '{stamp.run_id}'"

    def publish(self, unit: Unit, removed: DataFrame | None = None, *, tombstones: bool = False) -> None:
        """Make the tables say of a unit's documents what was recognised in them.

        Args:
            unit: to publish.
            removed: doc_id of documents to take out in the same commits, each once.
            tombstones: whether to leave a row of status `removed` in `documents` for these, for what is swapped in later.
        """
        if unit.first is None:
            return
        ids = unit.recognised.select("doc_id")
        if removed is not None:
            unit = replace(unit, known=True, first=None)
            ids = ids.unionByName(removed.select("doc_id"))
        mentions = rows.entities(unit.recognised, self._schema, self._stamp).to(self._schema)
        between = _between(unit)
        if unit.known:
            self._mark(ids, between)
            self._commits("entities", lambda: self._replace_mentions(ids, mentions, between))
        else:
            pending = rows.pending(ids, self._stamp)
            self._commits("documents", lambda: self.tables.append(pending.coalesce(1), "documents"))
            sized = self.tables.sized(mentions, by="label")
            self._commits("entities", lambda: self.tables.append(sized, "entities"))
        if self._annotations:
            self._annotate(unit, ids, between)
        elif self._outdated and unit.known:
            self._commits("annotations", lambda: self._delete("annotations", ids))
        done = rows.documents(unit.recognised, self._stamp).select(*schemas.DOCUMENTS.names).to(schemas.DOCUMENTS)
        if removed is not None and tombstones:
            done = done.unionByName(self._tombstones(removed), allowMissingColumns=True)
        self._settle(self.tables.sized(done))

    def remove(self, ids: DataFrame, *, tombstones: bool = False) -> None:
        """Take documents out of the tables.

        Args:
            ids: doc_id, each once.
            tombstones: whether to leave a row of status `removed` in `documents`, for what is swapped in later.
        """
        self._mark(ids, F.lit(True), insert=tombstones)
        names = ("entities", "annotations") if self._annotations or self._outdated else ("entities",)
        for name in names:
            self._commits(name, lambda name=name: self._delete(name, ids))  # type: ignore[misc]
        self._settle(self._tombstones(ids) if tombstones else None)

    def _tombstones(self, ids: DataFrame) -> DataFrame:
        return rows.pending(ids, self._stamp).withColumn("status", F.lit("removed"))

    def clear(self) -> None:
        """Empty the tables, where one of them was lost: nothing the others say can be trusted then."""
        names = ("documents", "entities", *(["annotations"] if self._annotations or self._outdated else []))
        for name in names:
            if self.tables.read(name).take(1):
                self._commits(name, self.tables.table(name).delete)

    def _mark(self, ids: DataFrame, between: Column, *, insert: bool = True) -> None:
        pending = rows.pending(ids, self._stamp)
        changed: dict[str, str | Column] = {
            name: F.col(f"s.{name}") for name in ("status", "entities", "run_id", "processed_at")
        }
        merge = self.tables.table("documents").alias("t").merge(pending.alias("s"), _same_document() & between)
        merge = merge.whenMatchedUpdate(set={**changed, "text_hash": F.lit(None).cast("string")})
        if insert:
            merge = merge.whenNotMatchedInsert(values={name: f"s.{name}" for name in pending.columns})
        self._commits("documents", merge.execute)

    def _replace_mentions(self, ids: DataFrame, mentions: DataFrame, between: Column) -> None:
        """One commit: mentions found again are updated, others deleted, new ones inserted."""
        held = self.tables.read("entities").alias("t").where(between)
        lost = held.join(ids, "doc_id", "left_semi").join(mentions, "mention_id", "left_anti")
        put = mentions.withColumn("_lost", F.lit(False))
        source = put.unionByName(lost.select("doc_id", "mention_id", F.lit(True).alias("_lost")), allowMissingColumns=True)
        target = self.tables.table("entities").alias("t")
        matched = (F.col("t.mention_id") == F.col("s.mention_id")) & _same_document() & between
        values: dict[str, str | Column] = {quoted_part(n): F.col(f"s.{quoted_part(n)}") for n in self._schema.names}
        # Columns no longer carried stay, empty.
        written = {n.lower() for n in self._schema.names}
        dropped = {quoted_part(n): F.lit(None) for n in held.columns if n.lower() not in written}
        merge = target.merge(source.alias("s"), matched).whenMatchedDelete("s._lost")
        merge.whenMatchedUpdate(set={**values, **dropped}).whenNotMatchedInsert("NOT s._lost", values=values).execute()

    def _annotate(self, unit: Unit, ids: DataFrame, between: Column) -> None:
        found = rows.annotated(unit.recognised, self._stamp).to(schemas.ANNOTATION_TABLE)
        if not unit.known:
            self._commits("annotations", lambda: self.tables.append(self.tables.sized(found), "annotations"))
            return
        target = self.tables.table("annotations").alias("t")
        lost = ids.join(found, "doc_id", "left_anti").withColumn("_lost", F.lit(True))
        source = found.withColumn("_lost", F.lit(False)).unionByName(lost, allowMissingColumns=True)
        merge = target.merge(source.alias("s"), _same_document() & between).whenMatchedDelete("s._lost")
        values: dict[str, str | Column] = {name: f"s.{name}" for name in found.columns}
        merge = merge.whenMatchedUpdate(set=values).whenNotMatchedInsert("NOT s._lost", values=values)
        self._commits("annotations", merge.execute)

    def _delete(self, name: str, ids: DataFrame) -> None:
        target = self.tables.table(name).alias("t")
        target.merge(ids.select("doc_id").alias("s"), _same_document()).whenMatchedDelete().execute()

    def _settle(self, done: DataFrame | None) -> None:
        """Put what is known now in the place of this run's pending rows; only files that hold such rows are read."""
        if done is None:
            self._commits("documents", lambda: self.tables.table("documents").delete(self._mine))
        else:
            self._commits("documents", lambda: self.tables.replace(done, "documents", self._mine))


def _between(unit: Unit) -> Column:
    """The range of a unit's ids, if it is one: by their statistics Delta skips the files that cannot hold one."""
    if unit.first is None:
        return F.lit(True)
    return (F.col("t.doc_id") >= F.lit(unit.first)) & (F.col("t.doc_id") <= F.lit(unit.last))


def _same_document() -> Column:
    return F.col("t.doc_id") == F.col("s.doc_id")


def adopt(tables: Tables, commits: Commits) -> None:
    """Make all documents those of a run that is about the whole source, and no slice's."""
    if tables.read("documents").where("slice IS NOT NULL").take(1):
        nobody: dict[str, str | Column] = {"slice": F.lit(None).cast("string")}
        commits("documents", lambda: tables.table("documents").update("slice IS NOT NULL", nobody))
