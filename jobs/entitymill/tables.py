"""5  mentions -> tables: the only module that writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas, storage
from entitymill.errors import OutputError
from entitymill.settings import OutputSettings

NAMES = ("entities", "documents", "rejects", "runs", "annotations")
PROPERTY = "entitymill.schema"
_STAGED, _REPLACED = "_staged", "_replaced"
_ADVISORY_SIZE = "spark.sql.adaptive.advisoryPartitionSizeInBytes"
SHUFFLED_BYTES_PER_FILE_BYTE = 3
"""Rows in a shuffle are about this much larger than in Parquet."""


@dataclass(frozen=True)
class Stamp:
    """What every row of a run carries."""

    run_id: str
    started_at: Any
    model: str
    fingerprint: str
    source_version: str


class Tables:
    """The four tables of one output."""

    def __init__(self, spark: SparkSession, settings: OutputSettings) -> None:
        self._spark = spark
        self._settings = settings

    def address(self, name: str) -> str:
        """Where a table is: a path, or a catalog name."""
        if self._settings.path is not None:
            return f"{storage.qualify(self._spark, self._settings.path)}/{name}"
        return f"{self._settings.schema_}.{name}"

    def read(self, name: str) -> DataFrame:
        """One of the tables."""
        if self._settings.path is None:
            return self._spark.read.table(self._quoted(name))
        kind = self._settings.format if name == "entities" else "delta"
        return self._spark.read.format(kind).load(self.address(name))

    def prepare(self) -> None:
        """Find out before any work whether the output can be written and is ours.

        Raises:
            OutputError: it cannot be written, or holds tables that this program did not write.
        """
        if self._settings.path is not None:
            try:
                storage.check_writable(self._spark, self._settings.path)
            except OSError as error:
                raise OutputError(f"output.path: {self._settings.path} cannot be written: {error}.") from error
        else:
            self._create_schema()
        self._settle_parquet()
        for name in NAMES:
            if name == "entities" and self._settings.format == "parquet":
                self._check_parquet()
            else:
                self._check_delta(name)

    def publish(self, recognised: DataFrame, passthrough: list[T.StructField], stamp: Stamp) -> None:
        """Make `entities`, `annotations` where there are any, and `documents` what `recognised` says: one commit each.

        Args:
            recognised: schemas.RECOGNISED and perhaps `passthrough`; read twice, so cache it.
            passthrough: the carried fields.
            stamp: of the run.
        """
        entities = _entities(recognised, schemas.entities(passthrough), stamp)
        if self._settings.format == "parquet":
            self._swap_parquet(entities)
        else:
            self._overwrite("entities", entities, schemas.entities(passthrough), partition="label")
        if "ner" in recognised.columns:
            self._overwrite("annotations", _annotations(recognised, stamp), schemas.ANNOTATION_TABLE)
        self._overwrite("documents", _documents(recognised, stamp), schemas.DOCUMENTS)

    def publish_rejects(self, rejects: DataFrame, stamp: Stamp) -> None:
        """Make `rejects` the rows this run refused."""
        rows = rejects.withColumn("run_id", F.lit(stamp.run_id)).withColumn("at", F.lit(stamp.started_at))
        self._overwrite("rejects", rows.select(*schemas.REJECTS.names), schemas.REJECTS)

    def append_run(self, row: dict[str, Any]) -> None:
        """Add one row to `runs`."""
        self._create("runs", schemas.RUNS)
        values = [tuple(row[name] for name in schemas.RUNS.names)]
        self._save(self._spark.createDataFrame(values, schemas.RUNS).coalesce(1), "runs", replace=False)

    def _create_schema(self) -> None:
        try:
            self._spark.sql(f"CREATE SCHEMA IF NOT EXISTS {_quote(self._settings.schema_ or '')}")
        except (PySparkException, Py4JJavaError) as error:
            raise OutputError(f"output.schema: {self._settings.schema_} does not exist and cannot be created.") from error

    def _check_delta(self, name: str) -> None:
        if not self._exists(name):
            return
        try:
            version = self._table(name).detail().select("properties").collect()[0][0].get(PROPERTY)
        except (PySparkException, Py4JJavaError):
            version = None
        if version != schemas.VERSION:
            found = f"has schema {version}, this program writes {schemas.VERSION}" if version else "was not written by it"
            raise OutputError(f"output: {self.address(name)} exists and {found}; choose another output or move it away.")

    def _check_parquet(self) -> None:
        if not self._exists("entities"):
            return
        columns = set(self.read("entities").columns)
        if not set(schemas.ENTITY_COLUMNS) <= columns:
            raise OutputError(
                f"output: {self.address('entities')} exists and was not written by this program; "
                "choose another output or move it away."
            )

    def _exists(self, name: str) -> bool:
        if self._settings.path is not None:
            return storage.exists(self._spark, self.address(name))
        return self._spark.catalog.tableExists(self._quoted(name))

    def _table(self, name: str) -> DeltaTable:
        if self._settings.path is not None:
            return DeltaTable.forPath(self._spark, self.address(name))
        return DeltaTable.forName(self._spark, self._quoted(name))

    def _create(self, name: str, schema: T.StructType, partition: str | None = None) -> None:
        """Create a Delta table with keys NOT NULL and comments on its columns, if it is not there."""
        builder = DeltaTable.createIfNotExists(self._spark).addColumns(schema).property(PROPERTY, schemas.VERSION)
        if partition is not None:
            builder = builder.partitionedBy(partition)
        if self._settings.path is not None:
            builder.location(self.address(name)).execute()
        else:
            builder.tableName(self._quoted(name)).execute()

    def _overwrite(self, name: str, frame: DataFrame, schema: T.StructType, partition: str | None = None) -> None:
        self._create(name, schema, partition)
        self._save(self._sized(frame.to(schema), partition), name, replace=True)

    def _sized(self, frame: DataFrame, partition: str | None) -> DataFrame:
        """Files of about the target size: small labels in one file, large ones split; sorted, so that statistics help."""
        self._spark.conf.set(_ADVISORY_SIZE, f"{self._settings.target_file_mb * SHUFFLED_BYTES_PER_FILE_BYTE}m")
        hint = f"REBALANCE({partition})" if partition else "REBALANCE"
        return self._spark.sql(f"SELECT /*+ {hint} */ * FROM {{frame}}", frame=frame).sortWithinPartitions("doc_id")

    def _save(self, frame: DataFrame, name: str, *, replace: bool) -> None:
        """One commit. New columns are added, ones no longer carried stay, empty; NOT NULL and properties are kept."""
        if self._settings.path is not None:
            writer = frame.write.format("delta").mode("overwrite" if replace else "append").option("mergeSchema", "true")
            writer.save(self.address(name))
            return
        # saveAsTable would replace the table itself, its constraints and properties with it.
        table = frame.writeTo(self._quoted(name)).option("mergeSchema", "true")
        if replace:
            table.overwrite(F.lit(True))
        else:
            table.append()

    def _swap_parquet(self, frame: DataFrame) -> None:
        """Write beside the table, then rename twice: readers see the old table, for a moment none, then the new."""
        staged = self.address(_STAGED)
        self._sized(frame, "label").write.partitionBy("label").mode("overwrite").parquet(staged)
        if self._exists("entities"):
            self._rename("entities", _REPLACED)
        self._rename(_STAGED, "entities")
        self._delete(_REPLACED)

    def _settle_parquet(self) -> None:
        """Finish or undo a swap that a dead run left in the middle."""
        if self._settings.format != "parquet":
            return
        if self._exists(_REPLACED) and not self._exists("entities"):
            self._rename(_REPLACED, "entities")
        self._delete(_REPLACED)
        self._delete(_STAGED)

    def _rename(self, name: str, to: str) -> None:
        system, source = storage.hadoop_path(self._spark, self.address(name))
        _, target = storage.hadoop_path(self._spark, self.address(to))
        if not system.rename(source, target):
            raise OutputError(f"output.path: {self.address(name)} cannot be renamed to {to}.")

    def _delete(self, name: str) -> None:
        system, path = storage.hadoop_path(self._spark, self.address(name))
        system.delete(path, True)

    def _quoted(self, name: str) -> str:
        return _quote(f"{self._settings.schema_}.{name}")


def _quote(name: str) -> str:
    """A catalog name of up to three levels, each quoted, so that no setting is ever read as SQL."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in name.split("."))


