"""Read rows that were appended to a Delta table without a change feed, from the data files that its commits added.

A commit file has one action per line: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#actions
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.source import reader, source_columns
from entitymill.source.reader import Source

_ACTIONS = (
    "add struct<path: string, dataChange: boolean, deletionVector: struct<storageType: string>>, "
    "remove struct<dataChange: boolean>, metaData struct<id: string>"
)
_STRICT_OPTIONS = {"ignoreMissingFiles": "false", "ignoreCorruptFiles": "false"}
"""Options that make a missing or corrupt file an error, regardless of the session's properties."""
MAX_FILES = 100_000
"""Maximum number of added files to read; if there are more, scanning the table is faster than listing them on the driver."""
_WILDCARDS = frozenset("*?[]{}\\")
_PARTITION_TYPES = (T.StringType, T.IntegerType, T.LongType, T.DateType)
"""Types whose values are the same in directory names and in Delta's log; timestamps depend on the writer's time zone."""


class FeedUnavailableError(Exception):
    """Raised if the changes of a source cannot be read, and all rows must be compared; the message is the reason."""


def read_appended_rows(spark: SparkSession, source: Source, first: int, last: int) -> DataFrame:
    """Return the rows, with all columns, that the versions `first` to `last` (inclusive) appended to a Delta source.

    This runs a Spark job that reads the commit files.

    Raises:
        FeedUnavailableError: a version did more than append rows, or Spark might not read the files as Delta does.
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
    """Return the actions of the versions `first` to `last` that change rows, columns or properties.

    This runs a Spark job. At most MAX_FILES + 1 actions are returned.
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
    """Return the paths of the added data files, relative to the table's directory.

    Raises:
        FeedUnavailableError: an action does anything other than add a data file, or there are more than MAX_FILES actions.
    """
    if len(actions) > MAX_FILES:
        raise FeedUnavailableError(f"the source has no change feed, and more than {MAX_FILES:,} files were added")
    if any(action["alters"] for action in actions):
        raise FeedUnavailableError("the source has no change feed, and its columns or properties were altered")
    if any(action["removes"] or action["deletion_vector"] for action in actions):
        raise FeedUnavailableError("the source has no change feed, and rows were deleted or rewritten")
    if not all(action["path"] for action in actions):
        raise FeedUnavailableError("a commit of the source adds a file without a path")
    # A path that occurs twice is the same file.
    return sorted({unquote(action["path"]) for action in actions})


def _check_paths(paths: Iterable[str], partitions: list[str]) -> None:
    """Check that Spark would read exactly these files, with the same partition columns as Delta.

    Args:
        paths: path of the table, followed by the paths of files relative to the table.
        partitions: names of the table's partition columns.

    Raises:
        FeedUnavailableError: Spark might treat a path as a pattern, skip a file because of its name, or find partition
            columns that differ from Delta's.
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
            raise FeedUnavailableError("the source has no change feed, and a file with a hidden name was added")
        named = [unquote(part.partition("=")[0]) for part in directories if "=" in part]
        if named != partitions:
            raise FeedUnavailableError(
                "the source has no change feed, and the directories of a data file do not match the partition columns"
            )
