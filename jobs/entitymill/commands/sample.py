"""`entitymill sample`: write a sample of mentions to a file, for people to check."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitymill.commands import common, source_checks
from entitymill.errors import SettingsError
from entitymill.settings import Settings
from entitymill.terminal import conll_files, progress, review_file_writer
from entitymill.terminal.console_text import open_console
from entitymill.terminal.review_file_writer import Mention, Sentence

if TYPE_CHECKING:  # imports Spark, which --help does not need
    from entitymill.tables.mention_sample import MentionSample

COUNT = 200
"""Default number of mentions in a sample."""
MAX_MENTIONS = 100_000
_STRATEGIES = ("random", "least-confident", "rare")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill sample`."""
    built = common.build_parser(
        "sample",
        description="Draw mentions from the entity table and write them to a file, so that people can check them. "
        "`entitymill evaluate --reviewed FILE` reads the corrected file.",
        epilog="Only a random sample says how precise the table is; the other strategies look for errors.\n"
        "Without --show-text the file has ids and offsets, but no text of documents.\n"
        "Exit codes: 0 done, 2 bad settings, 3 bad input, 1 anything else.",
    )
    common.add_settings_options(built)
    built.add_argument("--to", metavar="FILE", type=Path, required=True, help="the new file to write")
    built.add_argument(
        "--format", choices=review_file_writer.FORMATS, help="default: by the suffix of FILE: .json, .csv, .conll or .txt"
    )
    built.add_argument(
        "--count",
        type=common.positive_number(int),
        default=COUNT,
        help=f"number of mentions in the sample (default: {COUNT})",
    )
    built.add_argument(
        "--strategy",
        choices=_STRATEGIES,
        default=_STRATEGIES[0],
        help="random; least-confident: lowest confidence first; rare: one mention of each of the rarest spellings",
    )
    built.add_argument(
        "--by",
        metavar="COLUMN",
        default="label",
        help="draw the same number of mentions for each value of this column: label (default), or a passthrough column",
    )
    built.add_argument(
        "--seed", type=int, default=0, help="seed of the random choice; another seed gives another sample (default: 0)"
    )
    built.add_argument("--show-text", action="store_true", help="write entities and sentences to the file, too")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a sample, write it to a file, and return the exit code."""
    options = parser().parse_args(arguments)

    def work(settings: Settings) -> None:
        """Start Spark, draw the sample, write it to the new file --to, and print a line with its size.

        Raise SettingsError, before Spark starts, if the file exists already, or an option is not valid.
        """
        kind = _choose_format(options.to, options.format, show_text=options.show_text)
        _check_target(options.to, options.count)
        common.check_output_exists(settings)
        if options.show_text:
            source_checks.check_source(settings)
        progress.begin_step("starting Spark")
        from entitymill.spark.session import open_session  # imports Spark
        from entitymill.tables.mention_sample import SampleRequest, draw_sample

        # `brief` selects the JVM's fast compiler, with which sampling 10 million mentions takes about half as long.
        spark = open_session(settings.spark, "entitymill sample", brief=lambda: True)
        progress.begin_step("drawing mentions")
        request = SampleRequest(int(options.count), options.strategy, options.by, options.seed)
        sample = draw_sample(spark, settings, request, show_text=options.show_text)
        review_file_writer.write_file(options.to, format_sample(sample, kind), private=options.show_text)
        left = f"; {sample.left_out:,} left out, because their documents have changed" if sample.left_out else ""
        groups = f"{sample.strata:,} values of {options.by}"
        line = f"{len(sample.mentions):,} of {sample.population:,} mentions, {groups}{left} -> {options.to}"
        open_console().print(line, highlight=False, soft_wrap=True, markup=False)

    return common.run_with_settings(options, work, "interrupted; nothing was written.")


def _choose_format(to: Path, requested: str | None, *, show_text: bool) -> str:
    """Return the format of the file: `requested` or, if that is None, the format that fits the file's suffix.

    Raise SettingsError if the suffix names no format, or if --show-text is missing for a format that contains text.
    """
    kind = requested or review_file_writer.choose_format(to)
    if kind is None:
        suffixes = ", ".join(review_file_writer.SUFFIXES)
        raise SettingsError(f"--to: the suffix of {to} names no format: use one of {suffixes}, or add --format.")
    if kind != review_file_writer.CSV and not show_text:
        raise SettingsError(
            f"--format: {kind} contains text of documents: add --show-text, or write CSV, which has only ids and offsets."
        )
    return kind


def _check_target(to: Path, count: float) -> None:
    """Raise SettingsError, before Spark starts, if the file cannot be created, or if `count` is more than MAX_MENTIONS.

    An existing file is never replaced, because it may contain a reviewer's work.
    """
    try:
        exists, has_directory = to.exists(), to.parent.is_dir()
    except OSError as error:  # access is denied, or a name is too long
        raise SettingsError(f"--to: {to} cannot be written: {error.strerror}; name another file.") from error
    if exists:
        raise SettingsError(f"--to: {to} exists already: remove it, or name another file.")
    if not has_directory:
        raise SettingsError(f"--to: there is no directory {to.parent}: create it, or name another file.")
    if count > MAX_MENTIONS:
        raise SettingsError(f"--count: {count:,} is too many: a sample can have at most {MAX_MENTIONS:,} mentions.")


def format_sample(sample: MentionSample, kind: str) -> str:
    """Return the content of a file with the sample, in the format `kind`, one of `review_file_writer.FORMATS`.

    A sample without text is always written as CSV.
    """
    if sample.sentences is None:
        return review_file_writer.format_csv([Mention(**mention) for mention in sample.mentions])
    sentences = [_build_sentence(**sentence) for sentence in sample.sentences]
    if kind == review_file_writer.LABEL_STUDIO:
        return review_file_writer.format_label_studio(sentences)
    return (
        conll_files.format_conll(sentences)
        if kind == review_file_writer.CONLL
        else review_file_writer.format_csv((), sentences)
    )


def _build_sentence(doc_id: str, begin: int, text: str, drawn: list[str], mentions: list[dict[str, Any]]) -> Sentence:
    """Return a sentence of a sample, and fill in the entity of each mention from the sentence's text.

    Args:
        begin: offset of the sentence in the document.
        text: text of the sentence.
        drawn: ids of the mentions that are in the sample.
        mentions: all mentions in the sentence, as dicts with the fields of `Mention` except `entity`.
    """
    complete = (Mention(**row, entity=text[row["begin"] - begin : row["end"] - begin]) for row in mentions)
    return Sentence(doc_id, begin, text, tuple(complete), frozenset(drawn))
