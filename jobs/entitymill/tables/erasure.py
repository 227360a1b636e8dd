"""Documents out of the tables, out of their old files and versions, and a record that they are gone."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.errors import OutputError, SourceError
from entitymill.source.reader import open_source
from entitymill.tables import maintenance, table_checks, table_creation
from entitymill.tables.layout import Tables

if TYPE_CHECKING:
    from entitymill.settings import Settings

RECORD = "erasures"
MOST = 100_000
"""Ids at a time: the driver holds them, and every task a copy."""


def erase(spark: SparkSession, settings: Settings, ids: Sequence[str]) -> dict[str, int]:
    """Take documents out of all tables, delete the files that held them, and write down what was erased.

    No job runs meanwhile. Doing it again does no harm: what died half-way is done then.

    Args:
        spark: the session.
        settings: of the job that filled the tables.
        ids: doc_id of the documents.

    Returns:
        Table -> rows that were erased from it.

    Raises:
        OutputError: there are no tables, or `entities` is plain Parquet and has some of the documents still.
        SourceError: the source has some of them still, and the next run would bring them back.
    """
    tables = Tables(spark, settings.output)
    if not tables.exists("documents"):
        raise OutputError(f"output: no entity tables at {tables.place}.")
    table_checks.check_ours(tables)
    digests = {one: hashlib.sha256(one.encode()).hexdigest() for one in ids}
    wanted = spark.createDataFrame([(one,) for one in digests], "doc_id string")
    _check_source(spark, settings, wanted)
    name = f"erasure-{uuid.uuid4().hex[:6]}"
    with maintenance.alone(tables, settings, name) as commits:
        held = {table: _held(tables, table, wanted) for table in maintenance.OF_DOCUMENTS if tables.exists(table)}
        if tables.parquet and held.get("entities"):
            raise OutputError(
                f"output: {tables.address('entities')} is plain Parquet and has {len(held['entities'])} of the documents "
                "still: run the job, which swaps in files without them, and erase then."
            )
        for table, found in held.items():
            if found:
                commits.change(table, partial(_delete, tables, table, wanted))
        maintenance.purge_all(tables, 0)
        table_creation.create(tables, RECORD, schemas.ERASURES)
        now = datetime.now(timezone.utc)
        record = [
            (name, now, digest, table, found.get(one, 0)) for table, found in held.items() for one, digest in digests.items()
        ]
        commits.append(spark.createDataFrame(record, schemas.ERASURES).coalesce(1), RECORD)
    return {table: sum(found.values()) for table, found in held.items()}


def _check_source(spark: SparkSession, settings: Settings, wanted: DataFrame) -> None:
    left = open_source(spark, settings.source).rows.join(F.broadcast(wanted), "doc_id", "left_semi")
    found = [row["doc_id"] for row in left.select("doc_id").distinct().limit(1000).collect()]
    if found:
        raise SourceError(
            f"{settings.source.path} has {len(found)} of the documents still ({min(found)!r} for one), and the next run "
            "would bring them back: delete them there first, old files and versions too."
        )


def _held(tables: Tables, name: str, wanted: DataFrame) -> dict[str, int]:
    """doc_id -> rows."""
    found = tables.read(name).join(F.broadcast(wanted), "doc_id", "left_semi").groupBy("doc_id").count().collect()
    return {row["doc_id"]: row["count"] for row in found}


def _delete(tables: Tables, name: str, wanted: DataFrame) -> None:
    tables.exchange(name, wanted, tables.read(name).limit(0))
