"""Results that become visible all at once: of `--full`, and of every run whose `entities` is plain Parquet.

Units are published into tables of their own beside the output, so a killed run goes on where it was. When all are there, the
staging is marked complete and swapped in, first `entities`, then `documents`; a run that finds a complete one, left by a run
that died in the swap, swaps it in first. Every step of the swap may be done again.
"""

from __future__ import annotations

import json

from pyspark.sql import DataFrame
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.platform import storage
from entitymill.tables import table_setup
from entitymill.tables.commits import retried
from entitymill.tables.layout import Tables
from entitymill.tables.lease import Lease
from entitymill.tables.publisher import Publisher, take_back
from entitymill.tables.table_rows import Stamp, normalized

_KIND, _COMPLETE = "entitymill.staging", "entitymill.complete"
_READY, _SPENT = "true", "spent"
_STAGED = ("documents", "entities", "annotations")
"""Dropped in this order: without its documents, a staging is nothing."""
_WRITTEN, _REPLACED = "written", "replaced"


class Staging:
    """What waits to be swapped into an output."""

    def __init__(self, tables: Tables, lease: Lease) -> None:
        """Nothing is read yet."""
        self._tables = tables
        self._commits = lease.commits
        self._lease = lease
        self._staged = Tables(tables.spark, tables.settings, staged=True)
        self._whole = False

    def settle(self) -> None:
        """Swap in what a dead run left complete; remove what is of no use."""
        if self._tables.parquet:
            settle_swap(self._tables)
        if not self._staged.exists("documents"):
            self._drop()
            return
        properties = self._staged.properties("documents")
        if _KIND not in properties or properties.get(_COMPLETE) == _SPENT:
            self._drop()
        elif properties.get(_COMPLETE) == _READY:
            self._whole = json.loads(properties[_KIND])["whole"]
            if not self._whole and not self._tables.exists("entities"):
                self._drop()  # what it was to be put beside is gone: the run makes everything anew
            else:
                self._swap()

    def discard(self) -> None:
        """Swap in what a dead run left complete; remove what another one left half."""
        self.settle()
        self._drop()

    def open(self, stamp: Stamp, passthrough: list[T.StructField], *, whole: bool, annotations: bool) -> Publisher:
        """Start collecting, or go on where a dead run of the same kind was.

        Args:
            passthrough: the carried fields.
            whole: whether what is collected replaces everything, or only the documents that are in it.
            annotations: whether `annotations` is collected too.
        """
        self._whole = whole
        kind = json.dumps(
            {
                "whole": whole,
                "fingerprint": stamp.fingerprint,
                "slice": stamp.slice,
                "annotations": annotations,
                "carried": {field.name: field.dataType.simpleString() for field in passthrough},
            }
        )
        resumed = self._staged.exists("documents") and self._staged.properties("documents").get(_KIND) == kind
        if not (resumed and take_back(self._staged, self._commits, None)):
            resumed = False
            self._drop()
            table_setup.create(self._staged, "documents", schemas.DOCUMENTS, {_KIND: kind})
        publisher = Publisher(self._staged, self._commits, stamp, passthrough, annotations=annotations)
        if not resumed:
            # Of tables made just now Delta does not know yet that an older epoch's commits are not to be taken.
            self._commits.fence(self._staged)
        return publisher

    def known(self) -> DataFrame:
        """What `documents` will say of all documents, as far as is known now."""
        collected = self._staged.read_as_it_is("documents")
        present = collected.where("status <> 'removed'")
        if self._whole or not self._tables.exists("documents"):
            return present
        return present.unionByName(
            self._tables.read_as_it_is("documents").join(collected.select("doc_id"), "doc_id", "left_anti")
        )

    def finish(self) -> None:
        """Make what was collected visible.

        Raises:
            OutputError: another run took over.
        """
        self._lease.check()
        self._mark(_READY)
        self._swap()

    def _mark(self, state: str) -> None:
        reference = self._staged.reference("documents")
        statement = f"ALTER TABLE {reference} SET TBLPROPERTIES ('{_COMPLETE}' = '{state}')"
        retried("documents", lambda: self._tables.spark.sql(statement))

    def _swap(self) -> None:
        collected = self._staged.read("documents")
        if self._tables.parquet:
            swap_parquet(self._tables, self._merged(collected), self._lease)
        else:
            self._replace("entities", self._staged.read("entities"))
        if self._staged.exists("annotations"):
            table_setup.create(self._tables, "annotations", schemas.ANNOTATION_TABLE)
        if self._tables.exists("annotations"):
            empty = self._tables.read("annotations").limit(0)
            annotations = self._staged.read("annotations") if self._staged.exists("annotations") else empty
            self._put("annotations", collected, annotations)
        table_setup.create(self._tables, "documents", schemas.DOCUMENTS)
        self._put("documents", collected, collected.where("status <> 'removed'"))
        self._lease.check(surely=True)
        # Else what a death leaves of it, half deleted, would be swapped in again.
        self._mark(_SPENT)
        self._drop()

    def _put(self, name: str, collected: DataFrame, rows: DataFrame) -> None:
        """In one commit: all rows, or those of the documents that were collected."""
        if self._whole:
            self._replace(name, rows)
        else:
            self._commits.change(name, lambda: self._tables.exchange(name, collected.select("doc_id"), rows))

    def _replace(self, name: str, rows: DataFrame) -> None:
        table_setup.create(self._tables, name, rows.schema)
        self._commits.replace(self._tables.sized(rows, by="label" if name == "entities" else None), name)

    def _merged(self, collected: DataFrame) -> DataFrame:
        rows = self._staged.read("entities")
        if self._whole:
            return rows
        if not self._tables.exists("entities"):
            raise OutputError(
                f"output: {self._tables.address('entities')} is gone: another run, or somebody, has just taken it away; "
                "run again."
            )
        held = self._tables.read("entities")
        if schemas.NORMALIZED.name not in held.columns:
            held = normalized(held)
        return rows.unionByName(held.join(collected.select("doc_id"), "doc_id", "left_anti"), allowMissingColumns=True)

    def _drop(self) -> None:
        for name in _STAGED:
            self._staged.drop(name)


def swap_parquet(tables: Tables, frame: DataFrame, lease: Lease) -> None:
    """Put rows in the place of `entities`: readers see the old directory, for a moment none, then the new.

    Args:
        frame: rows of `entities`.
        lease: of this run: renames cannot be fenced.

    Raises:
        OutputError: another run took over, or the storage refuses a rename.
    """
    # Of its own name: a run that was taken for dead may still be writing.
    written = f"{_WRITTEN}_{lease.epoch}"
    tables.sized(frame, by="label").write.partitionBy("label").mode("overwrite").parquet(tables.address(written))
    lease.check(surely=True)
    if tables.exists("entities"):
        _rename(tables, "entities", _REPLACED)
    _rename(tables, written, "entities")
    storage.remove(tables.spark, tables.address(_REPLACED))


def settle_swap(tables: Tables) -> None:
    """Finish or undo a swap that a dead run left in the middle."""
    if tables.exists(_REPLACED) and not tables.exists("entities"):
        _rename(tables, _REPLACED, "entities")
    storage.remove(tables.spark, tables.address(_REPLACED))
    for name in storage.names(tables.spark, f"{tables.address(_WRITTEN)}_*"):
        storage.remove(tables.spark, tables.address(name.removeprefix("_")))


def _rename(tables: Tables, name: str, to: str) -> None:
    if not storage.rename(tables.spark, tables.address(name), tables.address(to)):
        raise OutputError(f"output.path: {tables.address(name)} cannot be renamed to {tables.address(to)}.")
