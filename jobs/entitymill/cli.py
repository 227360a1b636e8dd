"""Command line of `entitymill`: find the command that the user names, and run it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches

from entitymill import __version__
from entitymill.commands.common import exit_with
from entitymill.errors import SettingsError
from entitymill.spark import installation
from entitymill.terminal.console_text import visible

COMMANDS = {
    "extract": ("entitymill.commands.extract", "run the job: read a text table, write entity tables"),
    "tag": ("entitymill.commands.tag", "mark the entities in texts and files, or print them as JSON; no Spark needed"),
    "benchmark": ("entitymill.commands.benchmark", "find the best precision for this machine; no Spark needed"),
    "sample": ("entitymill.commands.sample", "write a sample of mentions to a file, for people to check"),
    "evaluate": (
        "entitymill.commands.evaluate",
        "score an entity table against a gold table, or a sample that people checked",
    ),
    "prepare": (f"{installation.MODELS}.prepare_command", "make a model bundle from a trained model"),
    "init": ("entitymill.commands.init", "inspect your table, and write a settings file for it"),
    "fetch-jars": ("entitymill.commands.fetch_jars", "fetch Delta's jars for local runs, with Maven or Ivy"),
    "maintain": ("entitymill.commands.maintain", "compact and clean up entity tables"),
    "redact": ("entitymill.commands.redact", "write a copy of the source table with the mentions in its texts masked"),
    "erase": ("entitymill.commands.erase", "erase documents from the tables and their old files, and record the erasure"),
    "runs": ("entitymill.commands.list_runs", "list the runs of an output: their progress, how they ended, and why"),
    "report": (f"{installation.REPORTS}.report_command", "write an HTML page about the entity tables and the latest run"),
}
"""For each command: the module whose function `main` runs the command, and the description that the help shows."""
EXAMPLES = (
    'entitymill tag "Angela Merkel flew to Paris."',
    "entitymill init /data/articles --to conf/articles.yaml",
    "entitymill extract --config conf/articles.yaml --dry-run",
    "entitymill extract --config conf/articles.yaml --set recognition.precision=int8",
    "entitymill runs --config conf/articles.yaml",
    "entitymill prepare build/distilbert-NER build/models/ner --precision int8",
    "entitymill maintain --config conf/articles.yaml optimize",
    "entitymill sample --config conf/articles.yaml --to sample.csv --show-text",
    "entitymill redact --config conf/articles.yaml --labels PER --to /data/articles_redacted",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, and return the exit code.

    If `arguments` is None, use the arguments of this process. If the first argument is an option, run `extract`. Without
    arguments, and for `help`, -h and --help, print the help; for --version, print the version. If the command is unknown or
    cannot be imported, print an error to standard error, and return a nonzero exit code.
    """
    remaining = list(sys.argv[1:] if arguments is None else arguments)
    if not remaining or remaining[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if remaining[0] == "--version":
        print(f"entitymill {__version__}")
        return 0
    name = "extract" if remaining[0].startswith("-") else remaining.pop(0)
    if name not in COMMANDS:
        similar = get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean `entitymill {similar[0]}`?" if similar else ""
        print(f"error: {visible(name)} is not a command.{hint}\n\n{_help()}", file=sys.stderr)
        return 2
    try:
        command = installation.import_extension(COMMANDS[name][0], f"entitymill {name}")
    except SettingsError as error:
        print(visible(f"error: {error}"), file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(visible(f"error: {installation.explain_missing_package(error) or error}"), file=sys.stderr)
        return 1
    return int(command.main(remaining))


def _help() -> str:
    """Return the help of `entitymill`: its usage, its commands and some examples."""
    lines = [f"  {name:12}{summary}" for name, (_, summary) in COMMANDS.items()]
    usage = "usage: entitymill COMMAND [OPTION …]   or   entitymill --version"
    examples = [f"  {example}" for example in EXAMPLES]
    closing = "entitymill COMMAND --help lists the options of a command."
    return "\n".join([usage, "", *lines, "", "examples:", *examples, "", closing])


def entry() -> None:
    """Run `main` for the console script `entitymill`, and end the program with the exit code that `main` returns."""
    exit_with(main())
