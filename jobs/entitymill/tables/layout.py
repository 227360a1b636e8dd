"""The tables of one output: where they are, what Delta says of them, how they are read and changed."""

from __future__ import annotations

from functools import cached_property

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.platform import session, spark_connect, storage
from entitymill.platform.sql_text import literal, quoted_in, quoted_part
from entitymill.settings.sections import OutputSettings
from entitymill.tables import half_made_tables

NAMES = ("entities", "documents", "rejects", "runs", "annotations", "erasures")
OF_UNITS = ("annotations", "entities", "documents")
"""What grows with the documents, in the order in which the tables of a unit change."""
HIDDEN = "entitymill_"
"""Before the name of a table, in a catalog schema, that is nobody's but this program's."""
STAGED = "staged_"
"""Before the name of a table that waits to be swapped in."""
_OBJECT_STORES = ("s3:", "s3a:", "s3n:", "gs:", "oss:", "cosn:")
PROPERTY = "entitymill.schema"
MIN_FILE, MAX_FILE = "spark.databricks.delta.optimize.minFileSize", "spark.databricks.delta.optimize.maxFileSize"
LABELS = 4
"""About as many partitions `entities` has."""
LONGEST_MAKING_SECONDS = 60
"""What making a table in a catalog takes another run at most, between its directory and its first commit."""
MOST_FILES = 200
"""Of a table whose files are small on the average: a run that finds more joins the small ones at its end."""
SMALL_SHARE, SMALL_PART = 16, 8
"""Small is a file of less than these parts of the target and of its partition: so a row is written again a few times, and
not every time; and what a unit of a full run wrote stays as it is, in order of doc_id, which joining files does not keep."""
SHUFFLED_BYTES_PER_FILE_BYTE = 3
"""Rows in a shuffle are about this much larger than in Parquet."""
CONFS = {
    # On the path of a writer, whose rows must all meet the condition otherwise.
    "spark.databricks.delta.replaceWhere.constraintCheck.enabled": "false",
    # `dynamic`, which some clusters have as their default, would leave every label that is not found any more.
    "spark.sql.sources.partitionOverwriteMode": "static",
    # Of ids that begin alike, as URLs do, 32 characters tell Delta nothing.
    "spark.databricks.io.skipping.stringPrefixLength": "256",
    # Joining files, leave one alone until half of its rows are gone: else a few random changes a night rewrite the table.
    "spark.databricks.delta.optimize.maxDeletedRowsRatio": "0.5",
}
"""What the tables are written with; given back when a run ends."""


