"""Documents in and out of the tables, a unit at a time, so that a run may die between any two commits.

1. `entities` (and before it `annotations`) change in one commit.
2. `documents` says in one commit what `entities` holds now.

A run that died between the two is undone by the next one, as if it had died before them. Each commit of a unit names epoch
and unit in Delta's own record (userMetadata): a table whose latest unit is later than that of `documents` goes back to the
version before that unit, which copies nothing. So a document without a row in `documents` has none in `entities`, and units
of such documents are appended without a look at what is there.
https://docs.delta.io/latest/delta-utility.html#restore-a-delta-table-to-an-earlier-state
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.platform.sql_text import literal
from entitymill.tables import table_rows, table_setup
from entitymill.tables.commits import Commits
from entitymill.tables.layout import OF_UNITS, Tables
from entitymill.tables.table_rows import Stamp

log = logging.getLogger(__name__)
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
        made = tables.parquet or table_setup.create(tables, "entities", self._schema)
        self.fresh = table_setup.create(tables, "documents", schemas.DOCUMENTS) and made
        """Whether the tables were made just now, and so are empty."""
        if annotations:
            table_setup.create(tables, "annotations", schemas.ANNOTATION_TABLE)

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
            annotated = unit.recognised.withColumn("run_id", F.lit(self._stamp.run_id))
            change("annotations", annotated.to(schemas.ANNOTATION_TABLE))
        elif self._outdated and (unit.known or removed is not None):
            change("annotations", self.tables.read("annotations").limit(0))
        change("entities", table_rows.entities(unit.recognised, self._stamp).to(self._schema))
        done = table_rows.documents(unit.recognised, self._stamp).to(schemas.DOCUMENTS)
        if removed is not None and tombstones:
            done = done.unionByName(table_rows.tombstones(removed, self._stamp), allowMissingColumns=True)
        change("documents", done)

    def remove(self, ids: DataFrame, *, tombstones: bool = False) -> None:
        """Take documents out of the tables: as `publish`, where there is no unit to do it with."""
        nothing = self.tables.spark.createDataFrame([], T.StructType(schemas.RECOGNISED))
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


class Mark(NamedTuple):
    """The latest commit of a unit to a table; of two, the greater is the later one."""

    epoch: int
    unit: int
    version: int


def take_back(tables: Tables, commits: Commits, last: Row | None, done: int | None = None) -> bool:
    """Take back what the last run published half, if it did.

    Args:
        tables: of the output, or those that wait to be swapped in.
        commits: of this run; no older run can commit any more.
        last: run before this one; none: nobody knows.
        done: epoch of the latest run that came to its end, and so left nothing half.

    Returns:
        Whether the tables can be trusted; otherwise everything has to be made anew.
    """
    if (last is not None and last["status"] == "done") or not tables.exists("documents"):
        return True
    told = _latest(tables, "documents")
    for name in OF_UNITS[:-1]:
        if not (tables.is_delta(name) and tables.exists(name)):
            continue
        mark = _latest(tables, name)
        if mark is None or mark.epoch <= (done or 0) or (told is not None and mark[:2] <= told[:2]):
            continue
        if told is None and not _remembers_all(tables, "documents"):
            log.warning("what documents told of %s is not in Delta's log any more: all documents are done again", name)
            return False
        log.warning("%s: unit %d of epoch %d was published half, and is taken back", name, mark.unit, mark.epoch)
        try:
            commits.change(name, partial(tables.restore, name, mark.version - 1))
        except (PySparkException, Py4JJavaError):
            # Its files are gone: a VACUUM of somebody else's came between.
            log.exception("%s cannot be taken back: all documents are done again", name)
            return False
    return True


def _remembers_all(tables: Tables, name: str) -> bool:
    """Whether Delta's log still has the table's first commit: it forgets after 30 days."""
    return bool(tables.history(name).where("version = 0").take(1))


def _latest(tables: Tables, name: str) -> Mark | None:
    rows = tables.history(name).collect()
    for row in sorted(rows, key=lambda row: -row["version"]):
        if row["operation"] == "RESTORE":
            # What came before it and was taken back; by a run that died before it published anything itself.
            return None
        if row["operation"] == "OPTIMIZE":
            continue  # joined files of itself after a unit's commit, under the same name
        try:
            told = json.loads(row["userMetadata"] or "")
            return Mark(int(told["epoch"]), int(told["unit"]), int(row["version"]))
        except (ValueError, KeyError, TypeError):
            continue
    return None


class Rejects:
    """What a run changes in `rejects`."""

    def __init__(self, tables: Tables, commits: Commits, stamp: Stamp) -> None:
        """Create the table if it is missing."""
        self._tables = tables
        self._commits = commits
        self._stamp = stamp
        self._empty = table_setup.create(tables, "rejects", schemas.REJECTS) or tables.empty("rejects")

    def replace(self, refused: DataFrame, *, some: bool) -> None:
        """Make the refused rows of this run's source, or slice, these.

        Args:
            refused: doc_id, stage, code, detail.
            some: whether there are any.
        """
        condition = f"slice = '{self._stamp.slice}'" if self._stamp.slice else None
        if some or (not self._empty and self._tables.read("rejects").where(condition or "true").take(1)):
            self._commits.replace(self._rows(refused), "rejects", condition)

    def add(self, refused: DataFrame) -> None:
        """Add refused rows: doc_id, stage, code, detail."""
        self._commits.append(self._rows(refused), "rejects")

    def _rows(self, refused: DataFrame) -> DataFrame:
        made = table_rows.rejects(refused, self._stamp).to(schemas.REJECTS)
        return self._tables.sized(made)
