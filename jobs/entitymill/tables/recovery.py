"""Repair the tables after a run that may have left changes incomplete, and find changes by other programs.

A document is unsound if `entities` does not have exactly the mentions that `documents` records, because a run died between
two commits. `settle` gives unsound documents the status PENDING, so that they are recomputed. docs/decisions.md explains why
this suffices.

Each run records the tables' versions at its end. If others change a table later, for example by RESTORE or DELETE, the next
run checks all documents and compares them with the source.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.run_row import RunRow
from entitymill.source.change_feed import NON_DATA_OPERATIONS
from entitymill.source.rows_against_output import PENDING
from entitymill.spark.spark_connect import cache_on_disk
from entitymill.tables import merge_statements, table_setup
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.output_tables import DOCUMENT_TABLES, PUBLISHED_TABLES, Tables

log = logging.getLogger(__name__)
FENCED = ("documents", "entities", "annotations", "rejects", "erasures")
"""Tables in the order in which `settle` blocks commits of older runs. `documents` comes first: once Delta refuses an older
run's mentions in `entities`, this older run must not be able to record in `documents` that they are there."""
_LATER_COMMITS = 10
"""How many more commits to read from a history, because OPTIMIZE, for example, may commit after the version was read."""


def create_missing(tables: Tables, schemas_: dict[str, T.StructType]) -> bool:
    """Create missing tables, and add missing columns to existing tables; return whether any table was missing.

    `schemas_` is a dict from the name of each table to its schema.
    """
    created = [name for name, schema in schemas_.items() if table_setup.create_table(tables, name, schema)]
    return bool(created)


def block_earlier_runs(tables: Tables, commits: Commits) -> None:
    """Make Delta refuse later commits of earlier runs to the tables in FENCED, by an empty commit to each table that exists.

    Then clear the cached details of all tables. Raise OutputError if a run that began after this run has written to any of
    the tables.
    """
    for name in FENCED:
        if tables.exists(name):
            commits.fence(name)
    tables.forget()


def settle(tables: Tables, commits: Commits) -> int:
    """Block commits of older runs to the tables in FENCED, then mark unsound documents for recomputation (status PENDING).

    `find_unsound_documents` says which documents are unsound. If `documents` has no row of such a document, add one, with 0
    entities. Return the number of unsound documents, and set `commits.earlier_runs_settled` to True. Raise OutputError if a
    run that began after this run has written to a table.
    """
    block_earlier_runs(tables, commits)
    with ExitStack() as cached:
        unsound = cache_on_disk(find_unsound_documents(tables), cached)
        number = unsound.count()
        if number:
            log.warning("an earlier run published the results of %d documents only in part; the job recomputes them", number)
            pending = unsound.withColumns({"status": F.lit(PENDING), "entities": F.lit(0)})
            commits.execute("documents", partial(merge_statements.upsert, tables, "documents", pending, ["status"]))
            # If Delta skipped this commit, this run might append mentions that `entities` already contains.
            commits.check_committed("documents")
            tables.forget("documents")  # the cached detail may say that the table is empty
    commits.earlier_runs_settled = True
    return number


def read_settled_documents(tables: Tables) -> DataFrame:
    """Return the rows that `documents` would have after `settle`, without writing anything.

    Documents that a dead run published only partially have the status PENDING in the result. If `documents` has no row of
    such a document, the result has a row with doc_id and status, whose remaining columns are null.
    """
    unsound = find_unsound_documents(tables).select("doc_id", F.lit(PENDING).alias("found"))
    joined = tables.read_latest("documents").join(unsound, "doc_id", "full")
    return joined.withColumn("status", F.coalesce("found", "status")).drop("found")


def find_unsound_documents(tables: Tables) -> DataFrame:
    """Return a DataFrame with doc_id, run_id and slice of each unsound document that is not PENDING yet.

    If `documents` has no row of the document, `run_id` comes from its rows in `entities` or `annotations`, and `slice` from
    that run's row of `runs`. `slice` is a digest of source.where if a run replaced only the rows that source.where selects;
    otherwise null.

    A document is sound if all of these are true:

    - `documents` has exactly one row of the document.
    - `entities` has exactly as many rows of the document as its row in `documents` states, all with that row's run_id.
    - If that run wrote annotations, `annotations` has one row of the document, with the same run_id; otherwise no row. If
      somebody has deleted the run's row of `runs`, both one row (with the same run_id) and no row are accepted.
    """
    copies = F.count("*").over(Window.partitionBy("doc_id")).alias("copies")
    columns = ("doc_id", F.col("run_id").alias("named"), "status", "entities", "slice", copies)
    known = tables.read_latest("documents").select(*columns)
    checks = count_rows_by_document(tables.read_latest("entities"), "mention")
    joined = known.join(checks, "doc_id", "full")
    sound = (F.col("copies") == 1) & (F.coalesce("mention_rows", F.lit(0)) == F.col("entities"))
    sound &= rows_match_documents_run("mention")
    if tables.exists("annotations"):
        joined = joined.join(count_rows_by_document(tables.read_latest("annotations"), "annotation"), "doc_id", "full")
        annotates = F.get_json_object("settings", "$.output.annotations").eqNullSafe("true")
        due = tables.read_latest("runs").select(F.col("run_id").alias("named"), annotates.cast("int").alias("due"))
        joined = joined.join(due, "named", "left")
        number = F.coalesce("annotation_rows", F.lit(0))
        sound &= F.when(F.col("due").isNull(), number <= 1).otherwise(number == F.col("due"))
        sound &= rows_match_documents_run("annotation")
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


