"""The tables of one output: where they are, whether they are ours, how they are made, read and written."""

from __future__ import annotations

import time

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import faults, schemas, storage
from entitymill.errors import OutputError
from entitymill.naming import quoted, quoted_in, quoted_part
from entitymill.session import configured
from entitymill.settings import OutputSettings
from entitymill.tables import leftovers

NAMES = ("entities", "documents", "rejects", "runs", "annotations")
LEASE = "lease"
HIDDEN = "entitymill_"
"""Before the name of a table, in a catalog schema, that is nobody's but this program's."""
STAGED = "staged_"
"""Before the name of a table that waits to be swapped in."""
_OBJECT_STORES = ("s3:", "s3a:", "s3n:", "gs:", "oss:", "cosn:")
PROPERTY = "entitymill.schema"
_ADVISORY_SIZE = "spark.sql.adaptive.advisoryPartitionSizeInBytes"
_REPLACING = {
    # On the path of a writer, whose rows must all meet the condition otherwise.
    "spark.databricks.delta.replaceWhere.constraintCheck.enabled": "false",
    # `dynamic`, which some clusters have as their default, would leave every label that is not found any more.
    "spark.sql.sources.partitionOverwriteMode": "static",
}
_LONGEST_MAKING_SECONDS = 60
_STATISTICS = "doc_id,mention_id,begin,end,confidence,run_id,processed_at"
SHUFFLED_BYTES_PER_FILE_BYTE = 3
"""Rows in a shuffle are about this much larger than in Parquet."""


