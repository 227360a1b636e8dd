"""An output's tables made ready: whether they may be written and are ours; made, or brought up to today's columns."""

from __future__ import annotations

import time

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.platform import storage
from entitymill.platform.sql_text import ddl, literal, quoted_in, quoted_part
from entitymill.tables.commits import retried
from entitymill.tables.layout import NAMES, OF_UNITS, PROPERTY, Tables
from entitymill.tables.table_rows import normalized

_VECTORS = "delta.enableDeletionVectors"
_PARTITIONED = {"entities": "label", "runs": "status"}
_STATISTICS = "doc_id,mention_id,begin,end,confidence,run_id,processed_at"
MAKING_SECONDS = 10
"""What making a table takes another run at most, between its directory and its first commit."""


def check_place(tables: Tables, *, make: bool = True) -> None:
    """Find out before any work whether tables can be written here; make the catalog schema where it is missing, if so told.

    Raises:
        OutputError: they cannot.
    """
    if tables.settings.path is not None:
        if tables.parquet and tables.on_object_store():
            raise OutputError(
                f"output.format: parquet is swapped in by renaming a directory, which {tables.settings.path} cannot do at "
                "once; use delta."
            )
        try:
            storage.check_writable(tables.spark, tables.settings.path)
        except OSError as error:
            raise OutputError(f"output.path: {tables.settings.path} cannot be written: {error}.") from error
        return
    name = quoted_in(tables.spark, tables.settings.schema_ or "")
    try:
        with storage.storage_told_apart():
            # Asked for where it is there, too, it is refused to who may make tables alone.
            if not tables.spark.catalog.databaseExists(name) and make:
                tables.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
    except (PySparkException, Py4JJavaError) as error:
        wrong = "does not exist and cannot be created." if make else "cannot be looked for: is its catalog there?"
        raise OutputError(f"output.schema: {tables.settings.schema_} {wrong}") from error


def check_ours(tables: Tables) -> None:
    """Find out whether the tables that exist were written by a version of this program whose tables this one knows.

    Raises:
        OutputError: one was not.
    """
    for name in NAMES:
        if not tables.exists(name):
            continue
        if not tables.is_delta(name):
            _check_parquet(tables)
            continue
        version = tables.known_properties(name).get(PROPERTY)
        if version not in schemas.READABLE:
            found = f"has schema {version}, this program writes {schemas.VERSION}" if version else "was not written by it"
            raise OutputError(f"output: {tables.address(name)} exists and {found}; choose another output or move it away.")


def check_types(tables: Tables, fields: list[T.StructField]) -> None:
    """Find out before any work whether carried columns still have the types that `entities` has for them.

    Raises:
        OutputError: one has another.
    """
    if not fields or not tables.exists("entities"):
        return
    # Delta tells columns apart without their case.
    held = {field.name.lower(): field.dataType.simpleString() for field in tables.read("entities").schema}
    for field in fields:
        kind, before = field.dataType.simpleString(), held.get(field.name.lower())
        if before not in (None, kind):
            raise OutputError(
                f"source.passthrough: {field.name} is {kind} now and {before} in "
                f"{tables.address('entities')}; cast it in a view (source.format table), or choose another output."
            )


def _check_parquet(tables: Tables) -> None:
    for pause in (1, 2, None):
        if _parquet_is_ours(tables):
            return
        if pause is not None:
            time.sleep(pause)  # another run may just be putting a directory in the place of the old one
    raise OutputError(
        f"output: {tables.address('entities')} exists and was not written by this program; "
        "choose another output or move it away."
    )


def _parquet_is_ours(tables: Tables) -> bool:
    try:
        with storage.storage_told_apart():
            ours = set(schemas.OLDEST_ENTITY_COLUMNS) <= set(tables.read("entities").columns)
        return ours and not storage.exists(tables.spark, f"{tables.address('entities')}/_delta_log")
    except (PySparkException, Py4JJavaError, OSError):
        return False


