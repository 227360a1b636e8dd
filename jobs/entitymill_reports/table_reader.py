"""Run the queries of a report page: with Spark or, if the tables are on this machine's disk, without it.

`SparkReader` and `LocalReader` run the same SQL, which Spark and DataFusion both support. In queries, the tables are called
report_entities, report_documents, report_rejects and report_runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill.errors import OutputError, SourceError
from entitymill.schemas import VERSION
from entitymill.settings import Settings
from entitymill.settings.secret_masking import mask_address
from entitymill.settings.sections import SourceSettings
from entitymill.source import reader
from entitymill.spark.files_on_this_machine import is_certainly_local, to_local_path
from entitymill.spark.private_session import open_private_session
from entitymill.tables import Tables, table_setup
from entitymill.tables.output_tables import DELTA_ENTITIES, PROPERTY
from entitymill.tables.runs_without_spark import find_directory, open_dataset

PREFIX = "report_"
TABLES = ("entities", "documents", "rejects", "runs")


class TableReader(Protocol):
    """Interface of SparkReader and LocalReader, which read the tables of one output.

    output: path or schema of the output, as in the settings, with masked credentials.
    """

    output: str

    def has(self, table: str) -> bool:
        """Return whether a table exists; only `rejects` may be missing, the other tables that a page needs always exist."""

    def read_rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query, each as a dict from column name to value; times are in UTC, and maps are dicts."""

    def find_column(self, name: str) -> tuple[str, str] | None:
        """Return the exact name and the type of a column of `entities`; None if there is no such column.

        The case of the argument `name` does not matter. The type is `date`, `timestamp` (with or without a time zone),
        `string`, or the name of another type.
        """

    def read_history(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` commits of the table `documents`.

        Each is a dict with the keys version, at (time in UTC), userMetadata and operationMetrics; the last two may be None.
        """

    def read_texts(self, ids: Sequence[str]) -> dict[str, str]:
        """Return a dict from doc_id to text for a few documents of the source; ids that the source lacks are left out.

        If a text is null, its id is left out, or its value is None. Raise EntityMillError or PySparkException if the source
        cannot be read.
        """


class SparkReader:
    """Reads the tables with Spark, in a Spark session of its own."""

    def __init__(self, spark: SparkSession, settings: Settings, tables: Tables) -> None:
        """Create a view of each table for queries; `spark` and `tables` must belong to a session that nothing else uses."""
        self._spark = spark
        self._settings = settings
        self._tables = tables
        self.output = mask_address(tables.output)
        for name in TABLES:
            if self.has(name):
                tables.read(name).createOrReplaceTempView(PREFIX + name)

    def close(self) -> None:
        """Remove the views of the tables from the session."""
        for name in TABLES:
            self._spark.catalog.dropTempView(PREFIX + name)

    def has(self, table: str) -> bool:
        """Return whether the output has the table."""
        return bool(self._tables.exists(table))

    def read_rows(self, query: str) -> list[dict[str, Any]]:
        """Run a query with Spark; return its rows, each as a dict from column name to value, with times in UTC."""
        frame = self._spark.sql(query)
        # Spark would return times without a time zone, in this machine's local time.
        times = [name for name, kind in frame.dtypes if kind == "timestamp"]
        rows = [row.asDict() for row in frame.withColumns({name: F.unix_micros(name) for name in times}).collect()]
        return [row | {name: _from_micros(row[name]) for name in times} for row in rows]

    def find_column(self, name: str) -> tuple[str, str] | None:
        """Return the exact name and the type of a column of `entities`, ignoring the case of `name`; None if missing."""
        found = self._tables.read("entities").dtypes
        kinds = {"timestamp_ntz": "timestamp"}
        return next(((one, kinds.get(kind, kind)) for one, kind in found if one.lower() == name.lower()), None)

    def read_history(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` commits of the table `documents`: version, at (UTC), userMetadata, operationMetrics."""
        history = self._tables.history("documents", limit)
        columns = ("version", F.unix_micros("timestamp").alias("at"), "userMetadata", "operationMetrics")
        return [row.asDict() | {"at": _from_micros(row["at"])} for row in history.select(*columns).collect()]

    def read_texts(self, ids: Sequence[str]) -> dict[str, str]:
        """Return a dict from doc_id to text for a few documents; leave out ids for which `source.where` selects no row."""
        return reader.read_texts(self._spark, self._settings.source, list(ids))


class LocalReader:
    """Reads the tables with deltalake, whose queries run in DataFusion."""

    def __init__(self, settings: Settings, tables: dict[str, Any], builder: Any) -> None:
        """Register `tables`, a dict from name to DeltaTable, for queries with `builder`, an empty deltalake.QueryBuilder."""
        self._source = settings.source
        self._tables = tables
        self._builder = builder
        self.output = mask_address(str(settings.output.path))
        for name, table in tables.items():
            self._builder.register(PREFIX + name, table)

    def has(self, table: str) -> bool:
        """Return whether a table existed when the reader was opened."""
        return table in self._tables

    def read_rows(self, query: str) -> list[dict[str, Any]]:
        """Run a query with DataFusion; return its rows, each as a dict from column name to value, with times in UTC."""
        rows = pa.table(self._builder.execute(query).read_all()).to_pylist()
        return [{name: _convert(value) for name, value in row.items()} for row in rows]

    def find_column(self, name: str) -> tuple[str, str] | None:
        """Return the exact name and the type of a column of `entities`, ignoring the case of `name`; None if missing."""
        for one in self._tables["entities"].schema().fields:
            if one.name.lower() == name.lower():
                kind = str(getattr(one.type, "type", one.type))
                return one.name, {"timestamp_ntz": "timestamp"}.get(kind, kind)
        return None

    def read_history(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` commits of the table `documents`: version, at (UTC), userMetadata, operationMetrics.

        The values of userMetadata and operationMetrics may be None.
        """
        return [
            {"userMetadata": None, "operationMetrics": None, **commit, "at": _from_micros(1000 * commit["timestamp"])}
            for commit in self._tables["documents"].history(limit)
        ]

    def read_texts(self, ids: Sequence[str]) -> dict[str, str]:
        """Return a dict from doc_id to text for a few documents; ids whose text is null or missing are left out.

        This reads the columns of ids and texts of the complete source. Raise SourceError if the source can no longer be read
        without Spark, or if one of its files cannot be read.
        """
        source = _open_local_source(self._source)
        if source is None:
            raise SourceError(f"source.path: {self._source.path} cannot be read now; check that it still exists.")
        columns = [self._source.id_column, self._source.text_column]
        wanted = pa.array(ids, pa.string())
        found: dict[str, str | None] = {}
        try:
            for batch in source.to_batches(columns=columns):
                keys = pc.cast(batch.column(0), pa.string())
                chosen = pc.is_in(keys, wanted)
                texts = batch.column(1).filter(chosen).to_pylist()
                found |= dict(zip(keys.filter(chosen).to_pylist(), texts, strict=True))
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"source.path: {self._source.path} cannot be read: one of its files is damaged.") from error
        return {key: text for key, text in found.items() if text is not None}