def _entities(recognised: DataFrame, schema: T.StructType, stamp: Stamp) -> DataFrame:
    carried = [name for name in recognised.columns if name == "passthrough"]
    exploded = recognised.select("doc_id", F.explode("mentions").alias("mention"), *carried)
    rows = exploded.select("doc_id", "mention.*", *(f"{name}.*" for name in carried))
    rows = rows.withColumns(
        {
            "model": F.lit(stamp.model),
            "run_id": F.lit(stamp.run_id),
            "processed_at": F.lit(stamp.started_at),
        }
    )
    return rows.select(*schema.names)


def _annotations(recognised: DataFrame, stamp: Stamp) -> DataFrame:
    return recognised.select("doc_id", "ner", "ner_chunk", F.lit(stamp.run_id).alias("run_id"))


def _documents(recognised: DataFrame, stamp: Stamp) -> DataFrame:
    return recognised.select(
        "doc_id",
        "text_hash",
        F.when(F.col("tokens") == 0, "blank").otherwise("done").alias("status"),
        "chars",
        "sentences",
        "tokens",
        "split_sentences",
        F.size("mentions").alias("entities"),
        F.lit(stamp.fingerprint).alias("fingerprint"),
        F.lit(stamp.source_version).alias("source_version"),
        F.lit(stamp.run_id).alias("run_id"),
        F.lit(stamp.started_at).alias("processed_at"),
    )
