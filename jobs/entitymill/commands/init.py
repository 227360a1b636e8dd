"""`entitymill init`: a commented YAML of settings for a table of the user's."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from entitymill import __version__
from entitymill import settings as settings_module
from entitymill.commands import common
from entitymill.errors import OutputError, SettingsError
from entitymill.settings import json_schema, sections
from entitymill.settings.sections import SourceSettings
from entitymill.terminal.console_text import visible

if TYPE_CHECKING:  # --help needs no Spark
    from entitymill.source.column_proposal import Proposal

_SHOWN = 8
"""Other columns that a comment names."""


def parser() -> argparse.ArgumentParser:
    """The options of `entitymill init`."""
    built = argparse.ArgumentParser(
        prog="entitymill init",
        description="Look at a table, propose its id, text and carried columns, and write a commented YAML of settings.",
        epilog="Examples: entitymill init /data/articles   entitymill init main.news.articles --to conf/articles.yaml",
    )
    built.add_argument("table", metavar="TABLE", help="a Delta table, Parquet files, or a catalog table's name")
    built.add_argument("--to", metavar="FILE", type=Path, help="YAML to write (default: the table's name.yaml, here)")
    built.add_argument("--output", metavar="PATH", help="directory of the entity tables (default: beside the table)")
    built.add_argument("--id", metavar="COLUMN", help="the id column, where you know better")
    built.add_argument("--text", metavar="COLUMN", help="the text column, where you know better")
    built.add_argument(
        "--set", dest="overrides", metavar="KEY.PATH=VALUE", action="append", default=[], help="of spark.*, for this look"
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Look and write; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], str]) -> None:
        file = options.to or Path(f"{_name(options.table)}.yaml")
        if file.exists():
            raise SettingsError(f"--to {file} exists already: remove it, or name another file.")
        start_log(None)
        loaded = settings_module.load(None, [f"source.path={options.table}", "output.path=x", *options.overrides])
        from entitymill.source import column_proposal  # Spark
        from entitymill.spark import session  # Spark

        spark = session.open_session(loaded.spark, "entitymill init")
        source, found = column_proposal.propose_columns(spark, options.table, options.id, options.text)
        write(file, render(file, source, found, options.output))
        columns = f"id {found.key.name}, text {found.text.name}, {len(found.passthrough)} carried columns"
        print(visible(f"wrote {file}: {columns}\nnext: entitymill extract --config {file} --dry-run"))

    return common.reporting(work, "interrupted; nothing was written.")


def _name(table: str) -> str:
    """Of a file, for a table's path or name."""
    last = table.rstrip("/").rpartition("/")[2].removesuffix(".parquet")
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in last) or "table"


def render(file: Path, source: SourceSettings, found: Proposal, output: str | None) -> str:
    """The YAML's text.

    Args:
        file: it is for.
        source: the table.
        found: in it.
        output: directory of the entity tables; none: beside the table.
    """
    beside = source.path.rstrip("/").removesuffix(".parquet") + "_entities"
    place = output or (f"entities/{_name(source.path)}" if source.format == "table" else beside)
    keys = _also(f"{column.name} ({column.kind})" for column in found.other_keys)
    texts = _also(f"{column.name} ({column.length:,.0f})" for column in found.other_texts)
    unique = "unique" if found.key.unique else "not unique, or null in places,"
    lines = [
        json_schema.SCHEMA_COMMENT,
        f"# Written by entitymill {__version__} init, after a look at the first {found.rows:,} rows. Check it, then:",
        f"#   entitymill extract --config {_flow(str(file))} --dry-run",
        "source:",
        f"  format: {source.format}",
        f"  path: {_flow(source.path)}",
        f"  id_column: {_flow(found.key.name)}  # {found.key.kind}, {unique} in the rows looked at{keys}",
        f"  text_column: {_flow(found.text.name)}  # {found.text.length:,.0f} characters on average{texts}",
        f"  passthrough: {_flow([column.name for column in found.passthrough])}  # copied to every entity row; [] for none",
        *(f"  # not carried: {_flow(name)} is {why}" for name, why in found.left_out),
        "  # where: a Spark SQL condition; rows that fail it do not exist for this run",
        "output:",
        f"  path: {_flow(place)}  # directory of the entity tables; or in its place schema: a catalog schema",
        "model:",
        f"  path: {sections.ModelSettings().path}  # a model bundle; entitymill prepare makes one of your own model",
        "segmentation:",
        f"  model: {sections.SegmentationSettings().model}",
        "# recognition:",
        "#   precision: int8  # several times as fast as f32, where the model's weights are 8-bit, as the carried one's are",
    ]
    return "\n".join(lines) + "\n"


def write(file: Path, text: str) -> None:
    """Write a YAML that is not there yet, and beside it the schema that it names.

    Raises:
        SettingsError: it is there, or cannot be loaded: then it is not left behind.
        OutputError: it cannot be written.
    """
    schema = file.with_name(json_schema.SCHEMA_FILE)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf8") as opened:
            opened.write(text)
        # One that is there stays, be it a link to nowhere.
        with contextlib.suppress(FileExistsError), schema.open("x", encoding="utf8") as opened:
            opened.write(json_schema.build_schema())
    except FileExistsError as error:
        raise SettingsError(f"--to {file} exists already: remove it, or name another file.") from error
    except OSError as error:
        raise OutputError(f"--to {file} cannot be written: {error.strerror}.") from error
    try:
        settings_module.load(file, (), {})
    except SettingsError:
        file.unlink()
        raise


def _also(others: Iterable[str]) -> str:
    named = list(others)
    more = ", …" if len(named) > _SHOWN else ""
    return f"; or {_flow(', '.join(named[:_SHOWN]))}{more}" if named else ""


def _flow(value: Any) -> str:
    """A value in one line of YAML, any character of a name in it escaped."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
    return json.dumps(value) if "\n" in text else text
