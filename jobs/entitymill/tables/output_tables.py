"""Locate, describe, read and change the tables of one output, which are in one directory or one catalog schema."""

from __future__ import annotations

import contextlib
from functools import cached_property

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.errors import StorageError
from entitymill.settings.sections import OutputSettings
from entitymill.spark import session, spark_connect, storage
from entitymill.spark.sql_text import quote_name, quote_part
from entitymill.tables import half_made_tables

NAMES = ("entities", "documents", "rejects", "runs", "annotations", "erasures")
PUBLISHED_TABLES = ("annotations", "entities", "documents")
"""Tables with the results of documents, in the order in which a unit of work (documents published together) is committed."""
DOCUMENT_TABLES = ("entities", "documents", "annotations", "rejects")
TEMPORARY_PREFIX = "entitymill_"
"""Prefix of the names of temporary tables in a catalog; the prefix outside a catalog is an underscore."""
DELTA_ENTITIES = "entities_delta"
"""Directory of the Delta table `entities` if `output.format` is parquet; the directory `entities` then has the export."""
_OBJECT_STORES = ("s3:", "s3a:", "s3n:", "gs:", "oss:", "obs:", "cosn:", "wasb:", "wasbs:", "dbfs:")
PROPERTY = "entitymill.schema"
"""Table property that contains the version of the table's schema."""
SHUFFLED_BYTES_PER_FILE_BYTE = 3
"""Approximate ratio of the size of rows in a shuffle to their size in Parquet files."""
WRITE_CONFS = {
    # Otherwise replaceWhere, which `replace` uses for paths, rejects new rows that do not meet the condition.
    "spark.databricks.delta.replaceWhere.constraintCheck.enabled": "false",
    # The default, 32 characters of each string, is too short to distinguish ids with a common prefix, such as URLs.
    "spark.databricks.io.skipping.stringPrefixLength": "256",
    # OPTIMIZE rewrites a file for its deleted rows only if they are half of all. By default, a few rows would be enough.
    "spark.databricks.delta.optimize.maxDeletedRowsRatio": "0.5",
}
"""Spark properties of the session that writes the tables."""


