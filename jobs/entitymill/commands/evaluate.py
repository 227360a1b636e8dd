"""`entitymill evaluate`: compare an entity table with a gold table, or score a sample that people have reviewed.

A gold table has the correct mentions, as people marked them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from entitymill.commands import common, source_checks
from entitymill.errors import SettingsError, SourceError
from entitymill.settings.sections import SparkSettings
from entitymill.terminal import progress, review_file_reader, review_scores
from entitymill.terminal.console_text import open_console, visible

if TYPE_CHECKING:  # a reviewed sample needs no Spark
    from pyspark.sql import DataFrame

KEY = ("doc_id", "begin", "end", "label")
"""Columns in which a found mention must equal a gold mention to be correct."""
ALL = "all"
"""Key of the score of all labels together."""
WANTED_PRECISION = 0.95
"""Default of --wanted-precision: the share of correct mentions that the proposed `min_confidence` must reach."""


@dataclass(frozen=True)
class Score:
    """The counts of one label, or of all labels together, and the measures that are computed from them.

    found: number of mentions in the entity table.
    gold: number of mentions in the gold table.
    correct: number of mentions that are in both tables, with the same doc_id, begin, end and label.
    """

    found: int
    gold: int
    correct: int

    @property
    def precision(self) -> float:
        """Share of the found mentions that are correct; 0 if none was found."""
        return self.correct / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold mentions that were found; 0 if there is no gold mention."""
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if neither table has a mention."""
        return 2 * self.correct / (self.found + self.gold) if self.found + self.gold else 0.0


def evaluate(entities: DataFrame, gold: DataFrame, labels: list[str] | None = None) -> dict[str, Score]:
    """Compare the found mentions `entities` with the correct mentions `gold`, and return a dict from labels to scores.

    The labels are sorted. The last key, ALL, has the micro average, which is the score of all labels together. A mention
    that occurs several times in a table counts once.

    Args:
        entities, gold: tables with the columns of KEY.
        labels: the labels to score; None or empty for all. A label that occurs in neither table is not in the result.
    """
    from pyspark.sql import functions as F

    sides = []
    for name, frame in (("found", entities), ("gold", gold)):
        chosen = frame.where(F.col("label").isin(labels)) if labels else frame
        keys = [F.col("doc_id").cast("string"), F.col("begin").cast("int"), F.col("end").cast("int"), F.col("label")]
        sides.append(chosen.select(*keys).distinct().withColumn(name, F.lit(1)))
    joined = sides[0].join(sides[1], list(KEY), "full")
    counts = joined.groupBy("label").agg(
        F.count("found").alias("found"), F.count("gold").alias("gold"), F.count(F.col("found") + F.col("gold")).alias("both")
    )
    scores = {row["label"]: Score(row["found"], row["gold"], row["both"]) for row in counts.orderBy("label").collect()}
    total = (sum(getattr(score, part) for score in scores.values()) for part in ("found", "gold", "correct"))
    return {**scores, ALL: Score(*total)}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill evaluate` and jobs/evaluate_entities.py."""
    built = common.build_parser(
        "evaluate",
        script="evaluate_entities.py",
        description="Score an entity table against a gold table: a mention is correct if doc_id, begin, end and label "
        "agree. Or score a sample from `entitymill sample` that people have reviewed; this needs no Spark.",
        epilog="With --entities and --gold, all mentions of both tables are compared, so the tables must cover the same "
        "documents.\n"
        "Exit codes: 0 done, 2 bad options, 3 bad input, 1 anything else.",
    )
    address = "a Delta table, Parquet, JSON Lines (.jsonl), or table:NAME of the catalog"
    built.add_argument("--entities", metavar="PATH", help=address)
    built.add_argument(
        "--gold", metavar="PATH", help="a table in a format of --entities, with the columns doc_id, begin, end and label"
    )
    built.add_argument(
        "--reviewed",
        metavar="FILE",
        type=Path,
        help="instead of --entities and --gold: the corrected CSV or CoNLL file, or Label Studio's JSON export",
    )
    built.add_argument(
        "--wanted-precision",
        metavar="SHARE",
        type=common.positive_number(float, largest=1),
        default=WANTED_PRECISION,
        help="with --reviewed: show the smallest min_confidence that reaches this precision on the sample "
        f"(default: {WANTED_PRECISION})",
    )
    built.add_argument("--labels", help="score only these labels, separated by commas: PER,ORG,LOC")
    built.add_argument("--json", action="store_true", help="print JSON")
    built.add_argument("--jars", default="build/jars", help="directory of jars, used if this program starts Spark itself")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Score an entity table or a reviewed sample, print the scores, and return the exit code."""
    built = parser()
    options = built.parse_args(arguments)
    present = tuple(value is not None for value in (options.entities, options.gold, options.reviewed))
    if present not in ((True, True, False), (False, False, True)):
        built.error("use either --entities and --gold, or --reviewed")

    def work(start_log: Callable[[str | None], str]) -> None:
        """Start the log, score the reviewed sample or, with Spark, the entity table, and print the scores."""
        start_log(None)
        labels = common.parse_labels([options.labels] if options.labels else [])
        if options.reviewed is not None:
            _print_review(options.reviewed, options.wanted_precision, labels, as_json=options.json)
            return
        for option, path in (("--entities", options.entities), ("--gold", options.gold)):
            fault = common.describe_missing_path(path, {})
            if fault is not None:
                raise SourceError(f"{option}: {fault}; check the path.")
            source_checks.check_columns(path, source_checks.list_columns(path, {}), [(option, column) for column in KEY])
        progress.begin_step("starting Spark")
        from entitymill.source.reader import read_mentions
        from entitymill.spark.session import open_session

        spark = open_session(SparkSettings(jars=options.jars), "entitymill evaluation")
        progress.begin_step("comparing the mentions")
        entities = read_mentions(spark, options.entities, "--entities", KEY)
        gold = read_mentions(spark, options.gold, "--gold", KEY)
        for option, path, frame in (("--entities", options.entities, entities), ("--gold", options.gold, gold)):
            if frame.where(" OR ".join(f"`{name}` IS NULL" for name in KEY)).take(1):
                or_not = ", or is not valid JSON" if path.endswith(".jsonl") else ""
                raise SourceError(f"{option}: a row lacks one of {', '.join(KEY)}{or_not}; correct or remove the row.")
        scores = evaluate(entities, gold, labels)
        _check_labels(labels, scores, "in neither table")
        if options.json:
            print(_format_json(scores))
        else:
            open_console().print(_build_table(scores))

    return common.run_and_report(work, "interrupted.")


def _check_labels(labels: Iterable[str], occurring: Iterable[str], problem: str) -> None:
    """Raise SettingsError if one of `labels` is not in `occurring`: without this check, misspelled labels would be scored 0.

    Args:
        labels: the labels in the option --labels.
        occurring: the labels in the tables or in the reviewed sample.
        problem: words for the message that say where the label was not found, such as "in neither table".
    """
    for label in labels:
        if label not in occurring:
            raise SettingsError(f"--labels: {label} is {problem}; check its spelling: labels are case-sensitive.")


def _print_review(file: Path, wanted_precision: float, labels: list[str], *, as_json: bool) -> None:
    """Score a reviewed sample, and print the scores as a table or as JSON; an empty list of labels means all labels.

    The scores include the smallest `entities.min_confidence` that reaches `wanted_precision`. Below the table, print how
    many mentions were not reviewed, if any. Raise SettingsError if no reviewed mention has one of `labels`, and SourceError
    if the file is not a readable reviewed sample.
    """
    review = review_file_reader.read_review(file)
    _check_labels(labels, review_scores.list_labels(review), f"the label of no reviewed mention in {file}")
    scores = review_scores.score_review(review, wanted_precision, labels)
    if as_json:
        print(json.dumps({label: asdict(score) for label, score in scores.items()}))
        return
    console = open_console()
    console.print(review_scores.build_table(scores, wanted_precision))
    if review.unreviewed:
        console.print(f"{review.unreviewed:,} mentions of the sample were not reviewed and do not count.", highlight=False)


def _format_json(scores: dict[str, Score]) -> str:
    """Return the scores as a JSON object: for each label and for ALL, found, gold, correct, precision, recall and f1."""
    measures = {label: {"precision": s.precision, "recall": s.recall, "f1": s.f1} for label, s in scores.items()}
    return json.dumps({label: asdict(score) | measures[label] for label, score in scores.items()})


def _build_table(scores: dict[str, Score]) -> Table:
    """Return the table of scores that is printed, with one row per label and a last row for all labels."""
    table = Table("label", *("precision", "recall", "F1", "found", "gold", "correct"))
    for label, score in scores.items():
        shares = (f"{share:.4f}" for share in (score.precision, score.recall, score.f1))
        table.add_row(
            Text(visible(label, lines=False)), *shares, *(f"{count:,}" for count in (score.found, score.gold, score.correct))
        )
    return table
