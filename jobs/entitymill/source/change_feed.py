"""Read what changed in a Delta source since an earlier version, from its change data feed or from added data files.

The data files are read only if the feed is off and every commit since that version only added rows. In Delta's log, each
line of a commit's file is an action, such as adding a data file: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.source import reader, source_columns
from entitymill.source.reader import Source
from entitymill.source.rows_against_output import Mode

log = logging.getLogger(__name__)
MAX_COMMITS = 50_000
"""Maximum number of commits since the last run; with more, all rows are compared. A commit takes 2 kB of driver memory."""
SLACK_COMMITS = 20
"""Number of extra commits to request in the last attempt to read the history, since other programs may keep committing."""
NON_DATA_OPERATIONS = frozenset({
    "OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "COMPUTE STATS", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES",
    "ADD CONSTRAINT", "DROP CONSTRAINT",
})  # fmt: skip
"""Delta operations (names in DESCRIBE HISTORY) that change no rows."""
ROW_OPERATIONS = frozenset({"WRITE", "MERGE", "UPDATE", "DELETE", "STREAMING UPDATE", "TRUNCATE", "COPY INTO"})
"""Delta operations that write an event to the change feed for every row that they change. All operations that are neither
here nor in NON_DATA_OPERATIONS, such as replacing a column, may change rows without an event."""
WRITE_EVENTS = ("insert", "update_postimage")
"""Types of events that contain a row that the commit wrote; all others contain a row that it deleted or replaced."""
CHANGE, COMMIT = "_change_type", "_commit_version"
"""Columns of Delta's change feed: the type of the event, and the version of the commit."""
_ACTIONS = (
    "add struct<path: string, dataChange: boolean, deletionVector: struct<storageType: string>>, "
    "remove struct<dataChange: boolean>, metaData struct<id: string>"
)
_STRICT_OPTIONS = {"ignoreMissingFiles": "false", "ignoreCorruptFiles": "false"}
"""Options that make a missing or corrupt file an error, regardless of the session's properties."""
MAX_FILES = 100_000
"""Maximum number of added files to read. With more, reading all rows is faster than listing the files on the driver."""
_WILDCARDS = frozenset("*?[]{}\\")
_PARTITION_TYPES = (T.StringType, T.IntegerType, T.LongType, T.DateType)
"""Partition columns of these types can be read from names of directories; timestamps would depend on a time zone."""


class FeedUnavailableError(Exception):
    """Raised if changes of the source cannot be read, so a run must compare all rows of the source; the message says why."""


class SourceReplacedError(FeedUnavailableError):
    """Raised if the source has the path and table id that the last run recorded, but a different commit history.

    For example, somebody restored a backup, so that the version that the last run read is gone or has another commit time.
    """


@dataclass(frozen=True)
class Feed:
    """Change events (inserts, updates and deletes of rows) of the source since the last run.

    mode: Mode.FEED (read from the change feed) or Mode.ARRIVALS (read from added data files).
    events: DataFrame with one row per change event whose row meets `source.where`. An update is two events: the row
        before the update, and the row after it. The columns are doc_id, text, `passthrough` (only if there are passthrough
        columns), CHANGE (type of the event) and COMMIT (version of the commit; always 0 for added data files).
    """

    mode: Mode
    events: DataFrame


def read_changes_since(spark: SparkSession, source: Source, version: str, committed_ms: int | None) -> Feed | None:
    """Return what changed in a Delta source after the version that the last run read.

    If the changes cannot be read, log the reason and return None. The caller must then compare all rows of the source.

    Args:
        source: the source, opened at the version that this run reads.
        version: version of the source that the last run read.
        committed_ms: commit time that the last run recorded for `version`, in ms since 1970 UTC; None if it recorded none.
    """
    if source.detail is None or not (version.isdigit() and source.version.isdigit()):
        log.info("comparing all rows: the source is not a Delta table, or was not one when the last run read it")
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
    """Log that reading the change feed failed with `error`, so that the caller compares all rows instead.

    For example, a VACUUM may have deleted files of the feed. The message contains only the type of the error.
    """
    log.warning("change feed unavailable (%s while reading it); comparing all rows instead", type(error).__name__)


def _read_changes(spark: SparkSession, source: Source, after: int, recorded_ms: int | None) -> Feed:
    """Return what changed after version `after`; raise FeedUnavailableError or Spark's error if the changes cannot be read.

    If no commit changed rows, the result has no events. If the change feed is off, return the rows of added data files.
    `recorded_ms` is the commit time that the last run recorded for `after`, in ms since 1970 UTC; None if it recorded none.
    """
    commits = _read_commits_since(spark, source, after, recorded_ms)
    changing = [commit for commit in commits if commit["operation"] not in NON_DATA_OPERATIONS]
    first, last = after + 1, int(source.version)
    as_insert = {CHANGE: F.lit("insert"), COMMIT: F.lit(0).cast("long")}
    if not changing:
        return Feed(Mode.FEED, source.rows.limit(0).withColumns(as_insert))
    if _has_change_feed(source):
        read = reader.read_change_feed(spark, source.settings, first, last)
        return Feed(Mode.FEED, reader.select_rows(read, source.settings, CHANGE, COMMIT))
    appended = read_appended_rows(spark, source, first, last)
    return Feed(Mode.ARRIVALS, reader.select_rows(appended, source.settings).withColumns(as_insert))


