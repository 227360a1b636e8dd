"""1  what Delta says of a source's rows since a version: its change feed, or what was appended; and when it is not sure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from entitymill import source
from entitymill.source import Source

log = logging.getLogger(__name__)
MOST_COMMITS = 1000
NO_DATA = frozenset(
    {
        "OPTIMIZE",
        "REORG",
        "VACUUM START",
        "VACUUM END",
        "COMPUTE STATS",
        "SET TBLPROPERTIES",
        "UNSET TBLPROPERTIES",
        "ADD CONSTRAINT",
        "DROP CONSTRAINT",
    }
)
"""Operations that leave every row as it was."""
OF_ROWS = frozenset({"WRITE", "MERGE", "UPDATE", "DELETE", "STREAMING UPDATE", "TRUNCATE", "COPY INTO"})
"""Operations whose events tell of every row that they change; a column dropped and made anew has none, for one."""
PUT, CUT = ("insert", "update_postimage"), ("delete", "update_preimage")
CHANGE, COMMIT = "_change_type", "_commit_version"


@dataclass(frozen=True)
class Feed:
    """What changed, or nothing at all.

    mode: `feed` or `arrivals`.
    events: doc_id, text, perhaps `passthrough`, CHANGE and COMMIT of the rows that pass `source.where`; cached.
    close: gives back what is kept.
    """

    mode: str
    events: DataFrame
    close: Callable[[], object]


def since(
    spark: SparkSession, source_: Source, version: str, keep: Callable[[DataFrame], DataFrame], drop: Callable[[], object]
) -> Feed | None:
    """What changed in a Delta source after a version, up to the one that is read.

    Args:
        spark: the session.
        source_: of the run.
        version: that an earlier run read.
        keep: writes a stream of rows down until no more arrive, and returns them.
        drop: removes what `keep` wrote.

    Returns:
        None where Delta cannot tell: rows were rewritten without a change feed, or the history is gone.
    """
    try:
        table = source.delta_table(spark, source_.settings)
        if table is None or not (version.isdigit() and source_.version.isdigit()):
            return None
        commits = _commits(table, int(version), int(source_.version))
        if commits is None:
            return None
        changing = [commit for commit in commits if commit["operation"] not in NO_DATA]
        if not changing:
            empty = source_.rows.limit(0).withColumns({CHANGE: F.lit("insert"), COMMIT: F.lit(0).cast("long")})
            return Feed("feed", empty, lambda: None)
        if source.has_change_feed(table):
            return _change_feed(spark, source_, int(version))
        if all(map(_appends, changing)):
            return _arrivals(spark, source_, int(version), keep, drop)
    except (PySparkException, Py4JJavaError) as error:
        # An old file was vacuumed, or the feed was off for a while: all rows can still be compared.
        log.warning("Delta does not tell what changed (%s): all rows are compared", type(error).__name__)
    return None


def _commits(table: DeltaTable, after: int, until: int) -> list[Row] | None:
    """The commits after one version up to another; none where some are gone, of an unknown kind, or they are too many."""
    if not after <= until or until - after > MOST_COMMITS:
        return None
    rows = table.history(until - after + MOST_COMMITS).where((F.col("version") > after) & (F.col("version") <= until))
    found = rows.select("version", "operation", "operationParameters").collect()
    known = all(commit["operation"] in OF_ROWS | NO_DATA for commit in found)
    return found if known and len(found) == until - after else None


def _appends(commit: Row) -> bool:
    told = commit["operationParameters"] or {}
    if commit["operation"] == "WRITE":
        return bool(told.get("mode") == "Append")
    return bool(commit["operation"] == "STREAMING UPDATE" and told.get("outputMode") == "Append")


def _change_feed(spark: SparkSession, source_: Source, version: int) -> Feed:
    read = source.read_changes(spark, source_.settings, version + 1, int(source_.version))
    events = source.rows_of(read, source_.settings, CHANGE, COMMIT).persist(StorageLevel.DISK_ONLY)
    try:
        events.count()  # read here, where a feed that is not there does no harm
    except Exception:
        events.unpersist()
        raise
    return Feed("feed", events, events.unpersist)


def _arrivals(
    spark: SparkSession,
    source_: Source,
    version: int,
    keep: Callable[[DataFrame], DataFrame],
    drop: Callable[[], object],
) -> Feed:
    stream = source.rows_of(source.read_arrivals(spark, source_.settings, version + 1), source_.settings)
    kept = keep(stream)
    return Feed("arrivals", kept.withColumns({CHANGE: F.lit("insert"), COMMIT: F.lit(0).cast("long")}), drop)


def settle(events: DataFrame, known: DataFrame, refused: DataFrame) -> tuple[DataFrame, DataFrame] | None:
    """The rows as they are now, and the ids of rows that are no more.

    Args:
        events: of a feed.
        known: doc_id of the documents that the output holds.
        refused: doc_id of `rejects`.

    Returns:
        doc_id, text, perhaps `passthrough`; and doc_id. None where an id may occur in a row that the events do not tell of.
    """
    put = F.col(CHANGE).isin(*PUT)
    each = events.groupBy("doc_id").agg(F.max(COMMIT).alias("last"), F.sum(F.when(put, 1).otherwise(-1)).alias("more"))
    latest = events.join(each, "doc_id").where(put & (F.col(COMMIT) == F.col("last")))
    now = latest.groupBy("doc_id").agg(F.count("*").alias("now"))
    held = known.select("doc_id", F.lit(1).alias("held"))
    told = each.join(now, "doc_id", "left").join(held, "doc_id", "left").fillna(0, ["now", "held"])
    # A known document is one row; with those that came and went, it must be the rows of the latest commit: one, or none.
    sure = (F.col("held") + F.col("more") == F.col("now")) & (F.col("now") <= 1)
    unsure = told.where(~sure).select("doc_id")
    unsure = unsure.unionByName(each.select("doc_id").join(refused.select("doc_id"), "doc_id", "left_semi"))
    unsure = unsure.unionByName(events.where(F.col("doc_id").isNull()).select("doc_id"))
    if unsure.take(1):
        return None
    return latest.drop("last", "more", CHANGE, COMMIT), told.where("now = 0").select("doc_id")
