"""`entities` as plain Parquet: a copy of the Delta table's state at the end of a run, put in place by one swap.

The promises are those of the Delta table. A marker file in the copy says which version of it the copy is, and under
which epoch it was written. So a run finds out whether the copy is outdated, and exports again.
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
from entitymill.tables.layout import Tables

log = logging.getLogger(__name__)
_MARKER = "_entitymill_export.json"
"""Readers of Parquet pass over files that begin with an underscore."""
_WRITTEN, _REPLACED = "export_", "replaced_"


@dataclass(frozen=True)
class Marker:
    """Which state of the Delta table an export is.

    epoch: of the run that wrote it.
    version: of the Delta table.
    """

    epoch: int
    version: int


def is_current(tables: Tables) -> bool:
    """Whether the export holds the Delta table's present version."""
    marker = _read_marker(tables, _address(tables))
    return marker is not None and marker.version == tables.version("entities")


def check_export(tables: Tables) -> None:
    """Refuse a directory in the export's place that this program did not write.

    Raises:
        OutputError: there is one.
    """
    address = _address(tables)
    if storage.exists(tables.spark, address) and _read_marker(tables, address) is None:
        raise OutputError(
            f"output: {address} exists and was not written by this program as a Parquet export; choose another output or "
            "move it away."
        )


def restore_previous(tables: Tables) -> None:
    """Put the former export back where a run died between the two renames of a swap."""
    if storage.exists(tables.spark, _address(tables)):
        return
    found = {name: _read_marker(tables, tables.address(name)) for name in tables.hidden_tables(_REPLACED)}
    whole = {name: marker for name, marker in found.items() if marker is not None}
    if whole:
        name = max(whole, key=lambda name: whole[name].version)
        storage.rename(tables.spark, tables.address(name), _address(tables))


def export(tables: Tables, epoch: int, check_now: Callable[[], None]) -> None:
    """Write `entities` as Parquet, and swap the copy in; readers see the old directory, for a moment none, then the new.

    Two renames are not fenced as commits are. A run that slept between its look at the epoch and the renames may replace a
    newer export: it finds that out by the marker of what it replaced, and swaps that back.

    Args:
        epoch: of the run.
        check_now: raises OutputError if another run took over.

    Raises:
        OutputError: another run took over, or the storage refuses a rename.
    """
    spark, entities = tables.spark, _address(tables)
    version = tables.version("entities")
    written, replaced = tables.address(f"{_WRITTEN}{epoch}"), tables.address(f"{_REPLACED}{epoch}")
    frame = spark.read.format("delta").option("versionAsOf", version).load(tables.address("entities"))
    tables.fit_file_size(frame, by="label").write.partitionBy("label").mode("overwrite").parquet(written)
    storage.write(spark, f"{written}/{_MARKER}", json.dumps(asdict(Marker(epoch, version))))
    check_now()
    if storage.exists(spark, entities):
        _rename(tables, entities, replaced)
    try:
        _rename(tables, written, entities)
    except OutputError:
        # A later run has deleted what this one wrote, and this one has moved the later one's export away.
        restore_previous(tables)
        check_now()
        raise
    before = _read_marker(tables, replaced)
    if before is not None and before.epoch > epoch:
        _rename(tables, entities, written)
        _rename(tables, replaced, entities)
    check_now()
    for prefix in (_WRITTEN, _REPLACED):
        for name in tables.hidden_tables(prefix):
            storage.remove(spark, tables.address(name))


def _address(tables: Tables) -> str:
    return f"{tables.root}/entities"


def _read_marker(tables: Tables, directory: str) -> Marker | None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "marker"
        try:
            storage.fetch(tables.spark, f"{directory}/{_MARKER}", copy)
            return Marker(**json.loads(copy.read_text(encoding="utf8")))
        except (OSError, ValueError, TypeError):
            return None


def _rename(tables: Tables, address: str, to: str) -> None:
    try:
        renamed = not storage.exists(tables.spark, to) and storage.rename(tables.spark, address, to)
    except OSError:  # it is gone
        renamed = False
    if not renamed:
        raise OutputError(f"output.path: {address} cannot be renamed to {to}; run again.")
