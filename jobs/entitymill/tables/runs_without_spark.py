"""Read the `runs` table of an output on this machine's disk without Spark, which takes ten seconds to start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from entitymill.errors import OutputError
from entitymill.settings.sections import OutputSettings
from entitymill.spark.local_disk import FILE, is_certainly_local, to_local_path
from entitymill.tables.heartbeats import DIRECTORY


def read_rows(
    settings: OutputSettings, conf: Mapping[str, str], columns: Sequence[str], last: int
) -> list[dict[str, Any]] | None:
    """Return the latest rows of `runs`, newest first; None if they can only be read with Spark.

    Times are datetimes without tzinfo in this machine's time zone, as Spark returns them. Columns that the table lacks are
    None. Raise OutputError if no run has written the tables yet.

    Args:
        settings: where the tables are.
        conf: Spark properties from the settings.
        columns: names of the columns to read.
        last: maximum number of rows.
    """
    try:
        from deltalake import DeltaTable  # noqa: PLC0415  # installed only with the extra `report`
        from deltalake.exceptions import DeltaError  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    root = find_directory(settings, conf)
    if root is None:
        return None
    if not (root / "runs" / "_delta_log").is_dir():
        raise OutputError(f"output: no run has written {settings.path} yet.")
    try:
        table = DeltaTable(root / "runs").to_pyarrow_table()
    except (DeltaError, OSError, ValueError):
        return None
    rows = table.sort_by([("started_at", "descending")]).slice(0, last).to_pylist()
    return [{name: _convert(row.get(name)) for name in columns} for row in rows]


def read_heartbeats(settings: OutputSettings, conf: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return run id -> row for each run that has a heartbeat file, even if the run is dead, as `heartbeats.read_all` does.

    The dict is empty if the output is not on this machine's disk.
    """
    root = find_directory(settings, conf)
    found = {}
    for file in (root / f"_{DIRECTORY}").glob("*") if root is not None else ():
        try:
            found[file.name] = dict(json.loads(file.read_text(encoding="utf8")))
        except (OSError, ValueError):  # the run has just deleted the file, or is writing it
            continue
    return found


def find_directory(settings: OutputSettings, conf: Mapping[str, str]) -> Path | None:
    """Return the output's directory on this machine's disk; None if it is elsewhere, in a catalog, or not accessible."""
    path = settings.path or ""
    local = to_local_path(path)
    is_local = path.startswith(FILE) or is_certainly_local(path, conf)
    try:
        return local if path and is_local and local.is_dir() else None
    except OSError:  # a parent directory may not be searched, or a name is too long
        return None


def _convert(value: Any) -> Any:
    """Convert a value from deltalake to the one that Spark would return: local times without tzinfo, and maps as dicts."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone().replace(tzinfo=None)
    return dict(value) if isinstance(value, list) else value