class Tables:
    """The tables of one output, or those that wait to be swapped in for them."""

    def __init__(self, spark: SparkSession, settings: OutputSettings, *, staged: bool = False) -> None:
        """Name the place; nothing is read.

        Args:
            staged: whether these are the waiting ones; always Delta.
        """
        self.spark = spark
        self.settings = settings
        self.staged = staged
        self._found: dict[str, Row] = {}

    @cached_property
    def root(self) -> str | None:
        """The output's directory, in full; none in a catalog."""
        return None if self.settings.path is None else storage.qualify(self.spark, self.settings.path)

    @property
    def parquet(self) -> bool:
        """Whether `entities` is plain Parquet here."""
        return self.settings.format == "parquet" and not self.staged

    @property
    def place(self) -> str:
        """The output as its user knows it."""
        return str(self.settings.path or self.settings.schema_)

    def is_delta(self, name: str) -> bool:
        """Whether a table is one of Delta's."""
        return name != "entities" or not self.parquet

    def address(self, name: str) -> str:
        """Where a table is: a path, or a catalog name."""
        prefix = STAGED if self.staged else ""
        if self.root is not None:
            # A leading underscore: no reader of the directory takes it for data.
            return f"{self.root}/{'_' * self._hidden(name)}{prefix}{name}"
        return f"{self.settings.schema_}.{HIDDEN * self._hidden(name)}{prefix}{name}"

    def _hidden(self, name: str) -> bool:
        return self.staged or name not in NAMES

    def named(self, name: str) -> str:
        """A table of a catalog as SQL names it, quoted."""
        return quoted_in(self.spark, self.address(name))

    def reference(self, name: str) -> str:
        """A Delta table as SQL names it, quoted."""
        if self.root is not None:
            return "delta." + quoted_part(self.address(name))
        return self.named(name)

    def read(self, name: str) -> DataFrame:
        """One of the tables."""
        if self.root is None:
            return self.spark.read.table(self.named(name))
        if self.is_delta(name):
            return self.spark.read.format("delta").load(self.address(name))
        if self._blank(name):
            # No mention at all, so no file, and no schema to be found in one.
            return self.spark.createDataFrame([], schemas.entities([]))
        return self.spark.read.parquet(self.address(name))

    def read_as_it_is(self, name: str) -> DataFrame:
        """A Delta table, of which every look finds what it holds now: elsewhere a plan does, and Connect's is made anew."""
        return self.pinned(name) if spark_connect.remote(self.spark) else self.read(name)

    def pinned(self, name: str) -> DataFrame:
        """One of the tables, as it is now, whatever becomes of it; of Delta's."""
        if not self.is_delta(name):
            return self.read(name)
        reader = self.spark.read.option("versionAsOf", self.history(name, 1).collect()[0]["version"])
        return reader.table(self.named(name)) if self.root is None else reader.format("delta").load(self.address(name))

    def detail(self, name: str) -> Row | None:
        """What DESCRIBE DETAIL says of a Delta table, asked for once: its properties, where its files are; none: no table.

        Raises:
            StorageError: the storage does not answer.
        """
        if name not in self._found:
            try:
                with storage.storage_told_apart():
                    row = self.spark.sql(f"DESCRIBE DETAIL {self.reference(name)}").collect()[0]
            except (PySparkException, Py4JJavaError):
                return None
            if row["format"] != "delta":
                return None
            self._found[name] = row
        return self._found[name]

    def exists(self, name: str) -> bool:
        """Whether anything is where a table would be."""
        if name in self._found:
            return True
        if self.root is not None:
            return storage.exists(self.spark, self.address(name)) and not half_made_tables.half_made(
                self.spark, self.address(name)
            )
        return self.spark.catalog.tableExists(self.named(name))

    def _blank(self, name: str) -> bool:
        """Whether a directory holds nothing but what Spark leaves beside data."""
        names = (file.rpartition("/")[2] for file, *_ in storage.files(self.spark, self.address(name)))
        return all(file.startswith(("_", ".")) for file in names)

    def current(self, name: str) -> bool:
        """Whether a table is there, as this version makes it."""
        return self.known_properties(name).get(PROPERTY) == schemas.VERSION

    def empty(self, name: str) -> bool:
        """Whether a Delta table had no file when it was looked at: then it need not be read."""
        found = self.detail(name)
        return found is None or found["numFiles"] == 0

    def forget(self, name: str | None = None) -> None:
        """Look again, at one table or all: another run came between, or this one changed what Delta says of it."""
        if name is None:
            self._found.clear()
        else:
            self._found.pop(name, None)

    def complete(self) -> bool:
        """Whether `documents` and what it tells of are both there."""
        return self.exists("documents") and self.exists("entities")

    def on_object_store(self) -> bool:
        """Whether the storage is one that cannot rename a directory at once."""
        return self.address("entities").startswith(_OBJECT_STORES)

    def known_properties(self, name: str) -> dict[str, str]:
        """The properties of a Delta table as they were when it was looked at."""
        found = self.detail(name)
        return {} if found is None else dict(found["properties"])

    def properties(self, name: str) -> dict[str, str]:
        """The properties of a Delta table as they are now; none where there is no such table."""
        self.forget(name)
        return self.known_properties(name)

    def append(self, frame: DataFrame, name: str, options: dict[str, str] | None = None) -> None:
        """Add rows in one commit; new columns are added.

        Args:
            frame: the rows.
            name: of the table.
            options: of Delta's writer.
        """
        chosen = {"mergeSchema": "true", **(options or {})}
        if self.root is not None:
            frame.write.format("delta").mode("append").options(**chosen).save(self.address(name))
        else:
            frame.writeTo(self.named(name)).options(**chosen).append()

    def replace(
        self, frame: DataFrame, name: str, condition: str | None = None, options: dict[str, str] | None = None
    ) -> None:
        """Delete the rows that meet an SQL condition, or all, and add others, in one commit.

        The others need not meet the condition. New columns are added, ones no longer written stay, empty; NOT NULL and
        properties are kept. CONFS have to be in force.
        """
        chosen = {"mergeSchema": "true", **(options or {})}
        if self.root is not None:
            if condition is not None:
                chosen["replaceWhere"] = condition
            frame.write.format("delta").mode("overwrite").options(**chosen).save(self.address(name))
        else:
            # saveAsTable would replace the table itself, its constraints and properties with it.
            frame.writeTo(self.named(name)).options(**chosen).overwrite(F.expr(condition or "true"))

    def exchange(self, name: str, out: DataFrame, rows: DataFrame, between: tuple[str, str] | None = None) -> None:
        """Take all rows of some documents out and put others in, in one commit.

        Args:
            name: of the table.
            out: doc_id of the documents whose rows go, each once.
            rows: that come.
            between: smallest and greatest of these ids: Delta skips the files that cannot hold one.
        """
        source = rows.withColumn("_put", F.lit(True)).unionByName(
            out.select("doc_id", F.lit(False).alias("_put")), allowMissingColumns=True
        )
        inside = f"AND t.doc_id BETWEEN {literal(between[0])} AND {literal(between[1])}" if between else ""
        names = ", ".join(map(quoted_part, rows.columns))
        values = ", ".join(f"s.{quoted_part(column)}" for column in rows.columns)
        self.spark.sql(
            f"MERGE INTO {self.reference(name)} AS t USING {{source}} AS s "
            f"ON t.doc_id = s.doc_id AND NOT s._put {inside} "
            f"WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND s._put THEN INSERT ({names}) VALUES ({values})",
            source=source,
        )

    def delete(self, name: str, condition: str = "true") -> None:
        """Delete rows, in one commit."""
        self.spark.sql(f"DELETE FROM {self.reference(name)} WHERE {condition}")

    def restore(self, name: str, version: int) -> None:
        """Make the rows those of an older version, in one commit that copies nothing."""
        self.spark.sql(f"RESTORE TABLE {self.reference(name)} TO VERSION AS OF {version}")

    def compact(self) -> None:
        """Join the small files of tables that had too many of them when they were looked at."""
        target = self.settings.target_file_mb * 1024 * 1024
        for name in NAMES:
            found = self.detail(name) if self.is_delta(name) else None
            if found is None or found["numFiles"] <= MOST_FILES:
                continue
            partitions = LABELS if name == "entities" else 1
            small = min(target // SMALL_SHARE, found["sizeInBytes"] // partitions // SMALL_PART)
            if found["sizeInBytes"] > found["numFiles"] * small:
                continue
            with session.configured(self.spark, {MIN_FILE: str(small), MAX_FILE: str(target)}):
                self.spark.sql(f"OPTIMIZE {self.reference(name)}")
            self._found.pop(name)

    def history(self, name: str, latest: int | None = None) -> DataFrame:
        """Delta's record of a table's commits, all or the latest: version, operation, userMetadata and more."""
        limit = "" if latest is None else f" LIMIT {latest}"
        return self.spark.sql(f"DESCRIBE HISTORY {self.reference(name)}{limit}")

    def drop(self, name: str) -> None:
        """Remove a table that waits to be swapped in, or what a run left that died while it made one."""
        self._found.pop(name, None)
        if self.root is not None:
            half_made_tables.discard(self.spark, self.address(name), by_renaming=not self.on_object_store())
        else:
            if self._hidden(name):
                self.spark.sql(f"DROP TABLE IF EXISTS {self.named(name)}")
            quiet = LONGEST_MAKING_SECONDS if name == "runs" else 0
            half_made_tables.clear(self.spark, self.address(name), hidden=self._hidden(name), quiet_seconds=quiet)

    def sized(self, frame: DataFrame, *, by: str | None = None) -> DataFrame:
        """Files of about the target size: small labels in one file, large ones split; sorted, so that statistics help."""
        # Planning anew after a shuffle joins small partitions and splits large ones, at a job a shuffle.
        if str(self.spark.conf.get(session.ADAPTIVE, "true")).lower() != "true":
            return frame.coalesce(1).sortWithinPartitions("doc_id")
        hint = f"REBALANCE({by})" if by else "REBALANCE"
        query = f"SELECT /*+ {hint} */ * FROM {{frame}}"
        return self.spark.sql(query, frame=frame).sortWithinPartitions("doc_id")

    def confs(self) -> dict[str, str]:
        """CONFS, and the size of files that `sized` aims at."""
        megabytes = self.settings.target_file_mb * SHUFFLED_BYTES_PER_FILE_BYTE
        return {**CONFS, "spark.sql.adaptive.advisoryPartitionSizeInBytes": f"{megabytes}m"}
