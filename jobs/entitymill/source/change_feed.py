"""What Delta says of a source's rows since a version: its change feed, or what was appended; and when it is not sure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from entitymill.platform import spark_connect
from entitymill.source import reader
from entitymill.source.reader import Source

log = logging.getLogger(__name__)
MOST_COMMITS = 1000
SINCE_THEN = 20
"""Commits that may have come since the source was opened."""
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
PUT = ("insert", "update_postimage")
CHANGE, COMMIT = "_change_type", "_commit_version"


@dataclass(frozen=True)
class Feed:
    """What changed, or nothing at all.

    mode: `feed` or `arrivals`.
    events: doc_id, text, perhaps `passthrough`, CHANGE and COMMIT of the rows that pass `source.where`.
    """

    mode: str
    events: DataFrame


def since(spark: SparkSession, source_: Source, version: str, keep: Callable[[DataFrame], DataFrame]) -> Feed | None:
    """What changed in a Delta source after a version, up to the one that is read.

    Args:
        source_: of the run.
        version: that an earlier run read.
        keep: writes a stream of rows down until no more arrive, and returns them.

    Returns:
        None where Delta cannot tell: rows were rewritten without a change feed, or the history is gone.
    """
    try:
        if source_.detail is None or not (version.isdigit() and source_.version.isdigit()):
            return None
        commits = _commits(spark, source_, int(version))
        if commits is None:
            return None
        after, put = int(version), {CHANGE: F.lit("insert"), COMMIT: F.lit(0).cast("long")}
        changing = [commit for commit in commits if commit["operation"] not in NO_DATA]
        if not changing:
            return Feed("feed", source_.rows.limit(0).withColumns(put))
        if str(source_.detail["properties"].get("delta.enableChangeDataFeed")).lower() == "true":
            read = reader.read_changes(spark, source_.settings, after + 1, int(source_.version))
            return Feed("feed", reader.rows_of(read, source_.settings, CHANGE, COMMIT))
        # Connect's server is not where this program could note how far a stream is.
        if all(map(_appends, changing)) and not spark_connect.remote(spark):
            stream = reader.rows_of(reader.read_arrivals(spark, source_.settings, after + 1), source_.settings)
            return Feed("arrivals", keep(stream).withColumns(put))
    except (PySparkException, Py4JJavaError) as error:
        # What is asked for is gone: all rows can still be compared.
        log.warning("Delta does not tell what changed (%s): all rows are compared", type(error).__name__)
    return None


def _commits(spark: SparkSession, source_: Source, after: int) -> list[Row] | None:
    """The commits since a version; none where some are gone, of an unknown kind, or they are too many."""
    until = int(source_.version)
    if not after <= until or until - after > MOST_COMMITS:
        return None
    rows = reader.history(spark, source_.settings, until - after + SINCE_THEN)
    found = [row for row in rows if after < row["version"] <= until]
    known = all(commit["operation"] in OF_ROWS | NO_DATA for commit in found)
    return found if known and len(found) == until - after else None


def _appends(commit: Row) -> bool:
    told = commit["operationParameters"] or {}
    if commit["operation"] == "WRITE":
        return bool(told.get("mode") == "Append")
    return bool(commit["operation"] == "STREAMING UPDATE" and told.get("outputMode") == "Append")


def rows(feed: Feed) -> DataFrame:
    """A row for each id that the events tell of, as its latest commit left it.

    Returns:
        doc_id; here: text and perhaps `passthrough` in a struct, null where the row is no more; now: rows of the latest
        commit; more: rows put less rows cut, of all commits.
    """
    put = F.col(CHANGE).isin(*PUT)
    columns = [name for name in feed.events.columns if name not in ("doc_id", CHANGE, COMMIT)]
    row = F.when(put, F.struct(*columns))
    # By id alone, which serves both groupings.
    events = feed.events.repartition("doc_id").withColumns({"put": put.cast("int"), "row": row})
    commits = events.groupBy("doc_id", COMMIT).agg(
        F.sum("put").alias("now"), F.sum(2 * F.col("put") - 1).alias("more"), F.first("row", ignorenulls=True).alias("here")
    )
    return commits.groupBy("doc_id").agg(
        F.max_by("here", COMMIT).alias("here"), F.max_by("now", COMMIT).alias("now"), F.sum("more").alias("more")
    )
