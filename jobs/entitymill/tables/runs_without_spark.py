"""Read `runs` and other Delta tables on this machine's disk without Spark, because starting Spark would take ten seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from entitymill.errors import OutputError
from entitymill.run_row import RunRow
from entitymill.settings.sections import OutputSettings
from entitymill.spark.files_on_this_machine import FILE, is_certainly_local, to_local_path
from entitymill.tables import heartbeats

if TYPE_CHECKING:
    from pyarrow.dataset import FileSystemDataset


def read_rows(settings: OutputSettings, conf: Mapping[str, str], last: int) -> list[RunRow] | None:
    """Return the latest rows of `runs`, newest first; None if the caller must read them with Spark instead.

    The result is None if the output is not on this machine's disk, or if the package deltalake is missing or cannot read the
    table. Raise OutputError if the output's directory has no table `runs`.

    Args:
        settings: settings of the output, which locate the tables.
        conf: Spark properties from the settings, which say whether a path without a URI scheme (such as s3a:) is on this
            machine.
        last: maximum number of rows.
    """
    try:
        from deltalake.exceptions import DeltaError  # noqa: PLC0415  # installed only with the extra `report`
    except ModuleNotFoundError:
        return None
    root = find_directory(settings, conf)
    if root is None:
        return None
    if not (root / "runs" / "_delta_log").is_dir():
        raise OutputError(f"output: no run has written {settings.path} yet.")
    try:
        table = open_dataset(root / "runs").to_table()
    except (DeltaError, OSError, ValueError):
        return None
    table = table.sort_by([("started_at", "descending")]).slice(0, last)
    return [RunRow.from_values(row) for row in table.to_pylist()]


def open_dataset(directory: Path) -> FileSystemDataset:
    """Return a Delta table on this machine's disk as a PyArrow dataset.

    By default, PyArrow's threads would read the files with Python code of deltalake. If such a thread were still busy when
    the process ends, the process would abort (https://github.com/delta-io/delta-rs/issues/2184). To prevent this, the
    dataset uses a file system of PyArrow, which needs no Python code.

    Raises:
        ModuleNotFoundError: the Python package deltalake is not installed.
        DeltaError: the table is damaged, or has a feature that deltalake cannot read.
        ValueError: the table is a shallow clone, with files in another table's directory.
    """
    from deltalake import DeltaTable  # noqa: PLC0415  # installed only with the extra `report`
    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem  # noqa: PLC0415  # slow to import

    files = SubTreeFileSystem(str(directory.absolute()), LocalFileSystem())
    dataset = DeltaTable(directory).to_pyarrow_dataset(filesystem=files)
    if any(":" in file.partition("/")[0] for file in dataset.files):
        raise ValueError(f"{directory} is a shallow clone: some of its files are URIs")
    return dataset


def read_heartbeats(settings: OutputSettings, conf: Mapping[str, str]) -> list[RunRow]:
    """Read all heartbeat files without Spark, and return the row of `runs` that each file contains.

    Files of dead runs are included. The list is empty if the output is not on this machine's disk.
    """
    root = find_directory(settings, conf)
    found = []
    for file in (root / f"_{heartbeats.DIRECTORY}").glob("*") if root is not None else ():
        try:
            if file.is_file():  # reading a named pipe would wait for ever
                found.append(heartbeats.parse(file.name, file.read_text(encoding="utf8")))
        except (OSError, ValueError):  # the run has just deleted the file
            continue
    return found


def find_directory(settings: OutputSettings, conf: Mapping[str, str]) -> Path | None:
    """Return the output's directory on this machine's disk; None if there is no such directory, or no access to it.

    The result is also None if the output is in a catalog. `conf` has the Spark properties from the settings, which say
    whether a path without a URI scheme (such as s3a:) is on this machine.
    """
    path = settings.path or ""
    local = to_local_path(path)
    is_local = path.startswith(FILE) or is_certainly_local(path, conf)
    try:
        return local if path and is_local and local.is_dir() else None
    except OSError:  # a parent directory may not be searched, or a name is too long
        return None
