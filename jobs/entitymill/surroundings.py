"""What lies around a source and an output, asked of the storage: `overlap` says what it means."""

from __future__ import annotations

from pyspark.sql import SparkSession

from entitymill import overlap, storage
from entitymill.errors import SettingsError


def check_parquet(spark: SparkSession, path: str) -> None:
    """Refuse files that are to be read as plain Parquet and are a Delta table's, some of whose rows may be deleted.

    Raises:
        SettingsError: the path is that of a Delta table, or of files in one.
        OSError: its scheme is unknown, or that scheme's client is not set up.
    """
    table = overlap.table_around(storage.qualify(spark, path), lambda address: storage.exists(spark, address))
    if table is not None:
        raise SettingsError(
            f"source.format: parquet would read deleted rows of {path}, since {table} is a Delta table: "
            "set source.format=delta."
        )


def check_output(spark: SparkSession, location: str, output: str) -> None:
    """Refuse an output that lies in its source, around it, or in another table.

    Args:
        spark: the session.
        location: of the source.
        output: `output.path`.

    Raises:
        SettingsError: it does.
        OSError: the output's scheme is unknown, or that scheme's client is not set up.
    """
    address = storage.qualify(spark, output)
    overlap.check(location, address, lambda at: storage.exists(spark, at), lambda at: storage.names(spark, at))
