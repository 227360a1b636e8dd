"""Export `entities` as plain Parquet: at the end of a run, copy the Delta table and replace the previous export.

A marker file in each export contains the Delta table's version and the run's epoch (a number that grows with each run).
From this file, later runs see whether the export is outdated.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from entitymill.errors import OutputError
from entitymill.spark import storage
from entitymill.spark.files_on_this_machine import open_private_directory
from entitymill.tables.output_tables import Tables

log = logging.getLogger(__name__)
_MARKER = "_entitymill_export.json"
"""Name of the marker file. Readers of Parquet skip files whose names begin with an underscore."""
_WRITTEN, _REPLACED = "export_", "replaced_"
"""Prefixes of temporary directories: for an export that is being written, and for an old one that was moved away."""


@dataclass(frozen=True)
class Marker:
    """Content of an export's marker file.

    epoch: epoch of the run that wrote the export: the run's number, greater than those of all earlier runs.
    version: version of the Delta table `entities` that the export contains.
    table: id of this Delta table, which changes if somebody removes the table and a run creates it again.
    """

    epoch: int
    version: int
    table: str = ""


def is_current(tables: Tables) -> bool:
    """Return whether the export exists and contains the current version of the Delta table `entities`."""
    marker = _read_marker(tables, _address(tables))
    return marker is not None and (marker.version, marker.table) == (tables.version("entities"), _read_table_id(tables))


def check_export(tables: Tables) -> None:
    """Raise OutputError if the export's directory exists without a marker file: another program must have written it.

    Also raise OutputError if there is a marker file, but it cannot be read.
    """
    address = _address(tables)
    if storage.exists(tables.spark, address) and _read_marker(tables, address) is None:
        if storage.exists(tables.spark, f"{address}/{_MARKER}"):
            raise OutputError(f"output: {address}/{_MARKER} cannot be read; run again, or move {address} away.")
        raise OutputError(
            f"output: {address} exists and was not written by this program as a Parquet export; choose another output or "
            "move it away."
        )


def restore_previous(tables: Tables) -> None:
    """Move the previous export back if there is no export, because a run died while it was replacing the previous one.

    If several old exports were moved away, choose the one whose marker file has the greatest table version. If none has a
    marker file, do nothing.
    """
    if storage.exists(tables.spark, _address(tables)):
        return
    found = {name: _read_marker(tables, tables.address(name)) for name in tables.list_temporary(_REPLACED)}
    complete = {name: marker for name, marker in found.items() if marker is not None}
    if complete:
        name = max(complete, key=lambda name: complete[name].version)
        storage.rename(tables.spark, tables.address(name), _address(tables))


def export(tables: Tables, epoch: int, check_now: Callable[[], None]) -> None:
    """Write `entities` as Parquet, and replace the previous export; for a moment between two renames, there is no export.

    Delta refuses the commits of a run after a later run has taken over, but the storage does not refuse renames. So if this
    run is suspended after `check_now`, it may replace the export of a later run. In this case, this run finds a greater
    epoch in the marker file of the replaced export, and moves that export back.

    At the end, delete the temporary directories (see _WRITTEN and _REPLACED) of this run and of earlier runs.

    Args:
        epoch: epoch of this run: its number, greater than those of all earlier runs.
        check_now: `Lease.check_now`, which raises OutputError if another run took over.

    Raises:
        OutputError: another run took over or replaced the export, another program has written to the export's directory, or
            a rename failed.
    """
    spark, entities = tables.spark, _address(tables)
    version = tables.version("entities")
    written, replaced = tables.address(f"{_WRITTEN}{epoch}"), tables.address(f"{_REPLACED}{epoch}")
    frame = spark.read.format("delta").option("versionAsOf", version).load(tables.address("entities"))
    tables.fit_file_size(frame, by="label").write.partitionBy("label").mode("overwrite").parquet(written)
    storage.write(spark, f"{written}/{_MARKER}", json.dumps(asdict(Marker(epoch, version, _read_table_id(tables)))))
    check_now()
    check_export(tables)  # again: another program may have written there during the run
    if storage.exists(spark, entities):
        _rename(tables, entities, replaced)
        if storage.exists(spark, replaced) and _read_marker(tables, replaced) is None:
            # Another program has just written there. Or another run has just written and is deleting its export, which this
            # run has moved away: then `check_now` raises an error.
            check_now()
            _rename(tables, replaced, entities)
            check_export(tables)
    try:
        _rename(tables, written, entities)
    except OutputError:
        # A later run has deleted this run's export, and this run has moved the later run's export away.
        restore_previous(tables)
        check_now()
        raise
    before = _read_marker(tables, replaced)
    if before is not None and before.epoch > epoch:
        _rename(tables, entities, written)
        _rename(tables, replaced, entities)
    check_now()
    for prefix in (_WRITTEN, _REPLACED):
        for name in tables.list_temporary(prefix):
            number = name.removeprefix(prefix)
            if number.isdecimal() and int(number) <= epoch:  # a later run may be writing its export
                storage.remove(spark, tables.address(name))
    now = _read_marker(tables, entities)
    if now is None or now.epoch != epoch:
        raise OutputError(
            f"output.path: the Parquet export in {entities} is outdated, because an earlier run replaced this run's export; "
            "run again to write a current one."
        )


def _address(tables: Tables) -> str:
    """Return the URI of the export's directory."""
    return f"{tables.root}/entities"


def _read_table_id(tables: Tables) -> str:
    """Return the id that Delta gave the `entities` table; empty if there is no such table."""
    detail = tables.detail("entities")
    return "" if detail is None else str(detail["id"])


def _read_marker(tables: Tables, directory: str) -> Marker | None:
    """Return the marker of the export in a directory; None if there is no readable marker file."""
    with tempfile.TemporaryDirectory(dir=open_private_directory()) as scratch:
        copy = Path(scratch) / "marker"
        try:
            storage.fetch(tables.spark, f"{directory}/{_MARKER}", copy)
            return Marker(**json.loads(copy.read_text(encoding="utf8")))
        except (OSError, ValueError, TypeError):
            return None


def _rename(tables: Tables, address: str, to: str) -> None:
    """Rename the directory `address` to `to`; raise OutputError if `to` exists, or if the storage fails to rename."""
    try:
        renamed = not storage.exists(tables.spark, to) and storage.rename(tables.spark, address, to)
    except OSError:  # the directory no longer exists
        renamed = False
    if not renamed:
        raise OutputError(f"output.path: {address} cannot be renamed to {to}; run again.")
