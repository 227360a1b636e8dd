"""The tables of one output: where they are, whether they are ours, how they are made, read and written."""

from __future__ import annotations

import time
from functools import cached_property

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.platform import session, spark_connect, storage, storage_faults
from entitymill.platform.sql_names import ddl, literal, quoted, quoted_in, quoted_part
from entitymill.settings.sections import OutputSettings
from entitymill.tables import half_made_tables
from entitymill.tables.table_rows import normalized

NAMES = ("entities", "documents", "rejects", "runs", "annotations", "erasures")
HIDDEN = "entitymill_"
"""Before the name of a table, in a catalog schema, that is nobody's but this program's."""
STAGED = "staged_"
"""Before the name of a table that waits to be swapped in."""
_OBJECT_STORES = ("s3:", "s3a:", "s3n:", "gs:", "oss:", "cosn:")
PROPERTY = "entitymill.schema"
_VECTORS = "delta.enableDeletionVectors"
MIN_FILE, MAX_FILE = "spark.databricks.delta.optimize.minFileSize", "spark.databricks.delta.optimize.maxFileSize"
LABELS = 4
"""About as many partitions `entities` has."""
_LARGE = ("entities", "documents", "annotations")
_PARTITIONED = {"entities": "label", "runs": "status"}
_STATISTICS = "doc_id,mention_id,begin,end,confidence,run_id,processed_at"
MAKING_SECONDS, LONGEST_MAKING_SECONDS = 10, 60
"""What making a table takes another run at most, between its directory and its first commit: alone, and in a catalog."""
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
            spark: the session.
            settings: of the output.
            staged: whether these are the waiting ones; always Delta.
        """
        self.spark = spark
        self.settings = settings
        self.staged = staged
        self._found: dict[str, Row] = {}

    @cached_property
    def _root(self) -> str | None:
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
        if self._root is not None:
            # A leading underscore: no reader of the directory takes it for data.
            return f"{self._root}/{'_' * self._hidden(name)}{prefix}{name}"
        return f"{self.settings.schema_}.{HIDDEN * self._hidden(name)}{prefix}{name}"

    def _hidden(self, name: str) -> bool:
        return self.staged or name not in NAMES

    def _named(self, name: str) -> str:
        return quoted_in(self.spark, self.address(name))

    def reference(self, name: str) -> str:
        """A Delta table as SQL names it, quoted."""
        if self._root is not None:
            return "delta." + quoted_part(self.address(name))
        return self._named(name)

    def read(self, name: str) -> DataFrame:
        """One of the tables."""
        if self._root is None:
            return self.spark.read.table(self._named(name))
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
        return reader.table(self._named(name)) if self._root is None else reader.format("delta").load(self.address(name))

    def detail(self, name: str) -> Row | None:
        """What DESCRIBE DETAIL says of a Delta table, asked for once: its properties, where its files are; none: no table.

        Raises:
            StorageError: the storage does not answer.
        """
        if name not in self._found:
            try:
                with storage_faults.storage_told_apart():
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
        if self._root is not None:
            return storage.exists(self.spark, self.address(name)) and not half_made_tables.half_made(
                self.spark, self.address(name)
            )
        return self.spark.catalog.tableExists(self._named(name))

    def _blank(self, name: str) -> bool:
        """Whether a directory holds nothing but what Spark leaves beside data."""
        names = (file.rpartition("/")[2] for file, *_ in storage.files(self.spark, self.address(name)))
        return all(file.startswith(("_", ".")) for file in names)

    def current(self, name: str) -> bool:
        """Whether a table is there, as this version makes it."""
        return self._properties(name).get(PROPERTY) == schemas.VERSION

    def empty(self, name: str) -> bool:
        """Whether a Delta table had no file when it was looked at: then it need not be read."""
        found = self.detail(name)
        return found is None or found["numFiles"] == 0

    def forget(self) -> None:
        """Look again: another run came between."""
        self._found.clear()

    def complete(self) -> bool:
        """Whether `documents` and what it tells of are both there."""
        return self.exists("documents") and self.exists("entities")

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
            with storage_faults.storage_told_apart():
                self.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {quoted(self.settings.schema_ or '')}")
        except (PySparkException, Py4JJavaError) as error:
            raise OutputError(f"output.schema: {self.settings.schema_} does not exist and cannot be created.") from error

    def check_schema(self) -> None:
        """Find out whether the catalog schema is there; where it is not, whether it could be made is not known.

        Raises:
            OutputError: its catalog is not there, or may not be asked.
        """
        name = self.settings.schema_ or ""
        try:
            with storage_faults.storage_told_apart():
                self.spark.catalog.databaseExists(quoted_in(self.spark, name))
        except (PySparkException, Py4JJavaError) as error:
            raise OutputError(f"output.schema: {name} cannot be looked for: is its catalog there?") from error

    def _on_object_store(self) -> bool:
        return self.address("entities").startswith(_OBJECT_STORES)

    def check_ours(self) -> None:
        """Find out whether the tables that exist were written by a version of this program whose tables this one knows.

        Raises:
            OutputError: one was not.
        """
        for name in NAMES:
            if not self.exists(name):
                continue
            if not self.is_delta(name):
                self._check_parquet()
                continue
            version = self._properties(name).get(PROPERTY)
            if version not in schemas.READABLE:
                found = (
                    f"has schema {version}, this program writes {schemas.VERSION}" if version else "was not written by it"
                )
                raise OutputError(f"output: {self.address(name)} exists and {found}; choose another output or move it away.")

    def _properties(self, name: str) -> dict[str, str]:
        found = self.detail(name)
        return {} if found is None else dict(found["properties"])

    def properties(self, name: str) -> dict[str, str]:
        """The properties of a Delta table as they are now; none where there is no such table."""
        self._found.pop(name, None)
        return self._properties(name)

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
            with storage_faults.storage_told_apart():
                ours = set(schemas.OLDEST_ENTITY_COLUMNS) <= set(self.read("entities").columns)
            return ours and not storage.exists(self.spark, f"{self.address('entities')}/_delta_log")
        except (PySparkException, Py4JJavaError, OSError):
            return False

    def create(self, name: str, schema: T.StructType, properties: dict[str, str] | None = None) -> bool:
        """Create a Delta table with keys NOT NULL, a CHECK constraint and comments on its columns, if it is not there.

        An existing one gets the columns and the properties it lacks.

        Returns:
            Whether it was made.
        """
        # Each look at a table that has them costs a job more: not where rows are few.
        vectors = str(self.settings.deletion_vectors and name in _LARGE).lower()
        if self.exists(name):
            self._evolve(name, schema, {PROPERTY: schemas.VERSION, _VECTORS: vectors})
            return False
        if self._left(name):
            # Of `runs` another run may just be the maker; of a catalog's, `drop` says so itself.
            if name == "runs" and self._root is not None and self._made_by_another(name):
                return False
            # What a run left that died before it made the table: Delta takes it for one, or makes none over it.
            self.drop(name)
        chosen = {PROPERTY: schemas.VERSION, _VECTORS: vectors, **(properties or {})}
        if name in schemas.CONSTRAINTS and not self.staged:
            chosen[f"delta.constraints.entitymill_{name}"] = schemas.CONSTRAINTS[name]
        if name == "entities":
            # No statistics on what was found: they would lie in the log long after the rows are gone.
            chosen["delta.dataSkippingStatsColumns"] = _STATISTICS
        if name == "annotations":
            self._build(name, schema, chosen)
            return True
        columns = ", ".join(map(_column, schema))
        partitions = f"PARTITIONED BY ({_PARTITIONED[name]})" if name in _PARTITIONED else ""
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self.reference(name)} ({columns}) USING delta {partitions} "
            f"TBLPROPERTIES ({_listed(chosen)})"
        )
        return True

    def _build(self, name: str, schema: T.StructType, properties: dict[str, str]) -> None:
        """By Delta's builder: in SQL a column has a comment alone, and Spark NLP tells its columns by their metadata."""
        from delta.tables import DeltaTable  # noqa: PLC0415  # Spark Connect has none

        builder = DeltaTable.createIfNotExists(self.spark).addColumns(schema)
        for key, value in properties.items():
            builder = builder.property(key, value)
        if self._root is not None:
            builder.location(self.address(name)).execute()
        else:
            builder.tableName(self._named(name)).execute()

    def _made_by_another(self, name: str) -> bool:
        """Whether a table comes to be while its directory stands there without a commit."""
        deadline = time.monotonic() + MAKING_SECONDS
        while not self.exists(name):
            if time.monotonic() >= deadline:
                return False
            time.sleep(MAKING_SECONDS / 20)
        return True

    def _left(self, name: str) -> bool:
        return self._root is None or storage.exists(self.spark, self.address(name))

    def _evolve(self, name: str, schema: T.StructType, properties: dict[str, str]) -> None:
        held = {column.lower() for column in self.read(name).columns}
        if name == "entities" and schemas.NORMALIZED.name not in held:
            # Of 0.1.0: the column and what is in it in one commit, or a death in between would leave it empty for good.
            self.replace(self.sized(normalized(self.read(name)), by="label"), name)
            held.add(schemas.NORMALIZED.name)
        if any(column.lower() not in held for column in schema.names):
            self.append(self.spark.createDataFrame([], schema), name)
        before = self._properties(name)
        # As Delta has it where nobody said anything.
        before.setdefault(_VECTORS, "false")
        differing = {key: value for key, value in properties.items() if before.get(key) != value}
        if differing:
            self.spark.sql(f"ALTER TABLE {self.reference(name)} SET TBLPROPERTIES ({_listed(differing)})")
            self._found.pop(name, None)

    def append(self, frame: DataFrame, name: str, options: dict[str, str] | None = None) -> None:
        """Add rows in one commit; new columns are added.

        Args:
            frame: the rows.
            name: of the table.
            options: of Delta's writer.
        """
        chosen = {"mergeSchema": "true", **(options or {})}
        if self._root is not None:
            frame.write.format("delta").mode("append").options(**chosen).save(self.address(name))
        else:
            frame.writeTo(self._named(name)).options(**chosen).append()

    def replace(
        self, frame: DataFrame, name: str, condition: str | None = None, options: dict[str, str] | None = None
    ) -> None:
        """Delete the rows that meet an SQL condition, or all, and add others, in one commit.

        The others need not meet the condition. New columns are added, ones no longer written stay, empty; NOT NULL and
        properties are kept. CONFS have to be in force.
        """
        chosen = {"mergeSchema": "true", **(options or {})}
        if self._root is not None:
            if condition is not None:
                chosen["replaceWhere"] = condition
            frame.write.format("delta").mode("overwrite").options(**chosen).save(self.address(name))
        else:
            # saveAsTable would replace the table itself, its constraints and properties with it.
            frame.writeTo(self._named(name)).options(**chosen).overwrite(F.expr(condition or "true"))

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
        if self._root is not None:
            half_made_tables.discard(self.spark, self.address(name), by_renaming=not self._on_object_store())
        else:
            if self._hidden(name):
                self.spark.sql(f"DROP TABLE IF EXISTS {self._named(name)}")
            quiet = LONGEST_MAKING_SECONDS if name == "runs" else 0
            half_made_tables.clear(self.spark, self.address(name), hidden=self._hidden(name), quiet_seconds=quiet)

    def sized(self, frame: DataFrame, *, by: str | None = None) -> DataFrame:
        """Files of about the target size: small labels in one file, large ones split; sorted, so that statistics help."""
        if not session.adaptive(self.spark):
            return frame.coalesce(1).sortWithinPartitions("doc_id")
        hint = f"REBALANCE({by})" if by else "REBALANCE"
        query = f"SELECT /*+ {hint} */ * FROM {{frame}}"
        return self.spark.sql(query, frame=frame).sortWithinPartitions("doc_id")

    def confs(self) -> dict[str, str]:
        """CONFS, and the size of files that `sized` aims at."""
        megabytes = self.settings.target_file_mb * SHUFFLED_BYTES_PER_FILE_BYTE
        return {**CONFS, "spark.sql.adaptive.advisoryPartitionSizeInBytes": f"{megabytes}m"}


def _column(field: T.StructField) -> str:
    required = "" if field.nullable else " NOT NULL"
    comment = f" COMMENT {literal(field.metadata['comment'])}" if "comment" in field.metadata else ""
    return f"{quoted_part(field.name)} {ddl(field.dataType)}{required}{comment}"


def _listed(properties: dict[str, str]) -> str:
    return ", ".join(f"{literal(key)} = {literal(value)}" for key, value in properties.items())
