"""Check that an output's tables belong to this program and can be written; create them, and add missing columns."""

from __future__ import annotations

import time

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.source.unreadable_source import summarize_error
from entitymill.spark import files_on_this_machine, storage
from entitymill.spark.private_session import create_frame
from entitymill.spark.sql_text import quote_literal, quote_name, quote_part, type_to_sql
from entitymill.tables import half_made_tables, parquet_export
from entitymill.tables.numbered_commits import retry
from entitymill.tables.output_tables import NAMES, PROPERTY, PUBLISHED_TABLES, Tables

_VECTORS = "delta.enableDeletionVectors"
_CHANGE_FEED = "delta.enableChangeDataFeed"
_TRANSACTION_RETENTION = "delta.setTransactionRetentionDuration"
"""Table property that makes Delta forget old transaction numbers."""
LARGE_BYTES = 32 * 2**20
"""With `output.deletion_vectors: auto`, a table of at least this size gets deletion vectors when rows of it are first
replaced. Without deletion vectors, changing one document in a table of this size takes about a second longer, but more
programs can read the table."""
_PARTITIONED = {"entities": "label", "runs": "status"}
_STATISTICS = "doc_id,mention_id,begin,end,confidence,run_id,processed_at"
CREATION_SECONDS, CATALOG_CREATION_SECONDS = 10, 60
"""Longest time, in seconds, that a run is assumed to need from creating a table's directory to the table's first commit. The
first number is for output outside a catalog. If a directory without a commit is older, a dead run must have left it."""


def check_writable(tables: Tables, *, create_schema: bool = True) -> None:
    """Check that tables can be written to the output; create the output's directory or catalog schema if it is missing.

    With `create_schema` False, a missing catalog schema is accepted, but not created. A directory on a local disk is also
    registered, so that later errors can be recognized as caused by a full disk.

    Raises:
        OutputError: the directory cannot be written; the catalog schema cannot be found or created; or the settings ask for
            a Parquet export on storage that cannot rename a directory atomically.
    """
    if tables.settings.path is not None:
        if tables.exported and tables.on_object_store():
            raise OutputError(
                f"output.format: parquet needs storage that renames a directory atomically, which the storage of "
                f"{tables.settings.path} does not; set output.format=delta, or choose another output.path."
            )
        files_on_this_machine.register_directory(tables.root or tables.settings.path, "output.path")
        try:
            storage.check_writable(tables.spark, tables.settings.path)
        except OSError as error:
            raise OutputError(f"output.path: {tables.settings.path} cannot be written: {error}.") from error
        return
    name = quote_name(tables.spark, tables.settings.schema_ or "")
    try:
        with storage.convert_spark_errors():
            # CREATE SCHEMA IF NOT EXISTS fails for users who may only create tables, even if the schema exists.
            if not tables.spark.catalog.databaseExists(name) and create_schema:
                tables.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
    except (PySparkException, Py4JJavaError) as error:
        wrong = "cannot be looked up; check that its catalog exists."
        if create_schema:
            wrong = "does not exist and cannot be created; create it, or choose another schema."
        raise OutputError(f"output.schema: {tables.settings.schema_} {wrong}") from error


def check_tables(tables: Tables) -> None:
    """Check that this program wrote the existing tables, with the current schema version; missing tables are accepted.

    Raises:
        OutputError: a table cannot be read, has another schema version, or another program wrote it or the Parquet export.
    """
    for name in NAMES:
        if not tables.exists(name):
            continue
        if tables.detail(name) is None and (reason := _explain_read_error(tables, name)):
            raise OutputError(
                f"output: {tables.address(name)} cannot be read: {reason}. Make it readable for this program, or choose "
                "another output."
            )
        version = tables.cached_properties(name).get(PROPERTY)
        if version != schemas.VERSION:
            wrong = "was not written by this program"
            if version:
                wrong = f"has schema version {version}, but this program writes version {schemas.VERSION}"
            raise OutputError(f"output: {tables.address(name)} exists and {wrong}; choose another output or move it away.")
    if tables.exported:
        parquet_export.check_export(tables)


