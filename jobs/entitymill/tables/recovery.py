"""Repair the tables after a run that did not end settled, which means that it may have left changes incomplete.

A document is unsound if its mentions in `entities` are not the ones that `documents` records. Unsound documents get the
status pending, and the run recomputes them. docs/decisions.md explains why this repair is sufficient.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.source.change_policy import PENDING
from entitymill.spark.spark_connect import cache_on_disk
from entitymill.tables import table_setup
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)


FENCED = ("documents", "entities", "annotations", "rejects", "erasures")
"""Tables in the order in which `settle` blocks commits of older runs. `documents` comes first: an older run whose commit to
`entities` is refused must not record in `documents` that its mentions are in `entities`."""


def create_missing(tables: Tables, schemas_: dict[str, T.StructType]) -> bool:
    """Create the missing tables; return whether any table was missing.

    Args:
        tables: tables of the output.
        schemas_: table name -> schema, for each table that the run writes.
    """
    created = [name for name, schema in schemas_.items() if table_setup.create_table(tables, name, schema)]
    return bool(created)


def settle(tables: Tables, commits: Commits) -> int:
    """Block commits of older runs to every table, then mark unsound documents as pending, so that this run recomputes them.

    Returns:
        The number of documents that were marked as pending.

    Raises:
        OutputError: a later run has written a table.
    """
    for name in FENCED:
        if tables.exists(name):
            commits.fence(name)
    tables.forget()
    with ExitStack() as cached:
        unsound = cache_on_disk(find_unsound_documents(tables), cached)
        number = unsound.count()
        if number:
            log.warning("an earlier run published %d documents only in part; this run recomputes them", number)
            pending = unsound.withColumns({"status": F.lit(PENDING), "entities": F.lit(0)})
            commits.execute("documents", lambda: tables.upsert("documents", pending, ["status"]))
            # If Delta skipped this commit, the run might append mentions that `entities` already contains.
            commits.check_committed("documents")
            tables.forget("documents")  # it may have been empty
    commits.earlier_runs_settled = True
    return number


def read_settled_documents(tables: Tables) -> DataFrame:
    """Return the rows that `documents` would have after `settle`, without writing anything.

    An unsound document without a row in `documents` gets a row in which only doc_id and status are not null.
    """
    unsound = find_unsound_documents(tables).select("doc_id", F.lit(PENDING).alias("found"))
    joined = tables.read_latest("documents").join(unsound, "doc_id", "full")
    return joined.withColumn("status", F.coalesce("found", "status")).drop("found")


def find_unsound_documents(tables: Tables) -> DataFrame:
    """Return a frame with doc_id, run_id and slice of each unsound document that is not already pending.

    A document is sound if `documents` has one row of it, all its rows in `entities` have the run_id of that row, and their
    number is the number of mentions in that row. In addition, it must have exactly one row in `annotations` with this run_id
    if that run wrote annotations, and no row there if it did not.
    """
    copies = F.count("*").over(Window.partitionBy("doc_id")).alias("copies")
    columns = ("doc_id", F.col("run_id").alias("named"), "status", "entities", "slice", copies)
    known = tables.read_latest("documents").select(*columns)
    checks = _count_rows(tables, "entities", "mention")
    joined = known.join(checks, "doc_id", "full")
    sound = (F.col("copies") == 1) & (F.coalesce("mention_rows", F.lit(0)) == F.col("entities"))
    sound &= _is_of_named_run("mention")
    if tables.exists("annotations"):
        joined = joined.join(_count_rows(tables, "annotations", "annotation"), "doc_id", "full")
        annotated = tables.read_latest("runs").where("get_json_object(settings, '$.output.annotations') = 'true'")
        joined = joined.join(annotated.select(F.col("run_id").alias("named"), F.lit(1).alias("due")), "named", "left")
        sound &= F.coalesce("annotation_rows", F.lit(0)) == F.coalesce("due", F.lit(0))
        sound &= _is_of_named_run("annotation")
        writer = F.coalesce("named", "mention_last", "annotation_last")
    else:
        writer = F.coalesce("named", "mention_last")
    unsound = joined.where(~F.coalesce(sound, F.lit(False)) & ~F.col("status").eqNullSafe(PENDING))
    # A document without a row in `documents` belongs to the slice of the run that wrote its mentions.
    slices = tables.read_latest("runs").select(F.col("run_id").alias("run"), F.col("slice").alias("slice_of_run"))
    unsound = unsound.withColumn("writer", writer).join(slices, F.col("writer") == F.col("run"), "left")
    slice_ = F.when(F.col("named").isNull(), F.col("slice_of_run")).otherwise(F.col("slice"))
    found = unsound.select("doc_id", F.col("writer").alias("run_id"), slice_.alias("slice"))
    return found.dropDuplicates(["doc_id"])


def _count_rows(tables: Tables, name: str, prefix: str) -> DataFrame:
    """Return a frame that counts the rows of each doc_id in a table.

    Its columns are doc_id, {prefix}_rows (number of rows), {prefix}_first and {prefix}_last (smallest and greatest run_id).
    """
    return (
        tables.read_latest(name)
        .groupBy("doc_id")
        .agg(
            F.count("*").alias(f"{prefix}_rows"),
            F.min("run_id").alias(f"{prefix}_first"),
            F.max("run_id").alias(f"{prefix}_last"),
        )
    )


def _is_of_named_run(prefix: str) -> Column:
    """Return a condition that is true if all of a document's rows in a table (perhaps none) have its run_id in `documents`.

    `prefix` is the argument with which `_count_rows` counted the rows of that table.
    """
    theirs = (F.col(f"{prefix}_first") == F.col("named")) & (F.col(f"{prefix}_last") == F.col("named"))
    return F.col(f"{prefix}_rows").isNull() | theirs
