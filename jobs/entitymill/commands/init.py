"""`entitymill init`: write a YAML settings file, with comments, for a user's table."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from entitymill import __version__
from entitymill import settings as settings_module
from entitymill.commands import common, source_checks
from entitymill.errors import OutputError, SettingsError
from entitymill.settings import json_schema, sections
from entitymill.settings.layers import ENVIRONMENT_PREFIX
from entitymill.settings.sections import SourceSettings
from entitymill.spark.files_on_this_machine import exists_here, pin_path
from entitymill.terminal import progress
from entitymill.terminal.console_text import visible

if TYPE_CHECKING:  # imports Spark, which --help does not need
    from entitymill.source.column_proposal import Proposal

_OUTPUT_VARIABLES = f"{ENVIRONMENT_PREFIX}OUTPUT__"
_MAX_NAMED = 8
"""Maximum number of alternative columns that a comment in the settings file names."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill init`."""
    built = common.build_parser(
        "init",
        description="Inspect a table, propose its id, text and passthrough columns, and write a commented settings file.",
        epilog="Examples:\n  entitymill init /data/articles\n  entitymill init main.news.articles --to conf/articles.yaml",
    )
    built.add_argument("table", metavar="TABLE", help="a Delta table, Parquet files, or a catalog table's name")
    built.add_argument(
        "--to",
        metavar="FILE",
        type=Path,
        help="YAML file to write (default: the table's name with .yaml, in this directory)",
    )
    built.add_argument("--output", metavar="PATH", help="directory of the entity tables (default: next to the table)")
    built.add_argument("--id", metavar="COLUMN", help="the id column, if the proposed one is wrong")
    built.add_argument("--text", metavar="COLUMN", help="the text column, if the proposed one is wrong")
    built.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY.PATH=VALUE",
        action="append",
        default=[],
        help="a spark.* setting for reading the table; repeatable",
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Inspect the table, write a settings file for it, and return the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], str]) -> None:
        """Start Spark, inspect the table, write a new settings file, and print the proposed columns.

        Before Spark starts, raise SettingsError if the file exists already. Raise SourceError if the table is missing, or
        lacks a column that the user named; if only Spark can read the table, raise SourceError after Spark has started.
        """
        file = options.to or Path(f"{_build_file_stem(options.table)}.yaml")
        if exists_here(file):
            raise SettingsError(f"--to {file} exists already: remove it, or name another file.")
        start_log(None)
        # Ignore environment variables that set the output: they would contradict the placeholder `output.path=x`.
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(_OUTPUT_VARIABLES)}
        chosen = [f"source.path={options.table}", "output.path=x", *options.overrides]
        loaded = settings_module.load(None, chosen, environment)
        if "/" in options.table and "`" not in options.table:  # not the name of a catalog table
            source_checks.check_source_exists(loaded)
            named = [(option, column) for option, column in (("--id", options.id), ("--text", options.text)) if column]
            source_checks.check_columns(options.table, source_checks.list_columns(options.table, loaded.spark.conf), named)
        progress.begin_step("starting Spark")
        from entitymill.source import column_proposal  # imports Spark
        from entitymill.spark import session  # imports Spark

        spark = session.open_session(loaded.spark, "entitymill init")
        progress.begin_step("inspecting the table")
        source, proposal = column_proposal.propose_columns(spark, options.table, options.id, options.text)
        output = options.output and column_proposal.make_absolute(spark, options.output)
        default_output = source.path.rstrip("/").removesuffix(".parquet") + "_entities"
        if source.format == "table":
            default_output = column_proposal.make_absolute(spark, f"entities/{_build_file_stem(source.path)}")
        bad_ids = column_proposal.describe_bad_ids(proposal.key, proposal.rows)
        write_configuration(
            file, render_configuration(file, source, proposal, output or default_output, loaded.spark.jars, bad_ids)
        )
        columns = f"id {proposal.key.name}, text {proposal.text.name}, {len(proposal.passthrough)} passthrough columns"
        note = f"\nnote: {proposal.key.name}: {bad_ids}" if bad_ids else ""
        print(visible(f"wrote {file}: {columns}{note}\nnext: {_format_dry_run(file)}"))

    return common.run_and_report(work, "interrupted; nothing was written.")


def _build_file_stem(table: str) -> str:
    """Return the last part of a table's path, or the table's name, as a file name without suffix.

    Characters other than letters, digits, `-` and `_` are replaced by `_`. If no character is left, return "table".
    """
    last = table.rstrip("/").rpartition("/")[2].removesuffix(".parquet")
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in last) or "table"


