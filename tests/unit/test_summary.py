"""Test the scope of a run, and what is printed about runs and dry runs."""

from __future__ import annotations

import io
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import Row
from rich.console import Console

from entitymill import settings
from entitymill.run.dry_runs import Plan
from entitymill.run.summary import Summary, compute_scope
from entitymill.terminal import summaries


def printed_rows(console: Console) -> list[list[str]]:
    """Return the cells of each row of the printed tables."""
    file: Any = console.file
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in file.getvalue().splitlines() if "│" in line]


@pytest.mark.parametrize(("seconds", "expected"), [({"waiting": 30.0}, [["waiting", "30.0"]]), ({}, [])])
def test_the_time_of_waiting_for_another_run_is_printed_if_there_was_any(
    seconds: dict[str, float], expected: list[list[str]]
) -> None:
    console = Console(file=io.StringIO(), width=120)
    summary = Summary("r1", datetime(2026, 11, 20, tzinfo=timezone.utc), seconds={"source": 1.0, "total": 31.0, **seconds})
    tables: Any = SimpleNamespace(address=lambda name: name)
    summaries.print_summary(console, summary, settings.load(None, ["source.path=a", "output.path=b"], {}), tables)
    assert [row for row in printed_rows(console) if row[0] == "waiting"] == expected


def test_of_each_document_the_best_sentence_is_printed_and_the_best_documents_come_first() -> None:
    ranked = [Row(doc_id=doc_id, sentence_id=sentence) for doc_id, sentence in (("b", 4), ("a", 1), ("b", 2), ("b", 0))]
    assert summaries._keep_first_of_each_document(ranked) == ranked[:2]


@pytest.mark.parametrize(
    ("spark", "last"),
    [
        (2.0, [["Spark, all cores", "2.0"], ["idle, all cores", "1.0"]]),
        (5.0, [["Spark, all cores", "3.0"]]),  # limited: it may include the writing of other units
        (None, [["Spark or idle, all cores", "3.0"]]),
    ],
)
def test_a_run_tells_the_work_of_all_cores_from_their_idleness(spark: float | None, last: list[list[str]]) -> None:
    console = Console(file=io.StringIO(), width=120)
    parts = {"segmentation": 1.5, "encoding": 2.0, "inference": 9.0, "mentions": 0.5}
    seconds = {"recognition": 8.0, **parts, "total": 9.0}
    summary = Summary("r1", datetime(2026, 11, 20, tzinfo=timezone.utc), seconds=seconds, cores=2)
    summary.add_idle_seconds(8.0, spark)
    loaded = settings.load(None, ["source.path=a", "output.path=b"], {})
    tables: Any = SimpleNamespace(address=lambda name: name)
    summaries.print_summary(console, summary, loaded, tables)
    rows = printed_rows(console)
    assert [row for row in rows if row[0].endswith("all cores")] == [
        ["segmentation, all cores", "1.5"],
        ["encoding, all cores", "2.0"],
        ["inference, all cores", "9.0"],
        ["mentions, all cores", "0.5"],
        *last,
    ]


def test_a_run_that_only_removes_has_no_cost_of_documents() -> None:
    console = Console(file=io.StringIO(), width=120)
    loaded = settings.load(None, ["source.path=a", "output.path=b"], {})
    summaries.print_plan(console, Plan(0, 0, 9, 0, {}, 1, 0.25, 2.0), loaded)
    assert [row[0] for row in printed_rows(console) if "core-hours" in row[0] or "million" in row[0]] == ["core-hours"]


def test_a_dry_run_says_why_documents_are_changed() -> None:
    console = Console(file=io.StringIO(), width=120)
    causes = {"text": 5, "settings or model": 282}
    changed = ("recognition.precision", "mentions.trim")
    loaded = settings.load(None, ["source.path=a", "output.path=b"], {})
    summaries.print_plan(console, Plan(0, 287, 0, 0, {}, 1, None, None, causes, changed), loaded)
    assert printed_rows(console)[1:4] == [
        ["documents changed", "287"],
        ["settings or model (recognition.precision, mentions.trim)", "282"],
        ["text", "5"],
    ]


def test_the_cost_is_shown_in_total_and_for_a_million_documents() -> None:
    summary = Summary(
        "r1", datetime(2026, 11, 20, tzinfo=timezone.utc), documents=20_000, core_seconds=7200.0, seconds={"total": 900.0}
    )
    plan = Plan(20_000, 0, 0, 0, {}, 1, 0.25, 2.0)
    for overrides, total, million in (
        ([], "2.00", "100.00"),
        (["cost.per_core_hour=0.05", "cost.currency=EUR"], "2.00 = 0.10 EUR", "100.00 = 5.00 EUR"),
    ):
        loaded = settings.load(None, ["source.path=a", "output.path=b", *overrides], {})
        tables: Any = SimpleNamespace(address=lambda name: name)
        run, dry_run = Console(file=io.StringIO(), width=120), Console(file=io.StringIO(), width=120)
        summaries.print_summary(run, summary, loaded, tables)
        summaries.print_plan(dry_run, plan, loaded)
        for rows in (printed_rows(run), printed_rows(dry_run)):
            assert ["core-hours", total] in rows
            assert ["per million documents", million] in rows


def test_what_a_run_ignored_the_next_one_looks_at_again() -> None:
    """The policy `ignore` must change the scope; otherwise the next run would find nothing changed, and do nothing."""
    policies = ("reprocess", "refuse", "ignore")
    chosen = [["source.path=a", "output.path=b", f"incremental.on_fingerprint_change={policy}"] for policy in policies]
    reprocess, refuse, ignore = (compute_scope(settings.load(None, options, {}), "t", "/texts") for options in chosen)
    assert reprocess == refuse != ignore
