"""Publish recognized documents (documents that the model has processed) and remove documents, one unit of work at a time.

A unit of work is a set of documents that are published together, in one commit per table. `documents` is committed last,
because it records what `entities` contains. docs/decisions.md explains what happens if a run dies in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.source import row_checks
from entitymill.spark import spark_connect
from entitymill.spark.private_session import create_frame, run_statement
from entitymill.spark.sql_text import quote_literal
from entitymill.tables import merge_statements, table_setup
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.output_tables import Tables

_QUOTES = "['\N{RIGHT SINGLE QUOTATION MARK}]"
_BLANKS, _POSSESSIVE = quote_literal(r"(?U)\s+"), quote_literal(f"(?<=[sS]){_QUOTES}$|{_QUOTES}[sS]$")
_NORMALIZED = f"lower(regexp_replace(trim(regexp_replace(entity, {_BLANKS}, ' ')), {_POSSESSIVE}, ''))"
"""SQL expression for the normalized entity; (?U) makes \\s match Unicode white space, including no-break spaces."""
MAX_LISTED_IDS = 1000
"""If a unit replaces and removes at most this many documents, an SQL condition lists their ids: twice as fast as a MERGE."""


@dataclass(frozen=True)
class Provenance:
    """Values that a run writes into its rows, to show from which run, model and source version a row comes.

    source: what was read: an absolute path, a URI without credentials, or the name of a catalog table.
    fingerprint: digest of everything that decides a document's result, except its text: model, precision and settings.
    source_version: version number of a Delta table, digest of a list of Parquet files, or `unversioned` for other sources.
    slice: digest of source.where if the run replaces a slice (the rows that source.where selects); otherwise None.
    source_committed: commit time of the source's Delta version, in milliseconds since 1970; None if the source is not Delta.
    """

    run_id: str
    started_at: datetime
    source: str
    model: str
    fingerprint: str
    source_version: str
    slice: str | None = None
    source_committed: int | None = None

    def columns(self) -> dict[str, Column]:
        """Return a dict from name to column for run_id and processed_at, the last columns of `entities` and `documents`."""
        return {"run_id": F.lit(self.run_id), "processed_at": F.lit(self.started_at)}


def select_table_columns(rows: DataFrame, schema: T.StructType) -> DataFrame:
    """Return rows with exactly the columns of a table's schema.

    On Spark Connect, all columns become nullable, as in temporary tables; Delta checks for nulls when it writes the rows.
    """
    return rows.to(_make_nullable(schema) if spark_connect.is_remote(rows.sparkSession) else schema)


def _make_nullable(kind: Any) -> Any:
    """Return a data type in which each field, element and value may be null."""
    if isinstance(kind, T.StructType):
        fields = [T.StructField(old.name, _make_nullable(old.dataType), metadata=old.metadata) for old in kind]
        return T.StructType(fields)
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(_make_nullable(kind.elementType))
    if isinstance(kind, T.MapType):
        return T.MapType(kind.keyType, _make_nullable(kind.valueType))
    return kind


def add_normalized(mentions: DataFrame) -> DataFrame:
    """Return the rows with a new column `entity_normalized`, computed from the column `entity`.

    Entities that differ only in case, white space or a possessive ending get the same value: "Apple's" becomes "apple".
    """
    return mentions.withColumn(schemas.NORMALIZED.name, F.expr(_NORMALIZED))


def build_entities(recognized: DataFrame, provenance: Provenance) -> DataFrame:
    """Return rows of `entities`, one for each mention in the recognized documents, with the passthrough columns, if any.

    The mention_id consists of doc_id, begin and end of the mention: for example, `d1:5-9`.
    """
    passthrough = [name for name in recognized.columns if name == "passthrough"]
    exploded = recognized.select("doc_id", F.explode("mentions").alias("mention"), *passthrough)
    mention_id = F.concat("doc_id", F.lit(":"), "mention.begin", F.lit("-"), "mention.end").alias(schemas.MENTION_ID.name)
    rows = exploded.select("doc_id", mention_id, "mention.*", *(f"{name}.*" for name in passthrough))
    return add_normalized(rows).withColumns({"model": F.lit(provenance.model), **provenance.columns()})


def build_documents(recognized: DataFrame, provenance: Provenance) -> DataFrame:
    """Add the columns of `documents` to recognized documents; the status is `blank` for no tokens, and otherwise `done`."""
    return recognized.withColumns(
        {
            "status": F.when(F.col("tokens") == 0, "blank").otherwise("done"),
            "entities": F.size("mentions"),
            "passthrough_hash": row_checks.hash_passthrough(recognized.columns),
            "slice": F.lit(provenance.slice).cast("string"),
            "fingerprint": F.lit(provenance.fingerprint),
            "source_version": F.lit(provenance.source_version),
            **provenance.columns(),
        }
    )


def build_rejects(rejected: DataFrame, provenance: Provenance) -> DataFrame:
    """Return the given rows (doc_id, stage, code, detail) with the other columns of `rejects`: slice, run_id and at."""
    return rejected.withColumns(
        {
            "slice": F.lit(provenance.slice).cast("string"),
            "run_id": F.lit(provenance.run_id),
            "at": F.lit(provenance.started_at),
        }
    )


@dataclass(frozen=True)
class UnitIds:
    """Ids of a unit's documents.

    first, last: smallest and greatest doc_id; None if the unit has no documents.
    ids: all ids of the unit; None if the ids were not collected.
    some_failed: whether recognition failed for any of the unit's documents.
    """

    first: str | None = None
    last: str | None = None
    ids: list[str] | None = None
    some_failed: bool = False


@dataclass(frozen=True)
class Unit:
    """Recognized documents that are published together, and documents that are removed in the same commits.

    recognized: DataFrame with the columns schemas.RECOGNIZED and, if configured, `passthrough` and schemas.ANNOTATIONS. It
        is read several times, so it must be cached or in a table.
    in_output: whether any of the recognized documents may already have rows in the tables.
    doc_ids: ids of the recognized documents; they may include ids of documents for which recognition failed.
    removed: DataFrame with the distinct doc_ids of the documents to remove; None if there are none.
    """

    recognized: DataFrame
    in_output: bool
    doc_ids: UnitIds
    removed: DataFrame | None = None


class Publisher:
    """Writes a run's results to `entities`, `annotations` and `documents`."""

    def __init__(
        self,
        tables: Tables,
        commits: Commits,
        provenance: Provenance,
        passthrough: list[T.StructField],
        *,
        annotations: bool,
    ) -> None:
        """Store the arguments; nothing is written yet. `annotations` says whether to write the table `annotations`.

        The Spark session of `tables` must come from `open_private_session`. `passthrough` has the passthrough columns.
        """
        self.tables = tables
        self._commits = commits
        self._provenance = provenance
        self._schema = schemas.entities_schema(passthrough)
        self._annotations = annotations
        self._unit = 0
        # If this run writes no annotations, it deletes the old annotations of the documents that it replaces.
        self._old_annotations = not annotations and tables.exists("annotations")

    def publish(self, unit: Unit) -> None:
        """Replace the results of a unit's documents, and delete the documents in `unit.removed`.

        If `unit.in_output` is False and nothing is removed, rows are only appended. An empty unit makes no commit. In other
        cases, large tables first get deletion vectors, and a run without annotations deletes the unit's old annotations.
        """
        if unit.doc_ids.first is None and unit.removed is None:
            return
        replaces = unit.in_output or unit.removed is not None
        change = self._choose_replacement(unit) if replaces else self._append
        self._unit += 1
        if replaces:
            touches_annotations = self._annotations or self._old_annotations
            for name in ("annotations", "entities", "documents") if touches_annotations else ("entities", "documents"):
                table_setup.enable_deletion_vectors_if_large(self.tables, name)
        with self._commits.track_change(self._unit):
            if self._annotations:
                annotated = unit.recognized.withColumn("run_id", F.lit(self._provenance.run_id))
                change("annotations", select_table_columns(annotated, schemas.ANNOTATION_TABLE))
            elif self._old_annotations and replaces:
                change("annotations", self.tables.read("annotations").limit(0))
            entities = build_entities(unit.recognized, self._provenance)
            change("entities", select_table_columns(entities, self._schema))
            documents = build_documents(unit.recognized, self._provenance)
            change("documents", select_table_columns(documents, schemas.DOCUMENTS))

    def remove(self, ids: DataFrame) -> None:
        """Remove documents from the tables without publishing any; `ids` is a DataFrame with a column doc_id."""
        nothing = create_frame(self.tables.spark, [], T.StructType(schemas.RECOGNIZED))
        self.publish(Unit(nothing, in_output=True, doc_ids=UnitIds(ids=[]), removed=ids))

    def move_to_slice(self, ids: DataFrame) -> None:
        """Set the column `slice` of `documents` to this run's digest of source.where, in rows whose doc_id is in `ids`."""
        rows = ids.select("doc_id", F.lit(self._provenance.slice).alias("slice"))
        table_setup.enable_deletion_vectors_if_large(self.tables, "documents")
        upsert = partial(merge_statements.upsert, self.tables, "documents", rows, ["slice"], insert=False)
        self._commits.execute("documents", upsert)

    def clear_slices(self) -> None:
        """Set the column `slice` of all documents to null, because this run replaces the whole output."""
        if self.tables.read_latest("documents").where("slice IS NOT NULL").take(1):
            table_setup.enable_deletion_vectors_if_large(self.tables, "documents")
            update = f"UPDATE {self.tables.sql_name('documents')} SET slice = NULL WHERE slice IS NOT NULL"  # noqa: S608
            self._commits.execute("documents", partial(run_statement, self.tables.spark, update))

    def _append(self, name: str, frame: DataFrame) -> None:
        self._commits.append(self._fit_file_size(name, frame), name)

    def _choose_replacement(self, unit: Unit) -> Callable[[str, DataFrame], None]:
        """Return a function that replaces a table's rows of the documents that the unit publishes or removes.

        The function gets the table's name and the new rows. If the driver knows the ids of the documents, and there are at
        most MAX_LISTED_IDS, the function lists them in an SQL condition. Otherwise, it uses a MERGE.
        """
        old_ids = unit.recognized.select("doc_id")
        ids = None if unit.doc_ids.ids is None else set(unit.doc_ids.ids)
        if unit.removed is not None:
            old_ids = old_ids.unionByName(unit.removed.select("doc_id"))
            if ids is not None:
                ids.update(row["doc_id"] for row in unit.removed.select("doc_id").limit(MAX_LISTED_IDS + 1).collect())
        if ids is not None and len(ids) <= MAX_LISTED_IDS:
            return partial(self._replace, condition=f"doc_id IN ({', '.join(map(quote_literal, sorted(ids)))})")
        ends = [unit.doc_ids.first, unit.doc_ids.last]
        if unit.removed is not None:
            ends += list(unit.removed.agg(F.min("doc_id"), F.max("doc_id")).collect()[0])
        present = [doc_id for doc_id in ends if doc_id is not None]
        between = (min(present), max(present)) if present else None
        return partial(self._merge, old_ids=old_ids, between=between)

    def _replace(self, name: str, frame: DataFrame, *, condition: str) -> None:
        """Replace the rows of the table `name` that meet an SQL condition by the rows of `frame`."""
        self._commits.replace(self._fit_file_size(name, frame), name, condition)

    def _merge(self, name: str, frame: DataFrame, *, old_ids: DataFrame, between: tuple[str, str] | None) -> None:
        """Delete the rows with `old_ids` and insert `frame`, by a MERGE; `between` has the smallest and greatest old id."""
        self._commits.execute(name, partial(merge_statements.replace_documents, self.tables, name, old_ids, frame, between))

    def _fit_file_size(self, name: str, frame: DataFrame) -> DataFrame:
        """Return rows for the table `name`, repartitioned for files of the target size; rows of `entities` also by label."""
        return self.tables.fit_file_size(frame, by="label" if name == "entities" else None)