def open_local_reader(settings: Settings) -> LocalReader | None:
    """Return a reader that needs no Spark; None if Spark is needed to read the tables, or the texts that the page shows.

    Spark is needed in any of these cases:
    - The package deltalake is not installed.
    - The tables are not on this machine's disk.
    - A table (except `rejects`) is missing, or one is damaged or from another program version. Reading the
      tables with Spark raises the error.
    - report.date_column is a timestamp, and source.time_zone is not UTC.
    - The page shows text, and pyarrow might not read the source as Spark does (see `_open_local_source`).

    Raise OutputError if the tables are on this machine's disk, but no run has written them yet.
    """
    root = find_directory(settings.output, settings.spark.conf)
    if root is not None and not (root / "runs" / "_delta_log").is_dir():
        raise OutputError(f"output: no run has written {settings.output.path} yet: run the job first.")
    try:
        from deltalake import DeltaTable, QueryBuilder  # noqa: PLC0415  # installed only with the extra `report`
        from deltalake.exceptions import DeltaError  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    if root is None or (settings.report.show_text and _open_local_source(settings.source) is None):
        return None
    directories = {name: root / name for name in TABLES}
    if settings.output.format == "parquet":
        directories["entities"] = root / DELTA_ENTITIES
    try:
        tables = {name: DeltaTable(path) for name, path in directories.items() if (path / "_delta_log").is_dir()}
    except (DeltaError, OSError, ValueError):
        return None
    is_ours = all(table.metadata().configuration.get(PROPERTY) == VERSION for table in tables.values())
    if not is_ours or {"entities", "documents", "runs"} - tables.keys():
        return None
    opened = LocalReader(settings, tables, QueryBuilder())
    column = opened.find_column(settings.report.date_column or "")
    needs_zone = column is not None and column[1] == "timestamp" and settings.source.time_zone != "UTC"
    return None if needs_zone else opened


def _open_local_source(settings: SourceSettings) -> Any:
    """Return the source as a pyarrow dataset; None if pyarrow might not read the same rows and ids as Spark.

    Spark is needed for a catalog table, a source on another machine, a source with `source.where`, and ids that are neither
    strings nor integers. Also return None if the source cannot be opened, or lacks a column: Spark then raises the error.
    """
    if settings.format == "table" or settings.where is not None or not is_certainly_local(settings.path, {}):
        return None
    path = to_local_path(settings.path)
    try:
        found = _open_dataset(path, is_delta=settings.format == "delta")
        kinds = [found.schema.field(name).type for name in (settings.id_column, settings.text_column)]
    except Exception:  # noqa: BLE001  # whatever is wrong, the caller then uses Spark, which raises an error
        return None
    is_simple = pa.types.is_string(kinds[0]) or pa.types.is_large_string(kinds[0]) or pa.types.is_integer(kinds[0])
    return found if is_simple else None


def _open_dataset(path: Path, *, is_delta: bool) -> Any:
    """Return a local Delta table, or local Parquet files, as a pyarrow dataset."""
    return open_dataset(path) if is_delta else ds.dataset(path, format="parquet", partitioning="hive")


@contextlib.contextmanager
def open_spark_reader(spark: SparkSession, settings: Settings, tables: Tables) -> Iterator[SparkReader]:
    """Yield a reader of the output's tables; it uses a private copy of the session `spark` (see `open_private_session`).

    Raise OutputError if a table is missing, or if another program or another version of this program wrote a table.
    """
    if not (tables.is_complete() and tables.exists("runs")):
        raise OutputError(f"output: no entity tables in {tables.output}: run the job first.")
    table_setup.check_tables(tables)
    with open_private_session(spark, settings.source.time_zone, {}) as own:
        opened = SparkReader(own, settings, Tables(own, tables.settings))
        try:
            yield opened
        finally:
            opened.close()


def _from_micros(micros: int | None) -> datetime | None:
    """Convert microseconds since 1970 to a time in UTC; return None for None."""
    return None if micros is None else datetime.fromtimestamp(micros / 1e6, timezone.utc)


def _convert(value: Any) -> Any:
    """Convert a value from pyarrow: a time to UTC, and a list of pairs (a map) to a dict; return other values unchanged.

    A time without a time zone counts as UTC.
    """
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc) if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
    if isinstance(value, date):
        return value
    return dict(value) if isinstance(value, list) else value