def _explain_read_error(tables: Tables, name: str) -> str | None:
    """Return why Delta cannot read an existing table, as a phrase; None if Delta can, or if a directory has no Delta log."""
    try:
        tables.spark.sql(f"DESCRIBE DETAIL {tables.sql_name(name)}").collect()
    except (PySparkException, Py4JJavaError) as error:
        try:
            if tables.root is not None and not storage.exists(tables.spark, f"{tables.address(name)}/_delta_log"):
                return None
        except OSError as denied:
            return str(denied)
        return summarize_error(error)
    return None


def check_tables_to_write(tables: Tables) -> None:
    """Check the tables as `check_tables` does, and check that Delta never forgets their transaction numbers.

    By these numbers, Delta refuses commits of runs that were suspended and wake up too late (see `numbered_commits`). Raise
    OutputError as `check_tables` does, or if a table has the property that makes Delta forget the numbers.
    """
    check_tables(tables)
    for name in NAMES:
        if tables.exists(name) and _TRANSACTION_RETENTION in tables.cached_properties(name):
            raise OutputError(
                f"output: {tables.address(name)} has the property {_TRANSACTION_RETENTION}. With it, Delta forgets "
                "old transaction numbers, and a run that was suspended could overwrite newer rows. Remove the property: "
                f"ALTER TABLE {tables.sql_name(name)} UNSET TBLPROPERTIES ('{_TRANSACTION_RETENTION}')."
            )


def check_passthrough_types(tables: Tables, fields: list[T.StructField]) -> None:
    """Raise OutputError if a passthrough column has one type in the source, and another type in the table `entities`.

    `fields` are the passthrough columns, with their types in the source. Columns that `entities` lacks are accepted.
    """
    if not fields or not tables.exists("entities"):
        return
    # Delta's column names are not case-sensitive.
    held = {field.name.lower(): field.dataType.simpleString() for field in tables.read("entities").schema}
    for field in fields:
        kind, before = field.dataType.simpleString(), held.get(field.name.lower())
        if before not in (None, kind):
            raise OutputError(
                f"source.passthrough: the column {field.name} is {kind} in the source, but {before} in "
                f"{tables.address('entities')}; cast it in a view (`source.format: table`), or choose another output."
            )


def create_table(tables: Tables, name: str, schema: T.StructType) -> bool:
    """Create a Delta table and return True, or add missing columns and properties to an existing one and return False.

    A new table gets NOT NULL keys, column comments and, for some tables, a CHECK constraint. If an earlier run died while it
    was creating the table, `half_made_tables` first completes the table, or removes what the run left behind. Outside a
    catalog, if another run is creating `runs` right now, wait until the table exists, and return False.

    Raises:
        OutputError: the table is not in the catalog, but its directory has data; another run is creating the table in the
            catalog; or the directory of a new table is not empty.
    """
    is_new = not tables.exists(name)
    properties = _choose_properties(tables, name, is_new=is_new)
    if not is_new:
        _update_table(tables, name, schema, properties)
        return False
    if tables.root is None:
        quiet = CATALOG_CREATION_SECONDS if name == "runs" else 0
        mark = f'"{PROPERTY}":"{schemas.VERSION}"'
        if half_made_tables.recover_in_catalog(tables.spark, tables.address(name), mark, quiet_seconds=quiet):
            tables.forget(name)
            _update_table(tables, name, schema, properties)
            return True
    elif storage.exists(tables.spark, tables.address(name)):
        if name == "runs" and _wait_for_creation(tables, name):  # a run creates `runs` before taking the lease
            return False
        half_made_tables.clear_log(tables.spark, tables.address(name))
    if name in schemas.CONSTRAINTS:
        properties[f"delta.constraints.entitymill_{name}"] = schemas.CONSTRAINTS[name]
    if name == "entities":
        # Collect no statistics on texts: the Delta log would keep parts of texts long after their rows are removed.
        properties["delta.dataSkippingStatsColumns"] = _STATISTICS
    create = _create_with_builder if name == "annotations" else _create_with_sql
    create(tables, name, schema, properties)
    if not tables.exists(name):
        address = tables.address(name)
        raise OutputError(f"output: {address} is not empty, but is not a Delta table; move it away, then run again.")
    return True


