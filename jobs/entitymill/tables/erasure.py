"""`entitymill erase`: documents out of the tables, out of their old files and versions, and a record that they are gone."""

from __future__ import annotations

import argparse
import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from entitymill import command, maintenance, schemas
from entitymill.errors import OutputError, SettingsError, SourceError
from entitymill.source import open_source
from entitymill.tables.layout import Tables

if TYPE_CHECKING:
    from entitymill.settings import Settings

RECORD = "erasures"
MOST = 100_000
"""Ids at a time: the driver holds them, and every task a copy."""


def erase(spark: SparkSession, settings: Settings, ids: Sequence[str]) -> dict[str, int]:
    """Take documents out of all tables, delete the files that held them, and write down what was erased.

    No job runs meanwhile. Doing it again does no harm: what died half-way is done then.

    Args:
        spark: the session.
        settings: of the job that filled the tables.
        ids: doc_id of the documents.

    Returns:
        Table -> rows that were erased from it.

    Raises:
        OutputError: there are no tables, or `entities` is plain Parquet and has some of the documents still.
        SourceError: the source has some of them still, and the next run would bring them back.
    """
    tables = Tables(spark, settings.output)
    if not tables.exists("documents"):
        raise OutputError(f"output: no entity tables at {tables.place}.")
    tables.check_ours()
    digests = {one: hashlib.sha256(one.encode()).hexdigest() for one in ids}
    wanted = spark.createDataFrame([(one,) for one in digests], "doc_id string")
    _check_source(spark, settings, wanted)
    name = f"erasure-{uuid.uuid4().hex[:6]}"
    with maintenance.alone(tables, settings, name) as commits:
        held = {table: _held(tables, table, wanted) for table in maintenance.OF_DOCUMENTS if tables.exists(table)}
        if tables.parquet and held.get("entities"):
            raise OutputError(
                f"output: {tables.address('entities')} is plain Parquet and has {len(held['entities'])} of the documents "
                "still: run the job, which swaps in files without them, and erase then."
            )
        for table, found in held.items():
            if found:
                commits.change(table, partial(_delete, tables, table, wanted))
        maintenance.purge_all(tables, 0)
        tables.create(RECORD, schemas.ERASURES)
        now = datetime.now(timezone.utc)
        record = [
            (name, now, digest, table, found.get(one, 0)) for table, found in held.items() for one, digest in digests.items()
        ]
        commits.append(spark.createDataFrame(record, schemas.ERASURES).coalesce(1), RECORD)
    return {table: sum(found.values()) for table, found in held.items()}


def _check_source(spark: SparkSession, settings: Settings, wanted: DataFrame) -> None:
    left = open_source(spark, settings.source).rows.join(F.broadcast(wanted), "doc_id", "left_semi")
    found = [row["doc_id"] for row in left.select("doc_id").distinct().limit(1000).collect()]
    if found:
        raise SourceError(
            f"{settings.source.path} has {len(found)} of the documents still ({min(found)!r} for one), and the next run "
            "would bring them back: delete them there first, old files and versions too."
        )


def _held(tables: Tables, name: str, wanted: DataFrame) -> dict[str, int]:
    """doc_id -> rows."""
    found = tables.read(name).join(F.broadcast(wanted), "doc_id", "left_semi").groupBy("doc_id").count().collect()
    return {row["doc_id"]: row["count"] for row in found}


def _delete(tables: Tables, name: str, wanted: DataFrame) -> None:
    tables.exchange(name, wanted, tables.read(name).limit(0))


def _read(options: argparse.Namespace) -> list[str]:
    ids = list(options.ids)
    if options.ids_file is not None:
        try:
            ids += options.ids_file.read_text(encoding="utf8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--ids-file: {options.ids_file} cannot be read: {error}.") from error
    ids = [one for one in dict.fromkeys(ids) if one]
    if not ids or len(ids) > MOST:
        raise SettingsError(f"--ids, --ids-file: {len(ids):,} ids are named; name 1 to {MOST:,} at a time.")
    return ids


def parser() -> argparse.ArgumentParser:
    """The options of `entitymill erase`."""
    built = argparse.ArgumentParser(
        prog="entitymill erase",
        description="Erase documents from the tables of a job: rows, the files and old versions that held them; and write "
        "down in the table erasures which were erased where, by the SHA-256 of their ids.",
        epilog="Delete them from the source first. All older versions of the tables go with them: docs/privacy.md. "
        "Exit codes: 0 done, 2 bad settings, 3 the source has them still, 1 anything else.",
    )
    command.add_settings(built)
    built.add_argument("--ids", metavar="ID", nargs="+", default=[], help="ids of the documents")
    built.add_argument("--ids-file", metavar="FILE", type=Path, help="a file with an id a line")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Erase documents; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        ids = _read(options)
        from entitymill.session import open_session  # noqa: PLC0415  # not for --help

        erased = erase(open_session(settings.spark, "entitymill erase"), settings, ids)
        shown = Table("table", "rows erased")
        for name, rows in erased.items():
            shown.add_row(name, f"{rows:,}")
        Console().print(shown)
        Console().print(f"{len(ids):,} ids looked for; recorded in {RECORD}", highlight=False)

    return command.with_settings(options, work, "interrupted; what was erased stays so, and doing it again does no harm.")