def create(tables: Tables, name: str, schema: T.StructType, properties: dict[str, str] | None = None) -> bool:
    """Create a Delta table with keys NOT NULL, a CHECK constraint and comments on its columns, if it is not there.

    An existing one gets the columns and the properties it lacks.

    Returns:
        Whether it was made.
    """
    # Each look at a table that has them costs a job more: not where rows are few.
    vectors = str(tables.settings.deletion_vectors and name in OF_UNITS).lower()
    if tables.exists(name):
        _evolve(tables, name, schema, {PROPERTY: schemas.VERSION, _VECTORS: vectors})
        return False
    if _left(tables, name):
        # Of `runs` another run may just be the maker; of a catalog's, `drop` says so itself.
        if name == "runs" and tables.root is not None and _made_by_another(tables, name):
            return False
        # What a run left that died before it made the table: Delta takes it for one, or makes none over it.
        tables.drop(name)
    chosen = {PROPERTY: schemas.VERSION, _VECTORS: vectors, **(properties or {})}
    if name in schemas.CONSTRAINTS and not tables.staged:
        chosen[f"delta.constraints.entitymill_{name}"] = schemas.CONSTRAINTS[name]
    if name == "entities":
        # No statistics on what was found: they would lie in the log long after the rows are gone.
        chosen["delta.dataSkippingStatsColumns"] = _STATISTICS
    if name == "annotations":
        _build(tables, name, schema, chosen)
        return True
    columns = ", ".join(map(_column, schema))
    partitions = f"PARTITIONED BY ({_PARTITIONED[name]})" if name in _PARTITIONED else ""
    tables.spark.sql(
        f"CREATE TABLE IF NOT EXISTS {tables.reference(name)} ({columns}) USING delta {partitions} "
        f"TBLPROPERTIES ({_listed(chosen)})"
    )
    return True


def _build(tables: Tables, name: str, schema: T.StructType, properties: dict[str, str]) -> None:
    """By Delta's builder: in SQL a column has a comment alone, and Spark NLP tells its columns by their metadata."""
    from delta.tables import DeltaTable  # noqa: PLC0415  # Spark Connect has none

    builder = DeltaTable.createIfNotExists(tables.spark).addColumns(schema)
    for key, value in properties.items():
        builder = builder.property(key, value)
    if tables.root is not None:
        builder.location(tables.address(name)).execute()
    else:
        builder.tableName(tables.named(name)).execute()


def _made_by_another(tables: Tables, name: str) -> bool:
    """Whether a table comes to be while its directory stands there without a commit."""
    deadline = time.monotonic() + MAKING_SECONDS
    while not tables.exists(name):
        if time.monotonic() >= deadline:
            return False
        time.sleep(MAKING_SECONDS / 20)
    return True


def _left(tables: Tables, name: str) -> bool:
    return tables.root is None or storage.exists(tables.spark, tables.address(name))


def _evolve(tables: Tables, name: str, schema: T.StructType, properties: dict[str, str]) -> None:
    held = {column.lower() for column in tables.read(name).columns}
    if name == "entities" and schemas.NORMALIZED.name not in held:
        # Of 0.1.0: the column and what is in it in one commit, or a death in between would leave it empty for good.
        tables.replace(tables.sized(normalized(tables.read(name)), by="label"), name)
        held.add(schemas.NORMALIZED.name)
    if any(column.lower() not in held for column in schema.names):
        tables.append(tables.spark.createDataFrame([], schema), name)
    before = tables.known_properties(name)
    # As Delta has it where nobody said anything.
    before.setdefault(_VECTORS, "false")
    differing = {key: value for key, value in properties.items() if before.get(key) != value}
    if differing:
        statement = f"ALTER TABLE {tables.reference(name)} SET TBLPROPERTIES ({_listed(differing)})"
        retried(name, lambda: tables.spark.sql(statement))
        tables.forget(name)


def _column(field: T.StructField) -> str:
    required = "" if field.nullable else " NOT NULL"
    comment = f" COMMENT {literal(field.metadata['comment'])}" if "comment" in field.metadata else ""
    return f"{quoted_part(field.name)} {ddl(field.dataType)}{required}{comment}"


def _listed(properties: dict[str, str]) -> str:
    return ", ".join(f"{literal(key)} = {literal(value)}" for key, value in properties.items())