def count_rows_by_document(rows: DataFrame, prefix: str, *more: Column) -> DataFrame:
    """Return one row per doc_id in `rows`: doc_id, the number of its rows, and their smallest and greatest run_id.

    `rows` must have the columns doc_id and run_id. The number is in the result's column {prefix}_rows, the run_ids are in
    {prefix}_first and {prefix}_last. Each aggregate in `more` adds a column.
    """
    runs = F.min("run_id").alias(f"{prefix}_first"), F.max("run_id").alias(f"{prefix}_last")
    return rows.groupBy("doc_id").agg(F.count("*").alias(f"{prefix}_rows"), *runs, *more)


def rows_match_documents_run(prefix: str) -> Column:
    """Return a condition: all of a document's rows in a table have the run_id of the document's row in `documents`.

    The condition is also true if the table has no rows of the document. The DataFrame must have the column `named`, with the
    run_id from `documents`, and the columns that `count_rows_by_document` returned for the table with this `prefix`.
    """
    theirs = (F.col(f"{prefix}_first") == F.col("named")) & (F.col(f"{prefix}_last") == F.col("named"))
    return F.col(f"{prefix}_rows").isNull() | theirs


def read_versions(tables: Tables, names: Sequence[str]) -> dict[str, int]:
    """Return a dict from table name to the number of the table's current version."""
    return {name: tables.version(name) for name in names}


def read_versions_if_undisturbed(tables: Tables, before: dict[str, int], commits: Commits) -> dict[str, int]:
    """Return a dict from table name to current version, or an empty dict if another program may have changed rows.

    `before` has the versions before this run's first commit to the tables; `commits` made this run's commits.
    """
    present = read_versions(tables, list(before))
    for name, version in present.items():
        # In most runs, only this run's commits made new versions. The history, which takes a Spark job, is then not needed.
        made = commits.counts[name]
        if version != before[name] + made and not _is_only_changed_by(tables, name, before[name], version, commits.run_id):
            return {}
    return present


def tables_unchanged_since(tables: Tables, latest: RunRow | None) -> bool:
    """Return whether the tables still have the rows that they had when the run with the row `latest` ended.

    Return False if `latest` is None or has no output_versions, or if a table has been removed or created since that run. A
    table that was replaced is noticed only if its version differs. Commits such as OPTIMIZE do not change rows.
    """
    recorded = None if latest is None else latest.output_versions
    if not recorded or any(tables.exists(name) for name in DOCUMENT_TABLES if name not in recorded):
        return False
    for name, before in recorded.items():
        if not tables.exists(name):
            return False
        present = tables.version(name)
        if present != before and not _is_only_changed_by(tables, name, before, present, None):
            return False
    return True


def _is_only_changed_by(tables: Tables, name: str, before: int, present: int, run_id: str | None) -> bool:
    """Return whether, between two table versions, no commit except those of run `run_id` changed rows.

    If `run_id` is None, no commit at all may have changed rows. Commits such as OPTIMIZE do not change rows. Also return
    False if `present` is less than `before`, or if the history lacks commits between the two. If the result is False, log a
    warning with the reason. `before` and `present` are the recorded and the current version.
    """
    since = tables.history(name, max(present - before, 0) + _LATER_COMMITS)
    since = since.where((F.col("version") > before) & (F.col("version") <= present))
    rows = since.select("operation", "userMetadata").collect()
    others = [
        row["operation"]
        for row in rows
        if row["operation"] not in NON_DATA_OPERATIONS and (run_id is None or _read_run_id(row["userMetadata"]) != run_id)
    ]
    if present < before:
        reason = f"its version {present} is older than version {before}, which a run recorded"
    elif others:
        reason = f"operations: {', '.join(others)}"
    elif len(rows) != present - before:
        reason = f"its history lacks commits since version {before}"
    else:
        return True
    log.warning(
        "another program may have changed rows of %s (%s), so a run must check and compare all documents",
        tables.address(name),
        reason,
    )
    return False


def select_undisturbed_runs(tables: Tables, run_ids: frozenset[str]) -> frozenset[str]:
    """Return the given run ids, except those of runs whose results another program may have changed.

    Each run's first commit is searched in the history of each existing table of PUBLISHED_TABLES. A run is left out if, in
    any of these tables, another program changed rows after this commit, or the commit is missing or the oldest there.
    """
    selected = run_ids
    for name in filter(tables.exists, PUBLISHED_TABLES):
        rows = tables.history(name).select("version", "operation", "userMetadata").orderBy("version").collect()
        authors = [(row["version"], row["operation"], _read_run_id(row["userMetadata"])) for row in rows]
        oldest = min((version for version, *_ in authors), default=0)
        foreign = [version for version, operation, run in authors if run is None and operation not in NON_DATA_OPERATIONS]
        first = {run: version for version, _, run in reversed(authors)}
        selected = frozenset(run for run in selected if first.get(run, 0) > max([oldest, *foreign]))
    if selected != run_ids:
        log.info("another program may have changed results of an unfinished run with --full; recomputing its documents")
    return selected


def _read_run_id(metadata: str | None) -> object:
    """Return the run id in a commit's userMetadata; None if another program made the commit."""
    with suppress(ValueError, AttributeError):
        return json.loads(metadata or "").get("entitymill")
    return None