def _has_change_feed(source: Source) -> bool:
    """Return whether the source is a Delta table whose change feed is on."""
    properties = source.detail["properties"] if source.detail is not None else {}
    return str(properties.get("delta.enableChangeDataFeed")).lower() == "true"


def _read_commits_since(spark: SparkSession, source: Source, after: int, recorded_ms: int | None) -> list[Row]:
    """Return the commits after version `after`, up to the version that this run reads, oldest first.

    `recorded_ms` is the commit time of `after` that the last run recorded, in ms since 1970 UTC. Raise FeedUnavailableError
    if that time is None, a commit is not in the history or may lack change events, or there are more than MAX_COMMITS. Raise
    SourceReplacedError if `after` is newer than the version that this run reads, or has another commit time than recorded.
    """
    until = int(source.version)
    if until - after > MAX_COMMITS:
        raise FeedUnavailableError(
            f"the source has {until - after:,} commits since the last run, and a run reads at most {MAX_COMMITS:,}"
        )
    if after > until:
        raise SourceReplacedError(
            f"the source is at version {until}, which is older than version {after}, which the last run read"
        )
    commits = {commit["version"]: commit for commit in _read_history_since(spark, source, after)}
    if after not in commits:
        raise FeedUnavailableError(f"version {after} is no longer in the history of the source")
    if recorded_ms is None:
        raise FeedUnavailableError(f"the last run did not record when version {after} of the source was committed")
    if reader.commit_time_ms(commits[after]) != recorded_ms:
        raise SourceReplacedError(f"the commit time of source version {after} is not the one that the last run recorded")
    missing = next((version for version in range(after + 1, until + 1) if version not in commits), None)
    if missing is not None:
        raise FeedUnavailableError(f"version {missing} is not in the history of the source")
    since = [commits[version] for version in range(after + 1, until + 1)]
    unknown = next((commit for commit in since if commit["operation"] not in ROW_OPERATIONS | NON_DATA_OPERATIONS), None)
    if unknown is not None:
        version, operation = unknown["version"], unknown["operation"]
        raise FeedUnavailableError(
            f"version {version} of the source was written by the operation {operation}, which may write no change events"
        )
    return since


def _read_history_since(spark: SparkSession, source: Source, oldest: int) -> list[Row]:
    """Return the commits of version `oldest` and later, newest first.

    The list lacks `oldest` if the history no longer has it. If other programs commit while the history is read, the list may
    end with a few commits that are older than `oldest`.
    """
    # Version `oldest` should come last: only the last commit's time is reliable. If two commits in a result of DESCRIBE
    # HISTORY have the same time, Delta changes the newer one's time. Equal times are frequent on S3, which stores seconds.
    number = int(source.version) - oldest + 1
    commits = reader.read_history(spark, source.settings, number)
    if commits and commits[-1]["version"] > oldest:  # commits were added after the source was opened
        newer = commits[0]["version"] - int(source.version)
        commits = reader.read_history(spark, source.settings, number + newer)
    if commits and commits[-1]["version"] > oldest:
        newest = commits[0]["version"]
        commits = reader.read_history(spark, source.settings, newest - oldest + 1 + SLACK_COMMITS)
    return commits


def aggregate_events(feed: Feed) -> DataFrame:
    """Return one row per id in the change events, which summarizes all events of the id.

    The latest commit of an id is the last one with events of this id. With Mode.ARRIVALS, the rows of all added data files
    count as one commit. The columns are doc_id, and these:

    - row: one of the rows with this id that the latest commit inserted or updated, as a struct of text and, if present,
      `passthrough`; null if this commit only deleted rows.
    - rows_written: number of rows with this id that the latest commit inserted or updated.
    - net_rows: number of rows with this id that all commits added minus removed; an update removes one row and adds one.
    """
    written = F.col(CHANGE).isin(*WRITE_EVENTS)
    columns = [name for name in feed.events.columns if name not in ("doc_id", CHANGE, COMMIT)]
    row = F.when(written, F.struct(*columns))
    # Partition only by id, so that both groupings below need no further shuffle.
    events = feed.events.repartition("doc_id").withColumns({"written": written.cast("int"), "row": row})
    commits = events.groupBy("doc_id", COMMIT).agg(
        F.sum("written").alias("rows_written"),
        F.sum(2 * F.col("written") - 1).alias("net_rows"),
        F.first("row", ignorenulls=True).alias("row"),
    )
    return commits.groupBy("doc_id").agg(
        F.max_by("row", COMMIT).alias("row"),
        F.max_by("rows_written", COMMIT).alias("rows_written"),
        F.sum("net_rows").alias("net_rows"),
    )


