"""`entities` as plain Parquet, which has no transactions: written beside the old directory, then swapped by two renames."""

from __future__ import annotations

from pyspark.sql import DataFrame

from entitymill.errors import OutputError
from entitymill.platform import storage
from entitymill.tables.layout import Tables
from entitymill.tables.lease import Lease

_WRITTEN, _REPLACED = "written", "replaced"


def swap(tables: Tables, frame: DataFrame, lease: Lease) -> None:
    """Put rows in the place of `entities`: readers see the old directory, for a moment none, then the new.

    Args:
        tables: of the output.
        frame: rows of `entities`.
        lease: of this run: renames cannot be fenced.

    Raises:
        OutputError: another run took over, or the storage refuses a rename.
    """
    # Of its own name: a run that was taken for dead may still be writing.
    written = f"{_WRITTEN}_{lease.epoch}"
    tables.sized(frame, by="label").write.partitionBy("label").mode("overwrite").parquet(tables.address(written))
    lease.check(surely=True)
    if tables.exists("entities"):
        _rename(tables, "entities", _REPLACED)
    _rename(tables, written, "entities")
    storage.remove(tables.spark, tables.address(_REPLACED))


def settle(tables: Tables) -> None:
    """Finish or undo a swap that a dead run left in the middle."""
    if tables.exists(_REPLACED) and not tables.exists("entities"):
        _rename(tables, _REPLACED, "entities")
    storage.remove(tables.spark, tables.address(_REPLACED))
    for name in storage.names(tables.spark, f"{tables.address(_WRITTEN)}_*"):
        storage.remove(tables.spark, tables.address(name.removeprefix("_")))


def _rename(tables: Tables, name: str, to: str) -> None:
    if not storage.rename(tables.spark, tables.address(name), tables.address(to)):
        raise OutputError(f"output.path: {tables.address(name)} cannot be renamed to {tables.address(to)}.")
