"""Print what a run did, what a dry run would do, or the entities in the tables."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table
from rich.text import Text

from entitymill import schemas
from entitymill.run.dry_runs import Plan
from entitymill.run.summary import RECOGNIZING_SECONDS, Summary
from entitymill.run_row import STAGES
from entitymill.settings import Settings
from entitymill.source import reader
from entitymill.source.rows_against_output import Cause
from entitymill.tables import NAMES, Tables
from entitymill.terminal.console_text import mark_mentions, select_style, shorten, shows_colors, visible
from entitymill.terminal.progress import format_duration

TOP_ENTITIES = 8
"""Number of entities that are printed per label."""
SHOWN_SENTENCES = 6
"""Maximum number of sentences that are printed."""
MAX_SENTENCE_CHARS = 400
"""Maximum length, in characters, of a sentence that is printed."""
MILLION = 1_000_000
FEW_CORE_HOURS = 0.1
"""If the core-hours are fewer than this, they are printed with two significant digits; otherwise with two decimal places."""


def print_summary(console: Console, summary: Summary, settings: Settings, tables: Tables) -> None:
    """Print the counts, costs and seconds of a run, its model and precision, and the paths or names of its tables.

    No text of documents is printed. If the run had nothing to do, print only one line.
    """
    if summary.mode == "none":
        message = f"run {summary.run_id}: nothing to do, the source has not changed since the last run"
        console.print(f"{message} ({summary.seconds['total']:.1f} s)", highlight=False)
        return
    counts = Table(title=f"Run {summary.run_id}", title_justify="left", show_header=False)
    counts.add_column(style="bold")
    counts.add_column(justify="right")
    counts.add_row("documents processed", f"{summary.documents:,}")
    counts.add_row("documents removed", f"{summary.removed:,}")
    counts.add_row("units", f"{summary.units:,}")
    counts.add_row("sentences", f"{summary.sentences:,}")
    counts.add_row("tokens", f"{summary.tokens:,}")
    counts.add_row("sentences split into windows", f"{summary.split_sentences:,}")
    for label, rows in sorted(summary.by_label.items()):
        counts.add_row(Text(f" {visible(label, lines=False)} ", style=select_style(label)), f"{rows:,}")
    counts.add_row("rows rejected", f"{sum(summary.rejects.values()):,}")
    for code, rows in sorted(summary.rejects.items()):
        counts.add_row(Text(f"  {visible(code, lines=False)}"), f"{rows:,}")
    counts.add_row("sentences/s, set-up included", f"{summary.sentences_per_second:,.0f}")
    recognizing = summary.seconds.get(RECOGNIZING_SECONDS)
    if recognizing:
        counts.add_row("sentences/s, recognition only", f"{summary.sentences / recognizing:,.0f}")
    add_cost(counts, summary.core_hours, summary.documents, settings)
    console.print(counts)

    console.print(_build_seconds_table(summary.seconds))
    model = settings.model.path if settings.recognition.engine == "openvino" else settings.recognition.sparknlp_model
    console.print(
        f"precision {settings.recognition.precision}, model {model}", highlight=False, soft_wrap=True, markup=False
    )
    unused = {"erasures"} if settings.output.annotations else {"erasures", "annotations"}
    for name in (name for name in NAMES if name not in unused):
        console.print(f"{name:11}", tables.address(name), highlight=False, soft_wrap=True, markup=False)


def _build_seconds_table(spent: dict[str, float]) -> Table:
    """Return a table, for the terminal, of the wall-clock seconds of each stage of a run; `spent` is `Summary.seconds`.

    Below the row `recognition` are rows for the parts of recognition, in core-seconds (seconds summed over all cores). A
    part is left out if it is 0 or was not measured. If Spark's part was not measured, the row of the idle time includes it.
    """
    seconds = Table(title="Seconds", title_justify="left")
    seconds.add_column("stage")
    seconds.add_column("seconds", justify="right")
    stages = (stage for stage in STAGES if stage != "waiting" or stage in spent)
    for stage in (*stages, "total"):
        seconds.add_row(stage, f"{spent.get(stage, 0):.1f}", style="bold" if stage == "total" else "")
        if stage == "recognition":
            for part in (*schemas.PARTS, "spark", "idle"):
                label = {"spark": "Spark", "idle": "idle" if "spark" in spent else "Spark or idle"}.get(part, part)
                if spent.get(part):
                    seconds.add_row(f"  {label}, all cores", f"{spent[part]:.1f}", style="dim")
    return seconds


def add_cost(table: Table, core_hours: float, documents: int, settings: Settings) -> None:
    """Add a row with `core_hours` to `table`, and, unless `documents` is 0, a row with core-hours per million documents.

    If cost.per_core_hour is set, the rows also show the price. `documents` is the number of processed documents.
    """
    price, currency = settings.cost.per_core_hour, visible(settings.cost.currency, lines=False)
    shown = [("core-hours", core_hours)]
    if documents:
        shown.append(("  per million documents", core_hours * MILLION / documents))
    for name, hours in shown:
        money = "" if price is None else f" = {price * hours:,.2f} {currency}"
        table.add_row(name, Text(f"{hours:,.2f}{money}" if hours >= FEW_CORE_HOURS else f"{hours:.2g}{money}"))


def print_plan(console: Console, plan: Plan, settings: Settings) -> None:
    """Print the result of a dry run: how many documents a run would process or remove, and how long it would take."""
    shown = Table(title="Dry run: nothing was written", title_justify="left", show_header=False)
    shown.add_column(style="bold")
    shown.add_column(justify="right")
    for name in ("new", "changed", "removed", "unchanged"):
        shown.add_row(f"documents {name}", f"{getattr(plan, name):,}")
        for cause, documents in sorted(plan.causes.items()) if name == "changed" else ():
            which = ", ".join(plan.changed_settings) or "model files or this program"
            detail = f" ({visible(which, lines=False)})" if cause == Cause.FINGERPRINT else ""
            shown.add_row(Text(f"  {cause}{detail}"), f"{documents:,}")
    shown.add_row("rows that would be rejected", f"{sum(plan.refused.values()):,}")
    for code, rows in sorted(plan.refused.items()):
        shown.add_row(Text(f"  {visible(code, lines=False)}"), f"{rows:,}")
    shown.add_row("units", f"{plan.units:,}")
    if plan.hours is None:
        shown.add_row("time", "unknown before the first run")
    else:
        speed = "earlier runs" if plan.same_model else "another model or other settings"
        shown.add_row(f"time, at the speed of {speed}", format_duration(plan.hours * 3600))
        add_cost(shown, plan.core_hours or 0.0, plan.new + plan.changed, settings)
    console.print(shown)


def print_entities(console: Console, spark: SparkSession, settings: Settings, tables: Tables) -> None:
    """Print the most frequent entities of each label, and a few sentences with their mentions marked.

    What is printed contains text of documents.
    """
    entities = tables.read("entities")
    counted = entities.groupBy("label", "entity").count()
    top = Table(title="Most frequent entities", title_justify="left", show_lines=True)
    top.add_column("label")
    top.add_column("entity (mentions)")
    for label in [row.label for row in counted.select("label").distinct().orderBy("label").collect()]:
        rows = counted.where(F.col("label") == label).orderBy(F.desc("count"), "entity").limit(TOP_ENTITIES).collect()
        names = ", ".join(f"{shorten(' '.join(row.entity.split()))} ({row['count']})" for row in rows)
        names = visible(names, lines=False)
        top.add_row(Text(f" {visible(label, lines=False)} ", style=select_style(label)), Text(names))
    console.print(top)
    _print_sentences(console, spark, settings, tables)


def _print_sentences(console: Console, spark: SparkSession, settings: Settings, tables: Tables) -> None:
    """Print up to SHOWN_SENTENCES sentences with their mentions marked, at most one sentence per document.

    Sentences longer than MAX_SENTENCE_CHARS are skipped, and sentences with many different labels are preferred. The texts
    are read from the source; documents that it lacks are skipped.
    """
    entities = tables.read("entities")
    key = ["doc_id", "sentence_id", "sentence_begin", "sentence_end"]
    rich = entities.groupBy(*key).agg(
        F.countDistinct("label").alias("labels"),
        F.sort_array(F.collect_list(F.struct("begin", "end", "label"))).alias("mentions"),
    )
    short = rich.where(F.col("sentence_end") - F.col("sentence_begin") <= MAX_SENTENCE_CHARS)
    best = short.orderBy(F.desc("labels"), F.desc(F.size("mentions")), "doc_id").limit(SHOWN_SENTENCES * 4).collect()
    candidates = _keep_first_of_each_document(best)
    texts = reader.read_texts(spark, settings.source, [row.doc_id for row in candidates])
    # `texts` lacks documents that `source.where` excludes, and documents that were just deleted from the source.
    for row in [row for row in candidates if row.doc_id in texts][:SHOWN_SENTENCES]:
        spans = [(mention.begin, mention.end, mention.label) for mention in row.mentions]
        sentence = mark_mentions(
            texts[row.doc_id], spans, colors=shows_colors(console), first=row.sentence_begin, last=row.sentence_end
        )
        console.print(Text(f"{visible(row.doc_id, lines=False)}  ", style="dim").append_text(sentence))
        console.print()


def _keep_first_of_each_document(rows: Iterable[Row]) -> list[Row]:
    """Return the first row of each doc_id, in the order of the given rows."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.doc_id, row)
    return list(first.values())