class Tables:
    """The Delta tables of one output; with `output.format: parquet`, `entities` also has a Parquet export."""

    def __init__(self, spark: SparkSession, settings: OutputSettings) -> None:
        self.spark = spark
        self.settings = settings
        self._details: dict[str, Row] = {}

    @cached_property
    def root(self) -> str | None:
        """The absolute URI of the output's directory; None if the tables are in a catalog."""
        return None if self.settings.path is None else storage.qualify(self.spark, self.settings.path)

    @property
    def exported(self) -> bool:
        """Whether `entities` is exported as plain Parquet."""
        return self.settings.format == "parquet"

    @property
    def output(self) -> str:
        """The output's path or catalog schema, as in the settings."""
        return str(self.settings.path or self.settings.schema_)

    def address(self, name: str) -> str:
        """Return a table's URI, or its unquoted name in a catalog.

        If `name` is not in NAMES, it must be the name of a temporary table, without the prefix of temporary tables. This
        method adds the prefix. With `output.format: parquet`, the URI of `entities` is that of DELTA_ENTITIES.
        """
        temporary = name not in NAMES
        if self.root is not None:
            if name == "entities" and self.exported:
                name = DELTA_ENTITIES
            # Spark ignores files and directories whose names begin with an underscore.
            return f"{self.root}/{'_' * temporary}{name}"
        return f"{self.settings.schema_}.{TEMPORARY_PREFIX * temporary}{name}"

    def catalog_name(self, name: str) -> str:
        """Return the full name of a table in a catalog, quoted for SQL."""
        return quote_name(self.spark, self.address(name))

    def sql_name(self, name: str) -> str:
        """Return a table's identifier for SQL statements: delta.`URI`, or the quoted name in a catalog."""
        if self.root is not None:
            return "delta." + quote_part(self.address(name))
        return self.catalog_name(name)

    def location(self, name: str) -> str:
        """Return the URI of a table's directory; in a catalog, the table's name if DESCRIBE DETAIL fails."""
        detail = None if self.root is not None else self.detail(name)
        return self.address(name) if detail is None else str(detail["location"])

    def read(self, name: str) -> DataFrame:
        """Return a DataFrame of a table; the DataFrame's rows may change if the table changes between two uses.

        Use `read_latest` where this would do harm.
        """
        if self.root is None:
            return self.spark.read.table(self.catalog_name(name))
        return self.spark.read.format("delta").load(self.address(name))

    def read_latest(self, name: str, version: int | None = None) -> DataFrame:
        """Return a DataFrame of a table's current version; later commits do not change the DataFrame's rows.

        In contrast, a DataFrame from `read` may contain rows that were cached before another program changed the table. On
        Spark Connect, a DataFrame from `read` has the newest rows at each use. `version` is the number of the table's
        current version, if the caller knows it; None to look it up.
        """
        reader = self.spark.read.option("versionAsOf", self.version(name) if version is None else version)
        return (
            reader.table(self.catalog_name(name)) if self.root is None else reader.format("delta").load(self.address(name))
        )

    def version(self, name: str) -> int:
        """Return the number of a table's current version: that of the newest commit file in the Delta log's directory.

        On Spark Connect, and if the directory cannot be listed or has no commit files, a Spark job reads the number from
        DESCRIBE HISTORY.
        """
        if not spark_connect.is_remote(self.spark):
            with contextlib.suppress(OSError, StorageError):
                names = storage.list_names(self.spark, f"{self.location(name)}/_delta_log/{'[0-9]' * 20}.json")
                if names:
                    return int(names[-1].partition(".")[0])
        return int(self.history(name, 1).collect()[0]["version"])

    def detail(self, name: str) -> Row | None:
        """Return the result of DESCRIBE DETAIL for a table; None if there is no such Delta table or the query fails.

        A row is cached until `forget` is called; None is not cached. Raise StorageError if the storage cannot be reached.
        """
        if name not in self._details:
            try:
                with storage.convert_spark_errors():
                    row = self.spark.sql(f"DESCRIBE DETAIL {self.sql_name(name)}").collect()[0]
            except (PySparkException, Py4JJavaError):
                return None
            if row["format"] != "delta":
                return None
            self._details[name] = row
        return self._details[name]

    def exists(self, name: str) -> bool:
        """Return whether a table exists; if a result of `detail` for the table is cached, return True without checking.

        Outside a catalog, any directory at the table's path counts as a table, except a half-made one (`half_made_tables`).
        """
        if name in self._details:
            return True
        if self.root is not None:
            return storage.exists(self.spark, self.address(name)) and not half_made_tables.is_half_made(
                self.spark, self.address(name)
            )
        return self.spark.catalog.tableExists(self.catalog_name(name))

    def is_current(self, name: str) -> bool:
        """Return whether a Delta table exists and has this program's schema version.

        The answer comes from `detail`, whose cached result may be outdated.
        """
        return self.cached_properties(name).get(PROPERTY) == schemas.VERSION

    def is_empty(self, name: str) -> bool:
        """Return whether a Delta table, which must exist, is empty.

        A table is empty if it has no data files, according to `detail`, whose cached result may be outdated. If the query of
        `detail` fails, the table is read instead, and is empty if it has no rows.
        """
        found = self.detail(name)
        if found is None:  # perhaps because of a temporary error: a run must not mistake a full table for an empty one
            return not self.read(name).take(1)
        return bool(found["numFiles"] == 0)

    def forget(self, name: str | None = None) -> None:
        """Clear the cached result of `detail` for one table (None: for all tables). Call this after the table changed."""
        if name is None:
            self._details.clear()
        else:
            self._details.pop(name, None)

    def is_complete(self) -> bool:
        """Return whether the tables `documents` and `entities` both exist."""
        return self.exists("documents") and self.exists("entities")

    def on_object_store(self) -> bool:
        """Return whether the output is on an object store (no atomic rename of directories); always False in a catalog."""
        return self.address("entities").startswith(_OBJECT_STORES)

    def cached_properties(self, name: str) -> dict[str, str]:
        """Return a Delta table's properties as in the result of `detail`, which may be outdated; an empty dict for None."""
        found = self.detail(name)
        return {} if found is None else dict(found["properties"])

    def has_mapped_columns(self, name: str) -> bool:
        """Return whether a Delta table has column mapping: its data files name the columns differently than the table."""
        return self.cached_properties(name).get("delta.columnMapping.mode", "none") != "none"

    def properties(self, name: str) -> dict[str, str]:
        """Return the current properties of a Delta table, without the cache; empty if there is no such table."""
        self.forget(name)
        return self.cached_properties(name)

    def append(self, frame: DataFrame, name: str, options: dict[str, str] | None = None) -> None:
        """Append rows to a table in one commit, and add columns that the table lacks; `options` are for Delta's writer."""
        chosen = {"mergeSchema": "true", **(options or {})}
        if self.root is not None:
            frame.write.format("delta").mode("append").options(**chosen).save(self.address(name))
        else:
            frame.writeTo(self.catalog_name(name)).options(**chosen).append()

    def replace(
        self, frame: DataFrame, name: str, condition: str | None = None, options: dict[str, str] | None = None
    ) -> None:
        """Replace the rows of a table that meet an SQL condition (None: all rows) by the rows of `frame`, in one commit.

        The new rows need not meet the condition. Columns that the table lacks are added; columns that `frame` lacks are null
        in the new rows. Constraints and table properties do not change. The session must have the properties WRITE_CONFS.
        """
        chosen = {"mergeSchema": "true", **(options or {})}
        if self.root is not None:
            if condition is not None:
                chosen["replaceWhere"] = condition
            frame.write.format("delta").mode("overwrite").options(**chosen).save(self.address(name))
        else:
            # saveAsTable would replace the table itself, including its constraints and properties.
            frame.writeTo(self.catalog_name(name)).options(**chosen).overwrite(F.expr(condition or "true"))

    def delete(self, name: str, condition: str = "true") -> None:
        """Delete the rows of a table that meet an SQL condition, in one commit."""
        self.spark.sql(f"DELETE FROM {self.sql_name(name)} WHERE {condition}")

    def history(self, name: str, latest: int | None = None) -> DataFrame:
        """Return the rows of DESCRIBE HISTORY for the `latest` newest commits of a table (None: for all commits)."""
        limit = "" if latest is None else f" LIMIT {latest}"
        return self.spark.sql(f"DESCRIBE HISTORY {self.sql_name(name)}{limit}")

    def drop(self, name: str) -> None:
        """Remove a temporary table (a table that is not in NAMES), if it exists."""
        self._details.pop(name, None)
        if self.root is not None:
            storage.remove(self.spark, self.address(name))
        else:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.catalog_name(name)}")

    def list_temporary(self, prefix: str) -> list[str]:
        """Return those names of temporary tables that begin with `prefix`.

        The returned names and `prefix` do not contain the underscore or TEMPORARY_PREFIX with which the full names begin.
        """
        if self.root is not None:
            return [name.removeprefix("_") for name in storage.list_names(self.spark, f"{self.root}/_{prefix}*")]
        schema = quote_name(self.spark, self.settings.schema_ or "")
        rows = self.spark.sql(f"SHOW TABLES IN {schema}").select("tableName").collect()
        names = (row["tableName"] for row in rows if row["tableName"].startswith(TEMPORARY_PREFIX + prefix))
        return sorted(name.removeprefix(TEMPORARY_PREFIX) for name in names)

    def fit_file_size(self, frame: DataFrame, *, by: str | None = None) -> DataFrame:
        """Return the rows repartitioned for files of about `output.target_file_mb`, and sorted by doc_id in each partition.

        If Spark's adaptive execution is off, as in runs on small sources, all rows go into one partition.

        Args:
            by: column by which Spark repartitions, so that each file has few different values of the column; None to
                repartition without regard to values.
        """
        # Adaptive execution merges small partitions and splits large ones, but each shuffle becomes a Spark job.
        if str(self.spark.conf.get(session.ADAPTIVE, "true")).lower() != "true":
            return frame.coalesce(1).sortWithinPartitions("doc_id")
        hint = f"REBALANCE({by})" if by else "REBALANCE"
        query = f"SELECT /*+ {hint} */ * FROM {{frame}}"
        return self.spark.sql(query, frame=frame).sortWithinPartitions("doc_id")


def build_write_confs(settings: OutputSettings) -> dict[str, str]:
    """Return the Spark properties for writing tables: WRITE_CONFS, and the partition size that `fit_file_size` needs."""
    megabytes = settings.target_file_mb * SHUFFLED_BYTES_PER_FILE_BYTE
    return {**WRITE_CONFS, "spark.sql.adaptive.advisoryPartitionSizeInBytes": f"{megabytes}m"}