def read_appended_rows(spark: SparkSession, source: Source, first: int, last: int) -> DataFrame:
    """Return the rows, with all columns, that the versions `first` to `last` (inclusive) appended to a Delta source.

    This runs a Spark job that reads the commit files.

    Raises:
        FeedUnavailableError: a version did anything but add rows, more than MAX_FILES data files were added, or Spark might
            read the files differently from Delta.
        PySparkException, Py4JJavaError: a commit or a data file is missing.
    """
    detail = source.detail
    if detail is None:
        raise FeedUnavailableError("the source is not a Delta table")
    if detail["properties"].get("delta.columnMapping.mode", "none").lower() != "none":
        raise FeedUnavailableError("the source has no change feed, and column mapping is on")
    try:
        table = reader.read_version(spark, source.settings, source.version)
        schema = table.schema
    except ValueError as error:
        raise FeedUnavailableError("the source has a column of a type that PySpark does not know") from error
    root = str(detail["location"]).rstrip("/")
    partitions = list(detail["partitionColumns"])
    if any(not isinstance(schema[name].dataType, _PARTITION_TYPES) for name in partitions):
        raise FeedUnavailableError("the source is partitioned by a column that is not a string, an integer or a date")
    paths = _select_added_paths(_read_actions(spark, root, first, last))
    _check_paths([root, *paths], partitions)
    if not paths:
        return table.limit(0)
    plain = T.StructType([source_columns.strip_metadata(field) for field in schema])
    files = spark.read.schema(plain).option("basePath", root).options(**_STRICT_OPTIONS)
    return files.parquet(*(f"{root}/{path}" for path in paths))


def _read_actions(spark: SparkSession, root: str, first: int, last: int) -> list[Row]:
    """Return the log entries by which versions `first` to `last` change rows, columns or properties; at most MAX_FILES + 1.

    `root` is the table's URI. A Row has the added file's `path` (or null) and flags: adds, removes (a data file), alters
    (columns or properties), deletion_vector (added file has deleted rows), data_change (false if rows only moved).
    """
    commits = [f"{root}/_delta_log/{version:020}.json" for version in range(first, last + 1)]
    actions = spark.read.schema(_ACTIONS).option("mode", "FAILFAST").options(**_STRICT_OPTIONS).json(commits)
    data_change = F.coalesce("add.dataChange", "remove.dataChange", F.lit(True))
    described = actions.select(
        F.col("add.path").alias("path"),
        F.col("add").isNotNull().alias("adds"),
        F.col("remove").isNotNull().alias("removes"),
        F.col("metaData").isNotNull().alias("alters"),
        F.col("add.deletionVector").isNotNull().alias("deletion_vector"),
        data_change.alias("data_change"),
    )
    changes_rows = (F.col("adds") | F.col("removes")) & F.col("data_change")
    return described.where(changes_rows | F.col("deletion_vector") | F.col("alters")).limit(MAX_FILES + 1).collect()


def _select_added_paths(actions: list[Row]) -> list[str]:
    """Return the paths, decoded and sorted, of data files that the entries `actions` add, relative to the table's directory.

    Raise FeedUnavailableError if an entry does anything but add a data file, or there are more than MAX_FILES entries.
    """
    if len(actions) > MAX_FILES:
        raise FeedUnavailableError(f"the source has no change feed, and more than {MAX_FILES:,} files were added")
    if any(action["alters"] for action in actions):
        raise FeedUnavailableError("the source has no change feed, and its columns or properties were altered")
    if any(action["removes"] or action["deletion_vector"] for action in actions):
        raise FeedUnavailableError("the source has no change feed, and rows were deleted or rewritten")
    if not all(action["path"] for action in actions):
        raise FeedUnavailableError("a commit of the source adds a data file, but its log entry lacks the path")
    # A path that occurs twice is the same file.
    return sorted({unquote(action["path"]) for action in actions})


def _check_paths(paths: Iterable[str], partitions: list[str]) -> None:
    """Raise FeedUnavailableError if Spark might find other files or other partition columns at these paths than Delta does.

    `paths`: path of the table, then paths of its data files relative to it. `partitions`: names of its partition columns.
    """
    root, *files = paths
    if any(not _WILDCARDS.isdisjoint(path) for path in (root, *files)):
        raise FeedUnavailableError(
            "the source has no change feed, and a path of its data files contains a wildcard character"
        )
    for path in files:
        *directories, name = path.split("/")
        if ":" in path.split("/", maxsplit=1)[0] or path.startswith("/"):
            raise FeedUnavailableError("the source has no change feed, and data files outside its directory were added")
        if name.startswith(("_", ".")) or name.endswith("._COPYING_"):
            raise FeedUnavailableError("the source has no change feed, and a data file was added whose name Spark ignores")
        named = [unquote(part.partition("=")[0]) for part in directories if "=" in part]
        if named != partitions:
            raise FeedUnavailableError(
                "the source has no change feed, and the directories of a data file do not match the partition columns"
            )
