"""`entities` as plain Parquet, which has no transactions: written beside the old directory, then swapped by two renames."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame

from entitymill import storage
from entitymill.errors import OutputError
from entitymill.tables.layout import Tables

_STAGED, _REPLACED = "staged", "replaced"


def swap(tables: Tables, frame: DataFrame, check: Callable[[], None]) -> None:
    """Put rows in the place of `entities`: readers see the old directory, for a moment none, then the new.

    Args:
        tables: of the output.
        frame: rows of `entities`.
        check: raises where this run may no longer write: renames cannot be fenced.

    Raises:
        OutputError: the storage refuses a rename.
    """
    staged = tables.address(_STAGED)
    tables.sized(frame, by="label").write.partitionBy("label").mode("overwrite").parquet(staged)
    check()
    if tables.exists("entities"):
        _rename(tables, "entities", _REPLACED)
    _rename(tables, _STAGED, "entities")
    tables.drop(_REPLACED)


def settle(tables: Tables) -> None:
    """Finish or undo a swap that a dead run left in the middle."""
    if tables.exists(_REPLACED) and not tables.exists("entities"):
        _rename(tables, _REPLACED, "entities")
    tables.drop(_REPLACED)
    tables.drop(_STAGED)


def _rename(tables: Tables, name: str, to: str) -> None:
    system, source = storage.hadoop_path(tables.spark, tables.address(name))
    _, target = storage.hadoop_path(tables.spark, tables.address(to))
    if not system.rename(source, target):
        raise OutputError(f"output.path: {tables.address(name)} cannot be renamed to {tables.address(to)}.")
