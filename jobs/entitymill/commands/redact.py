"""`entitymill redact`: write a copy of the source table, with the mentions of some or all labels masked in its texts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pyspark.sql import SparkSession

from entitymill.commands import common, source_checks
from entitymill.errors import EntityMillError
from entitymill.settings import Settings
from entitymill.spark.session import open_session
from entitymill.tables.redaction import MASK, KnownModel, redact
from entitymill.terminal import progress
from entitymill.terminal.console_text import open_console
from entitymill.workers import engine_openvino
from entitymill.workers.engine_choice import open_engine


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill redact`."""
    built = common.build_parser(
        "redact",
        description="Write a copy of the source as a Delta table, with the mentions in its texts masked.",
        epilog="Entities that the model did not find are not masked: docs/privacy.md.\n"
        "Exit codes: 0 done, 2 bad settings, 3 some documents are new or changed since the last run, 1 anything else.",
    )
    common.add_settings_options(built)
    built.add_argument("--to", metavar="PATH", required=True, help="the table to write: a path, or table:NAME")
    built.add_argument(
        "--labels",
        metavar="LABEL",
        nargs="+",
        default=[],
        help="mask only mentions with these labels, separated by spaces or commas (default: all labels)",
    )
    built.add_argument(
        "--mask",
        default=MASK,
        help=f"text in place of a mention (default: {MASK}); a single character is repeated, which keeps all offsets",
    )
    built.add_argument(
        "--partly",
        action="store_true",
        help="leave out rejected rows, and documents that are new or changed since the last run",
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the redacted table and return the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        """Check the output and the source, open a session, write the redacted table, and print the counts."""
        labels = common.parse_labels(options.labels)
        common.check_output_exists(settings)
        source_checks.check_source(settings)
        progress.begin_step("starting Spark")
        spark = open_session(settings.spark, "entitymill redact")
        progress.begin_step("writing the texts with their mentions masked")
        model = _read_model(spark, settings) if labels else None
        done = redact(spark, settings, options.to, labels, options.mask, partly=options.partly, model=model)
        left = f"; {done.left_out:,} rows left out" if done.left_out else ""
        summary = f"{done.documents:,} documents, {done.mentions:,} mentions masked{left} -> {options.to}"
        open_console().print(summary, highlight=False, soft_wrap=True, markup=False)

    return common.run_with_settings(options, work, "interrupted; nothing was written.")


def _read_model(spark: SparkSession, settings: Settings) -> KnownModel | None:
    """Return the labels of the model that the settings name, and the fingerprint of a run with these settings.

    The fingerprint is a digest of everything, except the text, that decides a document's result. Return None for the engine
    `sparknlp`, or if the model cannot be read.
    """
    if settings.recognition.engine != "openvino":
        return None
    try:
        labels = engine_openvino.list_entity_labels(spark, settings.model.path)
        return KnownModel(labels, open_engine(spark, settings).fingerprint)
    except EntityMillError:
        return None