class Tables:
    """The tables of one output, or those that wait to be swapped in for them."""

    def __init__(self, spark: SparkSession, settings: OutputSettings, *, staged: bool = False) -> None:
        """Name the place; nothing is read.

        Args:
            spark: the session.
            settings: of the output.
            staged: whether these are the waiting ones; always Delta.
        """
        self.spark = spark
        self.settings = settings
        self.staged = staged

    @property
    def parquet(self) -> bool:
        """Whether `entities` is plain Parquet here."""
        return self.settings.format == "parquet" and not self.staged

    def is_delta(self, name: str) -> bool:
        """Whether a table is one of Delta's."""
        return name != "entities" or not self.parquet

    def address(self, name: str) -> str:
        """Where a table is: a path, or a catalog name."""
        prefix = STAGED if self.staged else ""
        if self.settings.path is not None:
            # A leading underscore: no reader of the directory takes it for data.
            return f"{storage.qualify(self.spark, self.settings.path)}/{'_' * self._hidden(name)}{prefix}{name}"
        return f"{self.settings.schema_}.{HIDDEN * self._hidden(name)}{prefix}{name}"

    def _hidden(self, name: str) -> bool:
        return self.staged or name not in NAMES

    def _named(self, name: str) -> str:
        return quoted_in(self.spark, self.address(name))

    def reference(self, name: str) -> str:
        """A Delta table as SQL names it, quoted."""
        if self.settings.path is not None:
            return "delta." + quoted_part(self.address(name))
        return self._named(name)

    def read(self, name: str) -> DataFrame:
        """One of the tables."""
        if self.settings.path is None:
            return self.spark.read.table(self._named(name))
        if self.is_delta(name):
            return self.spark.read.format("delta").load(self.address(name))
        if self._blank(name):
            # No mention at all, so no file, and no schema to be found in one.
            return self.spark.createDataFrame([], schemas.entities([]))
        return self.spark.read.parquet(self.address(name))

    def exists(self, name: str) -> bool:
        """Whether anything is where a table would be."""
        if self.settings.path is not None:
            return storage.exists(self.spark, self.address(name)) and not self._half_made(name)
        return self.spark.catalog.tableExists(self._named(name))

    def _half_made(self, name: str) -> bool:
        """Whether a run died, or is, between making a table's directory and its first commit."""
        return leftovers.half_made(self.spark, self.address(name))

    def _blank(self, name: str) -> bool:
        """Whether a directory holds nothing but what Spark leaves beside data."""
        names = (file.rpartition("/")[2] for file, *_ in storage.files(self.spark, self.address(name)))
        return all(file.startswith(("_", ".")) for file in names)

    def complete(self) -> bool:
        """Whether `documents` and what it tells of are both there."""
        return self.exists("documents") and self.exists("entities")

    def table(self, name: str) -> DeltaTable:
        """A Delta table, to be changed."""
        if self.settings.path is not None:
            return DeltaTable.forPath(self.spark, self.address(name))
        return DeltaTable.forName(self.spark, self._named(name))

    def check_place(self) -> None:
        """Find out before any work whether tables can be written here; make the catalog schema where it is missing.

        Raises:
            OutputError: they cannot.
        """
        if self.settings.path is not None:
            if self.parquet and self._on_object_store():
                raise OutputError(
                    f"output.format: parquet is swapped in by renaming a directory, which {self.settings.path} cannot do at "
                    "once; use delta."
                )
            try:
                storage.check_writable(self.spark, self.settings.path)
            except OSError as error:
                raise OutputError(f"output.path: {self.settings.path} cannot be written: {error}.") from error
            return
        try:
            with faults.storage_told_apart():
                self.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {quoted(self.settings.schema_ or '')}")
        except (PySparkException, Py4JJavaError) as error:
            raise OutputError(f"output.schema: {self.settings.schema_} does not exist and cannot be created.") from error

    def _on_object_store(self) -> bool:
        return self.address("entities").startswith(_OBJECT_STORES)

    def check_ours(self, *names: str) -> None:
        """Find out whether the tables that exist were written by this version of this program.

        Raises:
            OutputError: one was not.
        """
        for name in names:
            if not self.exists(name):
                continue
            if not self.is_delta(name):
                self._check_parquet()
                continue
            version = self.properties(name).get(PROPERTY)
            if version != schemas.VERSION:
                found = (
                    f"has schema {version}, this program writes {schemas.VERSION}" if version else "was not written by it"
                )
                raise OutputError(f"output: {self.address(name)} exists and {found}; choose another output or move it away.")

    def check_types(self, fields: list[T.StructField]) -> None:
        """Find out before any work whether carried columns still have the types that `entities` has for them.

        Raises:
            OutputError: one has another.
        """
        if not fields or not self.exists("entities"):
            return
        # Delta tells columns apart without their case.
        held = {field.name.lower(): field.dataType.simpleString() for field in self.read("entities").schema}
        for field in fields:
            kind, before = field.dataType.simpleString(), held.get(field.name.lower())
            if before not in (None, kind):
                raise OutputError(
                    f"source.passthrough: {field.name} is {kind} now and {before} in "
                    f"{self.address('entities')}; cast it in a view (source.format table), or choose another output."
                )

    def _check_parquet(self) -> None:
        for pause in (1, 2, None):
            if self._parquet_is_ours():
                return
            if pause is not None:
                time.sleep(pause)  # another run may just be putting a directory in the place of the old one
        raise OutputError(
            f"output: {self.address('entities')} exists and was not written by this program; "
            "choose another output or move it away."
        )

    def _parquet_is_ours(self) -> bool:
        try:
            with faults.storage_told_apart():
                ours = set(schemas.ENTITY_COLUMNS) <= set(self.read("entities").columns)
            return ours and not storage.exists(self.spark, f"{self.address('entities')}/_delta_log")
        except (PySparkException, Py4JJavaError, OSError):
            return False

    def properties(self, name: str) -> dict[str, str]:
        """The properties of a Delta table; none where there is no such table.

        Raises:
            StorageError: the storage does not answer.
        """
        try:
            with faults.storage_told_apart():
                rows = self.spark.sql(f"SHOW TBLPROPERTIES {self.reference(name)}").collect()
        except (PySparkException, Py4JJavaError):
            return {}
        return {row["key"]: row["value"] for row in rows}

    def create(self, name: str, schema: T.StructType, properties: dict[str, str] | None = None) -> None:
        """Create a Delta table with keys NOT NULL, a CHECK constraint and comments on its columns, if it is not there.

        An existing one gets the columns it lacks.
        """
        if self.exists(name):
            self._evolve(name, schema)
            return
        # What a run left that died before it made the table: Delta takes it for one, or makes none over it.
        if self.settings.path is not None:
            self.drop(name)
        else:
            # Of the lease alone another run may just be the maker.
            quiet = _LONGEST_MAKING_SECONDS if name == LEASE else 0
            leftovers.clear(self.spark, self.address(name), hidden=self._hidden(name), quiet_seconds=quiet)
        builder = DeltaTable.createIfNotExists(self.spark).addColumns(schema).property(PROPERTY, schemas.VERSION)
        for key, value in (properties or {}).items():
            builder = builder.property(key, value)
        if name in schemas.CONSTRAINTS and not self.staged:
            builder = builder.property(f"delta.constraints.entitymill_{name}", schemas.CONSTRAINTS[name])
        if name == "entities":
            # No statistics on what was found: they would lie in the log long after the rows are gone.
            builder = builder.partitionedBy("label").property("delta.dataSkippingStatsColumns", _STATISTICS)
        if self.settings.path is not None:
            builder.location(self.address(name)).execute()
        else:
            builder.tableName(self._named(name)).execute()

    def _evolve(self, name: str, schema: T.StructType) -> None:
        held = {column.lower() for column in self.read(name).columns}
        if any(column.lower() not in held for column in schema.names):
            self.append(self.spark.createDataFrame([], schema), name)

    def append(self, frame: DataFrame, name: str) -> None:
        """Add rows in one commit; new columns are added."""
        if self.settings.path is not None:
            frame.write.format("delta").mode("append").option("mergeSchema", "true").save(self.address(name))
        else:
            frame.writeTo(self._named(name)).option("mergeSchema", "true").append()

    def replace(self, frame: DataFrame, name: str, condition: str | None = None) -> None:
        """Delete the rows that meet an SQL condition, or all, and add others, in one commit.

        The others need not meet the condition. New columns are added, ones no longer written stay, empty; NOT NULL and
        properties are kept.
        """
        with configured(self.spark, _REPLACING):
            if self.settings.path is not None:
                writer = frame.write.format("delta").mode("overwrite").option("mergeSchema", "true")
                if condition is not None:
                    writer = writer.option("replaceWhere", condition)
                writer.save(self.address(name))
            else:
                # saveAsTable would replace the table itself, its constraints and properties with it.
                table = frame.writeTo(self._named(name)).option("mergeSchema", "true")
                table.overwrite(F.expr(condition) if condition is not None else F.lit(True))

    def drop(self, name: str) -> None:
        """Remove a table that waits to be swapped in."""
        if self.settings.path is not None:
            leftovers.discard(self.spark, self.address(name), by_renaming=not self._on_object_store())
        else:
            self.spark.sql(f"DROP TABLE IF EXISTS {self._named(name)}")
            leftovers.clear(self.spark, self.address(name), hidden=True)

    def sized(self, frame: DataFrame, *, by: str | None = None) -> DataFrame:
        """Files of about the target size: small labels in one file, large ones split; sorted, so that statistics help."""
        self.spark.conf.set(_ADVISORY_SIZE, f"{self.settings.target_file_mb * SHUFFLED_BYTES_PER_FILE_BYTE}m")
        hint = f"REBALANCE({by})" if by else "REBALANCE"
        query = f"SELECT /*+ {hint} */ * FROM {{frame}}"  # noqa: S608  # the hint is this program's own
        return self.spark.sql(query, frame=frame).sortWithinPartitions("doc_id")
