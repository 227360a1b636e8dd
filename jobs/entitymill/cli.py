"""`entitymill`: one command for all there is to do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from entitymill import __version__
from entitymill.command import leave

COMMANDS = {
    "extract": ("command", "text table -> entity tables: the job"),
    "tag": ("tag", "texts and files -> marked text, or JSON; no Spark"),
    "evaluate": ("evaluation", "entity table against gold -> precision, recall, F1"),
    "prepare": ("preparation", "a trained model -> a model bundle"),
    "maintain": ("maintenance", "entity tables -> the same, compact and clean"),
    "report": ("reporting.command", "entity tables -> one HTML page about them and the latest run"),
}
"""Name -> the module whose `main` it is, and what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of COMMANDS; returns the exit code. Options without a command are those of `extract`, as in 0.1.0."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if given[0] == "--version":
        print(f"entitymill {__version__}")
        return 0
    name = "extract" if given[0].startswith("-") else given.pop(0)
    if name not in COMMANDS:
        print(f"error: {name} is not a command.\n\n{_help()}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"entitymill.{COMMANDS[name][0]}").main(given))


def _help() -> str:
    lines = [f"  {name:10}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: entitymill COMMAND [OPTION …]", "", *lines, "", "entitymill COMMAND --help lists its options."]
    )


def entry() -> None:
    """For a wheel's console script."""
    leave(main())
