"""Check that the source exists and has the needed columns, before a command spends seconds on starting Spark."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from entitymill import settings as settings_module
from entitymill.commands import common
from entitymill.errors import SourceError
from entitymill.settings.sections import SourceSettings
from entitymill.spark.files_on_this_machine import is_certainly_local

_PATTERN_OR_VERSION = re.compile(r"[*?@]")
"""Matches a wildcard, or the `@` before the version of a Delta table; only Spark checks paths with these characters."""


def check_source(settings: settings_module.Settings) -> None:
    """Check, before Spark starts, that `source.path` exists, and that its table has the columns that the settings name.

    Raise SourceError if the path does not exist or cannot be accessed, or if a column is missing. Columns are checked only
    in tables that `list_columns` can read.
    """
    check_source_exists(settings)
    source = settings.source
    columns = {"id_column": [source.id_column], "text_column": [source.text_column], "passthrough": source.passthrough}
    needed = [(f"source.{setting}", column) for setting, listed in columns.items() for column in listed]
    check_columns(source.path, list_columns(source.path, settings.spark.conf, source.format), needed)


def check_columns(path: str, existing: Collection[str], needed: Iterable[tuple[str, str]]) -> None:
    """Check that a table has the needed columns; raise SourceError for the first that is missing.

    Args:
        path: the table's path, for the message.
        existing: the table's columns; case matters. If there are none, nothing is checked.
        needed: pairs of a setting or option, which begins the message, and the column that it names.
    """
    from entitymill.source.source_columns import suggest_columns  # imports Spark, which --help does not need

    for setting, column in needed if existing else ():
        if column not in existing:
            raise SourceError(f"{setting}: {path} has no column {column}; {suggest_columns(column, sorted(existing))}")


def check_source_exists(settings: settings_module.Settings) -> None:
    """Check, before Spark starts, that `source.path` exists; raise SourceError if not, or if it cannot be accessed.

    Some sources are not checked: catalog tables, paths with wildcards, versions of Delta tables, and paths that may be on
    another machine's disk.
    """
    fault = (
        common.describe_missing_path(settings.source.path, settings.spark.conf) if _is_plain_path(settings.source) else None
    )
    if fault is not None:
        raise SourceError(f"source.path: {fault}; check the path.")


def _is_plain_path(source: SourceSettings) -> bool:
    """Return whether `source.path` is a path without wildcards and without a version of a Delta table."""
    return source.format != "table" and not _PATTERN_OR_VERSION.search(source.path)


def list_columns(path: str, conf: Mapping[str, str], kind: str | None = None) -> list[str]:
    """Return the columns of a Delta table or of Parquet files on this machine's disk, without Spark.

    The list is empty if the path has wildcards or selects a version of a Delta table, if the table may be on another
    machine, or if only Spark can read it.

    Args:
        path: path of the table.
        conf: the setting `spark.conf`, which may select a file system on other machines.
        kind: format of the table as in `source.format`; None to find out whether it is Delta or Parquet.
    """
    if kind == "table" or _PATTERN_OR_VERSION.search(path) or not is_certainly_local(path, conf):
        return []
    table = Path(path)
    try:
        is_delta = (table / "_delta_log").is_dir() if kind is None else kind == "delta"
    except OSError:  # the directory may not be searched
        return []
    return _list_delta_columns(table) if is_delta else _list_parquet_columns(table)


def _list_parquet_columns(path: Path) -> list[str]:
    """Return the columns of a Parquet file, or of the first file of a directory.

    The list is empty if the file cannot be read. It is also empty for a partitioned directory, because its files lack the
    partition columns.
    """
    import pyarrow.parquet as pq  # takes a while, and --help does not need it

    try:
        # Like Spark, skip hidden files.
        file = path if path.is_file() else next((one for one in sorted(path.glob("[!._]*.parquet")) if one.is_file()), None)
        return [] if file is None or any(path.glob("*=*")) else list(pq.read_schema(file).names)
    except (OSError, ValueError):
        return []  # Spark says what is wrong with the file


def _list_delta_columns(path: Path) -> list[str]:
    """Return the columns of a Delta table; an empty list if it cannot be read, or deltalake is not installed."""
    try:
        from deltalake import DeltaTable  # installed only with the extra `report`
        from deltalake.exceptions import DeltaError
    except ImportError:
        return []
    try:
        return [field.name for field in DeltaTable(path).schema().fields]
    except (DeltaError, OSError, ValueError):
        return []  # Spark says what is wrong with the table
