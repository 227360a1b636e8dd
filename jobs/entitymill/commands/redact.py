"""`entitymill redact`: the source's texts with the mentions of some labels masked, as a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from entitymill.commands import common
from entitymill.settings import Settings
from entitymill.spark.session import open_session
from entitymill.tables.privacy import MASK, redact
from entitymill.terminal.console_text import open_console


def parser() -> argparse.ArgumentParser:
    """The options of `entitymill redact`."""
    built = argparse.ArgumentParser(
        prog="entitymill redact",
        description="Write the source's texts with their mentions masked, as a Delta table of the same columns.",
        epilog="What the model did not find is not masked: docs/privacy.md. Exit codes: 0 done, 2 bad settings, 3 documents "
        "that no run has seen as they are now, 1 anything else.",
    )
    common.add_settings(built)
    built.add_argument("--to", metavar="PATH", required=True, help="the table to write: a path, or table:NAME")
    built.add_argument("--labels", metavar="LABEL", nargs="+", default=[], help="mask these alone (default: all)")
    built.add_argument(
        "--mask", default=MASK, help=f"in a mention's place (default: {MASK}); one character is repeated, so offsets stay"
    )
    built.add_argument("--partly", action="store_true", help="leave out what no run has seen as it is now, or refused")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Redact; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        spark = open_session(settings.spark, "entitymill redact")
        done = redact(spark, settings, options.to, options.labels, options.mask, partly=options.partly)
        left = f"; {done.left_out:,} rows left out" if done.left_out else ""
        said = f"{done.documents:,} documents, {done.mentions:,} mentions masked{left} -> {options.to}"
        open_console().print(said, highlight=False, soft_wrap=True, markup=False)

    return common.with_settings(options, work, "interrupted; nothing was written.")
