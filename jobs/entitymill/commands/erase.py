"""`entitymill erase`: erase documents from the tables and from their old files and versions, and record the erasure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from entitymill.commands import common, source_checks
from entitymill.errors import SettingsError
from entitymill.run import erasure
from entitymill.run.erasure import MAX_IDS, RECORD, Findings
from entitymill.settings import Settings
from entitymill.spark.session import open_session
from entitymill.terminal import progress
from entitymill.terminal.console_text import open_console


def _read_ids(options: argparse.Namespace) -> list[str]:
    """Return the ids in --ids and in the file of --ids-file (one per line), without empty ids and duplicates.

    Raise SettingsError if the file cannot be read, or if there is no id or more than MAX_IDS.
    """
    ids = list(options.ids)
    if options.ids_file is not None:
        try:
            ids += options.ids_file.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--ids-file: {options.ids_file} cannot be read: {error}.") from error
    ids = [doc_id for doc_id in dict.fromkeys(ids) if doc_id]
    if not ids or len(ids) > MAX_IDS:
        raise SettingsError(f"--ids, --ids-file: got {len(ids):,} ids; name 1 to {MAX_IDS:,} at a time.")
    return ids


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill erase`."""
    built = common.build_parser(
        "erase",
        description="Erase documents from the tables of a job: their rows, the files and old versions that contain them, "
        "and the error messages of runs that contain their ids. The table erasures records how much was erased from which "
        "table, with the SHA-256 of the ids.",
        epilog="Delete the documents from the source first. All older versions of the tables are deleted, too: "
        "docs/privacy.md. On a terminal the command asks for confirmation first.\n"
        "Exit codes: 0 done, 2 bad settings or tables of another source, 3 the documents are still in the source, "
        "1 anything else.",
    )
    common.add_settings_options(built)
    built.add_argument("--ids", metavar="ID", nargs="+", default=[], help="ids of the documents")
    built.add_argument("--ids-file", metavar="FILE", type=Path, help="a file with one id per line")
    built.add_argument("--dry-run", action="store_true", help="print what would be erased, and change nothing")
    built.add_argument(
        "--yes", action="store_true", help="do not ask for confirmation; required without a terminal, except with --dry-run"
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Find the documents, erase them after a confirmation, and return the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        """Read the ids, and erase the documents."""
        _erase(settings, _read_ids(options), options, open_console(highlight=False))

    return common.run_with_settings(options, work, "interrupted; erased rows stay erased, and it is safe to run this again.")


def _erase(settings: Settings, ids: list[str], options: argparse.Namespace, console: Console) -> None:
    """Start Spark, find the documents, ask for confirmation, erase them, and print the number of erased rows per table.

    Do not ask if --yes is set, or if nothing was found and no run is active. Even if nothing was found, call
    `erasure.erase`, which searches again, and completes an interrupted erasure of these ids. In a dry run, or if the user
    does not confirm, change nothing.

    Raise SettingsError if there is no terminal on which to ask, and neither --yes nor --dry-run is set.
    """
    if not (options.yes or options.dry_run or _is_on_terminal()):
        raise SettingsError(
            "--yes: nothing was erased, because stdin or stdout is not a terminal on which the command could ask; "
            "check with --dry-run what would be erased, then add --yes."
        )
    common.check_output_exists(settings)
    source_checks.check_source(settings)
    progress.begin_step("starting Spark")
    spark = open_session(settings.spark, "entitymill erase")
    progress.begin_step("looking for the documents")
    output = str(settings.output.path or settings.output.schema_)
    findings = erasure.find_documents(spark, settings, ids)
    progress.end_step()
    nothing = f"None of the {len(ids):,} ids is in documents, entities, rejects or runs of {output}"
    nothing += f"{_describe_old_files(findings)}: nothing was erased; "
    if findings.empty and options.dry_run:
        advice = "a run may be active, and may still publish the documents." if findings.run_is_active else "check the ids."
        console.print(nothing + advice, markup=False, soft_wrap=True)
        return
    if options.dry_run:
        active = "; a run may be active, and an erasure would wait for it" if findings.run_is_active else ""
        console.print(
            f"would erase {_describe_findings(findings)} of {output}; nothing was changed{active}",
            markup=False,
            soft_wrap=True,
        )
        return
    certain = findings.empty and not findings.run_is_active
    if not certain and not options.yes and not _confirm(findings, output, console):
        console.print("nothing was changed")
        return
    progress.begin_step("waiting until no run is active, then erasing")
    shown = Table("table", "rows erased")
    erased = erasure.erase(spark, settings, ids, findings)
    if not erased:
        progress.end_step()
        ended = "no run is active any more, and none of the ids was found; nothing was erased"
        console.print(ended if findings.run_is_active else f"{nothing}check the ids.", markup=False, soft_wrap=True)
        return
    for name, rows in erased.items():
        shown.add_row(name, f"{rows:,}")
    console.print(shown)
    console.print(f"erased {len(ids):,} ids; recorded in the table {RECORD}")


def _describe_old_files(findings: Findings) -> str:
    """Return a phrase about the files of older table versions, for the message that no table contains the ids.

    The phrase says either that these files do not contain the ids, or that some of them cannot be searched.
    """
    if findings.in_old_files is None:
        return " (some files of older versions cannot be searched; `entitymill maintain … purge` deletes them)"
    return ", nor in a file of an older version"


def _describe_findings(findings: Findings) -> str:
    """Return a phrase, for questions and messages to the user, with the number of rows to be erased from each table.

    Rows of `runs` stay: the phrase says in how many of them a text contains one of the ids. A row
    counts once for each id in it.
    """
    rows = findings.totals()
    nouns = {"documents": "documents", "entities": "mentions", "rejects": "rejects"}
    counts = ", ".join(f"{rows.get(table, 0):,} {noun}" for table, noun in nouns.items())
    messages = f", messages in {rows['runs']:,} rows of runs" if rows.get("runs") else ""
    return f"{counts}{messages} and all older versions of the tables"


def _is_on_terminal() -> bool:
    """Return whether this command can ask the user, because both stdin and stdout are a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _confirm(findings: Findings, output: str, console: Console) -> bool:
    """Ask the user whether to continue with the erasure, and return whether the answer is `y` or `yes`.

    If nothing was found yet, but a run may be active, the question is whether to wait for this run.
    """
    question = f"Erase {_describe_findings(findings)} of {output}?"
    if findings.empty:
        question = (
            f"Nothing was found in {output} yet, but a run may be active. Wait, and erase these ids if it publishes them?"
        )
    console.print(f"{question} [y/N]", end=" ", markup=False, soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