def render_configuration(
    file: Path, source: SourceSettings, proposal: Proposal, output: str, jars: str, bad_ids: str
) -> str:
    """Return the text of the settings file for a table.

    The file must mean the same in every working directory. So relative paths of the model and the jars are made absolute if
    they exist in the working directory. Paths that exist in the clone from which this program runs stay relative, because
    the program finds them from everywhere. The paths in `source` and `output` are written unchanged.

    Args:
        file: path of the settings file; the first lines of the file show a command with this path.
        source: path and format of the table.
        proposal: the proposed columns of the table.
        output: directory of the entity tables.
        jars: the setting spark.jars; it is written to the file only if it differs from the default.
        bad_ids: phrase that says what a run does with null and repeated ids; empty if the table has no such ids.
    """
    keys = _name_alternatives(f"{column.name} ({column.kind})" for column in proposal.other_keys)
    texts = _name_alternatives(f"{column.name} ({column.length:,.0f})" for column in proposal.other_texts)
    ids = "unique in the inspected rows" if proposal.key.unique else f"not unique: {bad_ids}"
    model = pin_path(sections.ModelSettings().path)
    pinned = ",".join(pin_path(directory.strip()) for directory in jars.split(","))
    passthrough = [column.name for column in proposal.passthrough]
    lines = [
        json_schema.SCHEMA_COMMENT,
        f"# Written by entitymill {__version__} init, from the first {proposal.rows:,} rows. Check this file, then run:",
        f"#   {_format_dry_run(file)}",
        "source:",
        f"  format: {source.format}",
        f"  path: {_to_yaml(source.path)}",
        f"  id_column: {_to_yaml(proposal.key.name)}  # {proposal.key.kind}, {ids}{keys}",
        f"  text_column: {_to_yaml(proposal.text.name)}  # {proposal.text.length:,.0f} characters on average{texts}",
        f"  passthrough: {_to_yaml(passthrough)}  # copied to every entity row; [] for none",
        *(f"  # not in passthrough: {_to_yaml(name)} is {why}" for name, why in proposal.left_out),
        "  # where: a Spark SQL condition that selects rows; the run ignores all others",
        "output:",
        f"  path: {_to_yaml(output)}  # directory of the entity tables; or, instead of path, schema: a catalog schema",
        "model:",
        f"  path: {_to_yaml(model)}  # a model bundle; entitymill prepare makes one from your own model",
        "# recognition:",
        "#   precision: int8  # several times as fast as f32 on CPUs with VNNI; needs 8-bit weights, as in models/demo",
        *(["spark:", f"  jars: {_to_yaml(pinned)}"] if pinned != sections.SparkSettings().jars else []),
    ]
    return "\n".join(lines) + "\n"


def _format_dry_run(file: Path) -> str:
    """Return the command for a dry run with a settings file, on one line; a path with blanks is quoted for the shell."""
    quoted = shlex.quote(str(file))
    return f"entitymill extract --config {quoted if quoted.isprintable() else json.dumps(str(file))} --dry-run"


def write_configuration(file: Path, text: str) -> None:
    """Write a new settings file and, next to it, the JSON Schema to which the file's first line refers.

    Missing directories are created. An existing schema is not overwritten.

    Raises:
        SettingsError: the file exists already, or its settings are not valid; an invalid new file is deleted.
        OutputError: the file cannot be written.
    """
    schema = file.with_name(json_schema.SCHEMA_FILE)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf8") as opened:
            opened.write(text)
        # An existing schema is never overwritten, even if it is a broken link.
        with contextlib.suppress(FileExistsError), schema.open("x", encoding="utf8") as opened:
            opened.write(json_schema.build_schema())
    except FileExistsError as error:
        raise SettingsError(f"--to {file} exists already: remove it, or name another file.") from error
    except OSError as error:
        raise OutputError(f"--to {file} cannot be written: {error.strerror}; name another file.") from error
    try:
        settings_module.load(file, (), {})
    except SettingsError:
        file.unlink()
        raise


def _name_alternatives(columns: Iterable[str]) -> str:
    """Return the alternatives to a proposed column as the end of a comment, such as "; or title (string)"; empty if none.

    `columns` has the name of each alternative column, with a detail such as its type. At most the first _MAX_NAMED are
    listed; "…" stands for the others.
    """
    others = list(columns)
    more = ", …" if len(others) > _MAX_NAMED else ""
    return f"; or {_to_yaml(', '.join(others[:_MAX_NAMED]))}{more}" if others else ""


def _to_yaml(value: Any) -> str:
    """Return a value as one line of YAML, even if it contains line breaks."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
    return json.dumps(value) if len(text.splitlines()) > 1 else text
