"""What changed in a Delta source since a version, by its change feed or by the files that were appended."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from entitymill.source import appended_files, reader
from entitymill.source.appended_files import FeedUnavailableError
from entitymill.source.policy import Mode
from entitymill.source.reader import Source

log = logging.getLogger(__name__)
MOST_COMMITS = 50_000
"""A commit every two seconds for a day. The driver holds a record of each, some 2 kB; Delta keeps 30 days of them."""
SLACK_COMMITS = 20
"""Commits that may come while the history is read a second time."""
NON_DATA_OPERATIONS = frozenset(
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
ROW_OPERATIONS = frozenset({"WRITE", "MERGE", "UPDATE", "DELETE", "STREAMING UPDATE", "TRUNCATE", "COPY INTO"})
"""Operations that write an event for every row they change. Replacing a column, for one, writes none."""
PUT_EVENTS = ("insert", "update_postimage")
CHANGE, COMMIT = "_change_type", "_commit_version"


class SourceReplacedError(FeedUnavailableError):
    """The source is not the one that the last run read, though its path and its id are."""


@dataclass(frozen=True)
class Feed:
    """What changed; nothing where `events` is empty.

    mode: FEED or ARRIVALS.
    events: doc_id, text, perhaps `passthrough`, CHANGE and COMMIT of the rows that pass `source.where`.
    """

    mode: Mode
    events: DataFrame


def read_changes_since(spark: SparkSession, source: Source, version: str, committed_ms: int | None) -> Feed | None:
    """Return what changed in a Delta source after the version that an earlier run read.

    Args:
        version: of the source, as that run recorded it.
        committed_ms: when that version was committed, as that run recorded it; None if it did not.

    Returns:
        None where only a comparison of all rows can tell; the log says why.
    """
    if source.detail is None or not (version.isdigit() and source.version.isdigit()):
        return None
    try:
        return _read_changes(spark, source, int(version), committed_ms)
    except SourceReplacedError as reason:
        log.warning("%s: comparing all rows instead", reason)
    except FeedUnavailableError as reason:
        log.info("change feed unavailable (%s); comparing all rows instead", reason)
    except (PySparkException, Py4JJavaError) as error:
        log_unreadable(error)
    return None


def log_unreadable(error: Exception) -> None:
    """Log that Delta cannot read what it promised: an old file was vacuumed, or the feed was off for a while."""
    log.warning("change feed unavailable (%s while reading it); comparing all rows instead", type(error).__name__)


def _read_changes(spark: SparkSession, source: Source, after: int, recorded_ms: int | None) -> Feed:
    commits = _commits_since(spark, source, after, recorded_ms)
    changing = [commit for commit in commits if commit["operation"] not in NON_DATA_OPERATIONS]
    first, last = after + 1, int(source.version)
    put = {CHANGE: F.lit("insert"), COMMIT: F.lit(0).cast("long")}
    if not changing:
        return Feed(Mode.FEED, source.rows.limit(0).withColumns(put))
    if _has_change_feed(source):
        read = reader.read_change_feed(spark, source.settings, first, last)
        return Feed(Mode.FEED, reader.select_rows(read, source.settings, CHANGE, COMMIT))
    appended = appended_files.read_appended_rows(spark, source, first, last)
    return Feed(Mode.ARRIVALS, reader.select_rows(appended, source.settings).withColumns(put))


def _has_change_feed(source: Source) -> bool:
    properties = source.detail["properties"] if source.detail is not None else {}
    return str(properties.get("delta.enableChangeDataFeed")).lower() == "true"


def _commits_since(spark: SparkSession, source: Source, after: int, recorded_ms: int | None) -> list[Row]:
    """Return the commits after a version, up to the one that is read.

    Raises:
        SourceReplacedError: the version is not the one that was recorded.
        FeedUnavailableError: commits are missing, of an unknown kind, or too many.
    """
    until = int(source.version)
    if until - after > MOST_COMMITS:
        raise FeedUnavailableError(f"{until - after:,} commits since the last run, at most {MOST_COMMITS:,} are followed")
    if after > until:
        raise SourceReplacedError(f"the source is at version {until}, the last run read version {after}")
    commits = {commit["version"]: commit for commit in _history_from(spark, source, after)}
    if after not in commits:
        raise FeedUnavailableError(f"version {after} is not in the history of the source any more")
    if recorded_ms is None:
        raise FeedUnavailableError(f"the last run did not record when version {after} of the source was committed")
    if reader.committed_ms(commits[after]) != recorded_ms:
        raise SourceReplacedError(f"version {after} of the source was committed at another time than the last run recorded")
    missing = next((version for version in range(after + 1, until + 1) if version not in commits), None)
    if missing is not None:
        raise FeedUnavailableError(f"version {missing} is not in the history of the source")
    found = [commits[version] for version in range(after + 1, until + 1)]
    unknown = next((commit for commit in found if commit["operation"] not in ROW_OPERATIONS | NON_DATA_OPERATIONS), None)
    if unknown is not None:
        raise FeedUnavailableError(f"version {unknown['version']} of the source is a {unknown['operation']}")
    return found


def _history_from(spark: SparkSession, source: Source, oldest: int) -> list[Row]:
    """Return the commits from a version on, that version as the last of them if nothing prevents it.

    Delta moves the time of a commit behind that of the commit before it, if it lists that one, too. It does so wherever
    times are whole seconds, as those of S3's files are. The last one listed keeps the time that `reader.read` saw.
    """
    wanted = int(source.version) - oldest + 1
    commits = reader.read_history(spark, source.settings, wanted)
    if commits and commits[-1]["version"] > oldest:  # others came since the source was opened
        newer = commits[0]["version"] - int(source.version)
        commits = reader.read_history(spark, source.settings, wanted + newer)
    if commits and commits[-1]["version"] > oldest:
        newest = commits[0]["version"]
        commits = reader.read_history(spark, source.settings, newest - oldest + 1 + SLACK_COMMITS)
    return commits


def aggregate_events(feed: Feed) -> DataFrame:
    """Return one row for each id that the events name, as its latest commit left it.

    Returns:
        doc_id; row: text and perhaps `passthrough` in a struct, null where the latest commit put no row; rows_put: rows that
        the latest commit put; net_rows: rows put less rows cut, of all commits.
    """
    put = F.col(CHANGE).isin(*PUT_EVENTS)
    columns = [name for name in feed.events.columns if name not in ("doc_id", CHANGE, COMMIT)]
    row = F.when(put, F.struct(*columns))
    # By id only, which serves both groupings.
    events = feed.events.repartition("doc_id").withColumns({"put": put.cast("int"), "row": row})
    commits = events.groupBy("doc_id", COMMIT).agg(
        F.sum("put").alias("rows_put"),
        F.sum(2 * F.col("put") - 1).alias("net_rows"),
        F.first("row", ignorenulls=True).alias("row"),
    )
    return commits.groupBy("doc_id").agg(
        F.max_by("row", COMMIT).alias("row"),
        F.max_by("rows_put", COMMIT).alias("rows_put"),
        F.sum("net_rows").alias("net_rows"),
    )
