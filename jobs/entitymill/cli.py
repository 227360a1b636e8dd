"""`entitymill`: one command for all there is to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from entitymill import __version__, extensions
from entitymill.commands.common import leave
from entitymill.errors import SettingsError
from entitymill.spark import requirements
from entitymill.terminal.console_text import visible

COMMANDS = {
    "extract": ("entitymill.commands.extract", "text table -> entity tables: the job"),
    "tag": ("entitymill.commands.tag", "texts and files -> marked text, or JSON; no Spark"),
    "evaluate": ("entitymill.commands.evaluate", "entity table against gold -> precision, recall, F1"),
    "prepare": (f"{extensions.MODELS}.prepare", "a trained model -> a model bundle"),
    "init": ("entitymill.commands.init", "a table of yours -> a YAML of settings for it"),
    "fetch-jars": ("entitymill.commands.fetch_jars", "Delta's jars for local runs, by Maven or Ivy"),
    "maintain": ("entitymill.commands.maintain", "entity tables -> the same, compacted and cleaned"),
    "redact": ("entitymill.commands.redact", "the source's texts with their mentions masked, as a table"),
    "erase": ("entitymill.commands.erase", "remove documents from the tables and their old files, and record it"),
    "runs": ("entitymill.commands.list_runs", "the runs of an output: progress, how they ended, and why"),
    "report": (f"{extensions.REPORTS}.report", "entity tables -> one HTML page about them and the latest run"),
}
"""Name -> the module whose `main` it is, and what it does."""
EXAMPLES = (
    'entitymill tag "Angela Merkel flew to Paris."',
    "entitymill init /data/articles --to conf/articles.yaml",
    "entitymill extract --config conf/articles.yaml --dry-run",
    "entitymill extract --config conf/articles.yaml --set recognition.precision=int8",
    "entitymill runs --config conf/articles.yaml",
    "entitymill prepare build/distilbert-NER build/models/ner --precision int8",
    "entitymill maintain --config conf/articles.yaml optimize",
    "entitymill redact --config conf/articles.yaml --labels PER --to /data/articles_redacted",
)


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
        print(f"error: {visible(name)} is not a command.\n\n{_help()}", file=sys.stderr)
        return 2
    try:
        command = extensions.load(COMMANDS[name][0], f"entitymill {name}")
    except SettingsError as error:
        print(visible(f"error: {error}"), file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(visible(f"error: {requirements.explain_missing_package(error) or error}"), file=sys.stderr)
        return 1
    return int(command.main(given))


def _help() -> str:
    lines = [f"  {name:12}{what}" for name, (_, what) in COMMANDS.items()]
    usage = "usage: entitymill COMMAND [OPTION …]   or   entitymill --version"
    shown = [f"  {example}" for example in EXAMPLES]
    closing = "entitymill COMMAND --help lists its options."
    return "\n".join([usage, "", *lines, "", "examples:", *shown, "", closing])


def entry() -> None:
    """For a wheel's console script."""
    leave(main())
