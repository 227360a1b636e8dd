"""Whether an output can be written, is this program's own, and takes the carried columns: found out before any work."""

from __future__ import annotations

import time

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.platform import storage, storage_faults
from entitymill.platform.sql_names import quoted_in
from entitymill.tables.layout import NAMES, PROPERTY, Tables


def check_place(tables: Tables) -> None:
    """Find out before any work whether tables can be written here; make the catalog schema where it is missing.

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
        with storage_faults.storage_told_apart():
            # Asked for where it is there, too, it is refused to who may make tables alone.
            if not tables.spark.catalog.databaseExists(name):
                tables.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
    except (PySparkException, Py4JJavaError) as error:
        raise OutputError(f"output.schema: {tables.settings.schema_} does not exist and cannot be created.") from error


def check_schema(tables: Tables) -> None:
    """Find out whether the catalog schema is there; where it is not, whether it could be made is not known.

    Raises:
        OutputError: its catalog is not there, or may not be asked.
    """
    name = tables.settings.schema_ or ""
    try:
        with storage_faults.storage_told_apart():
            tables.spark.catalog.databaseExists(quoted_in(tables.spark, name))
    except (PySparkException, Py4JJavaError) as error:
        raise OutputError(f"output.schema: {name} cannot be looked for: is its catalog there?") from error


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
        with storage_faults.storage_told_apart():
            ours = set(schemas.OLDEST_ENTITY_COLUMNS) <= set(tables.read("entities").columns)
        return ours and not storage.exists(tables.spark, f"{tables.address('entities')}/_delta_log")
    except (PySparkException, Py4JJavaError, OSError):
        return False
