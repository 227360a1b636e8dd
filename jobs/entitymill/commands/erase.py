"""`entitymill erase`: documents out of the tables, out of their old files and versions, and a record that they are gone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from entitymill.commands import common
from entitymill.errors import SettingsError
from entitymill.settings import Settings
from entitymill.spark.session import open_session
from entitymill.tables.privacy import MOST, RECORD, erase
from entitymill.terminal.console_text import open_console


def _read(options: argparse.Namespace) -> list[str]:
    ids = list(options.ids)
    if options.ids_file is not None:
        try:
            ids += options.ids_file.read_text(encoding="utf-8-sig").split("\n")
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
    common.add_settings(built)
    built.add_argument("--ids", metavar="ID", nargs="+", default=[], help="ids of the documents")
    built.add_argument("--ids-file", metavar="FILE", type=Path, help="a file with an id a line")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Erase documents; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        ids = _read(options)
        erased = erase(open_session(settings.spark, "entitymill erase"), settings, ids)
        shown = Table("table", "rows erased")
        for name, rows in erased.items():
            shown.add_row(name, f"{rows:,}")
        open_console().print(shown)
        open_console().print(f"{len(ids):,} ids looked for; recorded in {RECORD}", highlight=False)

    return common.with_settings(options, work, "interrupted; what was erased stays so, and doing it again does no harm.")