class RejectsWriter:
    """Writes the rows that a run rejects to the table `rejects`, which must exist."""

    def __init__(self, tables: Tables, commits: Commits, provenance: Provenance) -> None:
        self._tables = tables
        self._commits = commits
        self._provenance = provenance
        self._empty = tables.is_empty("rejects")

    def replace_all(self, rejected: DataFrame, *, any_rejected: bool) -> None:
        """Replace all rows of `rejects` by `rejected`; if the run replaces a slice (see `Provenance`), only the slice's.

        If there are neither old nor new rows, nothing is written. `any_rejected` says whether `rejected` has any rows.
        """
        condition = f"slice = {quote_literal(self._provenance.slice)}" if self._provenance.slice else None
        if any_rejected or (not self._empty and self._tables.read_latest("rejects").where(condition or "true").take(1)):
            self._commits.replace(self._build_rows(rejected), "rejects", condition)

    def replace_for_ids(self, ids: DataFrame, rejected: DataFrame, *, any_rejected: bool, any_stale: bool) -> None:
        """Replace the rows of `rejects` that have one of the ids by `rejected`; keep all other rows.

        Args:
            ids: DataFrame with the column doc_id. A null stands for all rows of `rejects` without an id or, if the run
                replaces a slice (the rows that source.where selects), for the slice's rows without an id.
            rejected: DataFrame with the columns doc_id, stage, code and detail.
            any_rejected: whether `rejected` has any rows.
            any_stale: whether `rejects` may already have rows of these ids; if False, the new rows are only appended.
        """
        if not any_stale:
            if any_rejected:
                self.add(rejected)
            return
        slice_ = F.lit(self._provenance.slice).cast("string").alias("slice")
        old_ids, rows = ids.select("doc_id", slice_).distinct(), self._build_rows(rejected)
        replace = partial(merge_statements.replace_documents, self._tables, "rejects", old_ids, rows)
        self._commits.execute("rejects", replace)

    def add(self, rejected: DataFrame) -> None:
        """Append rows with the columns doc_id, stage, code and detail to `rejects`."""
        self._commits.append(self._build_rows(rejected), "rejects")

    def _build_rows(self, rejected: DataFrame) -> DataFrame:
        """Return rows of `rejects`, repartitioned for files of about the target size."""
        built = select_table_columns(build_rejects(rejected, self._provenance), schemas.REJECTS)
        return self._tables.fit_file_size(built)