def _choose_properties(tables: Tables, name: str, *, is_new: bool) -> dict[str, str]:
    """Return the table properties to set: schema version, and deletion vectors and change feed as in the settings.

    With `output.deletion_vectors: auto`, a new table has no deletion vectors, and an existing table keeps its property. Only
    PUBLISHED_TABLES ever get deletion vectors, and only `entities` and `documents` a change feed.
    """
    properties = {PROPERTY: schemas.VERSION}
    if is_new or tables.settings.deletion_vectors != "auto":
        properties[_VECTORS] = str(tables.settings.deletion_vectors is True and name in PUBLISHED_TABLES).lower()
    if tables.settings.change_feed and name in ("entities", "documents"):
        properties[_CHANGE_FEED] = "true"
    return properties


def _create_with_sql(tables: Tables, name: str, schema: T.StructType, properties: dict[str, str]) -> None:
    """Create any table except `annotations`; if the directory has files, Delta takes it for a table, and creates nothing."""
    columns = ", ".join(map(_column_ddl, schema))
    partitions = f"PARTITIONED BY ({_PARTITIONED[name]})" if name in _PARTITIONED else ""
    tables.spark.sql(
        f"CREATE TABLE IF NOT EXISTS {tables.sql_name(name)} ({columns}) USING delta {partitions} "
        f"TBLPROPERTIES ({_format_properties(properties)})"
    )


def enable_deletion_vectors_if_large(tables: Tables, name: str) -> None:
    """Turn on deletion vectors for a table of at least LARGE_BYTES, if `output.deletion_vectors` is auto.

    Call this before rows of the table are replaced. The size comes from `Tables.detail`, whose cached result may be old.
    """
    found = tables.detail(name) if tables.settings.deletion_vectors == "auto" else None
    if found is None or found["sizeInBytes"] < LARGE_BYTES or found["properties"].get(_VECTORS) == "true":
        return
    statement = f"ALTER TABLE {tables.sql_name(name)} SET TBLPROPERTIES ({_format_properties({_VECTORS: 'true'})})"
    # All runs make the same change, so its commit needs no transaction number.
    retry(name, lambda: tables.spark.sql(statement))
    tables.forget(name)


def _create_with_builder(tables: Tables, name: str, schema: T.StructType, properties: dict[str, str]) -> None:
    """Create a table with Delta's builder, because SQL cannot set the column metadata that Spark NLP needs."""
    from delta.tables import DeltaTable  # noqa: PLC0415  # missing on Spark Connect

    builder = DeltaTable.createIfNotExists(tables.spark).addColumns(schema)
    for key, value in properties.items():
        builder = builder.property(key, value)
    if tables.root is not None:
        builder.location(tables.address(name)).execute()
    else:
        builder.tableName(tables.catalog_name(name)).execute()


def _wait_for_creation(tables: Tables, name: str) -> bool:
    """Wait up to CREATION_SECONDS for another run to finish creating a table; return whether the table exists."""
    deadline = time.monotonic() + CREATION_SECONDS
    while not tables.exists(name):
        if time.monotonic() >= deadline:
            return False
        time.sleep(CREATION_SECONDS / 20)
    return True


def _update_table(tables: Tables, name: str, schema: T.StructType, properties: dict[str, str]) -> None:
    """Add the columns of `schema` that an existing table lacks, and set the table properties whose values differ."""
    held = {column.lower() for column in tables.read(name).columns}
    if any(column.lower() not in held for column in schema.names):
        tables.append(create_frame(tables.spark, [], schema), name)
    before = tables.cached_properties(name)
    # All runs make the same changes, so the commits need no transaction number. Delta's default for this property is false.
    before.setdefault(_VECTORS, "false")
    differing = {key: value for key, value in properties.items() if before.get(key) != value}
    if differing:
        statement = f"ALTER TABLE {tables.sql_name(name)} SET TBLPROPERTIES ({_format_properties(differing)})"
        retry(name, lambda: tables.spark.sql(statement))
        tables.forget(name)


def _column_ddl(field: T.StructField) -> str:
    """Return the SQL definition of a column: name, type, NOT NULL and comment."""
    required = "" if field.nullable else " NOT NULL"
    comment = f" COMMENT {quote_literal(field.metadata['comment'])}" if "comment" in field.metadata else ""
    return f"{quote_part(field.name)} {type_to_sql(field.dataType)}{required}{comment}"


def _format_properties(properties: dict[str, str]) -> str:
    """Return table properties as an SQL list for TBLPROPERTIES."""
    return ", ".join(f"{quote_literal(key)} = {quote_literal(value)}" for key, value in properties.items())
