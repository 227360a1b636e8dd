"""Sample content of a page, with every kind of text that could break out of its HTML."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

from entitymill_reports.page_data import (
    CONFIDENCE_BINS,
    SENTENCE_BINS,
    Documents,
    Label,
    Lengths,
    MentionsByPeriod,
    PageContent,
    Part,
    Reject,
    Run,
    Sentence,
    TextSamples,
    UnitSpeed,
)

SCRIPT = "<script>alert(1)</script>"
QUOTE = "\"' onmouseover=alert(2) x='"
START = datetime(2026, 11, 20, 3, tzinfo=timezone.utc)


def run(number: int, **other: object) -> Run:
    """Return the run of a night; nights are numbered from 0."""
    started = START + timedelta(days=number)
    made = Run(
        run_id=f"run{number}",
        started_at=started,
        status="done",
        mode="compare",
        model=f"model {SCRIPT}",
        fingerprint="f00",
        source=f"/texts/{SCRIPT}",
        source_version="7",
        documents=100,
        units=2,
        sentences=2000,
        sentences_per_second=2000 / 60,
        rejects=3,
        entities_by_label={"PER": 600, "LOC": 400},
        seconds={"preparation": 2.0, "source": 8.0, "recognition": 40.0, "writing": 10.0, "total": 60.0},
        current_mentions=1000,
        confidence=0.9,
        core_hours=0.5,
        settings=json.dumps({"cost": {"per_core_hour": 0.04, "currency": f"EUR{SCRIPT}"}}),
    )
    return replace(made, **other)  # type: ignore[arg-type]


def shown() -> TextSamples:
    """Return three sentences, with the confidences 0.3 (LOC), 0.6 (PER), and 0.9 (PER) with 0.95 (LOC)."""
    sentences = (
        Sentence("one", (Part("In "), Part(f"Paris{SCRIPT}", "LOC", 0.3, sampled=True), Part(" it rained.")), ("least",)),
        Sentence(f"two{QUOTE}", (Part("Smith", "PER", 0.6, sampled=True), Part(f" {SCRIPT}.")), ("rarest", "random")),
        Sentence("three", (Part("Jones", "PER", 0.9, sampled=True), Part(" saw "), Part("Rome", "LOC", 0.95)), ("random",)),
    )
    return TextSamples({"PER": ((SCRIPT, 12), ("Smith", 3)), "LOC": (("Paris", 4),)}, sentences, changed=1)


def figures(**other: object) -> PageContent:
    """Return the content of a page about three runs, without text unless `shown` is given."""
    runs = tuple(run(number) for number in (2, 1, 0))
    bins = tuple(range(CONFIDENCE_BINS))
    made = PageContent(
        output=f"/out/{SCRIPT}",
        run=runs[0],
        runs=runs,
        documents=Documents(300, 2, 6000, 150_000, 5, {-1: 2, 4: 100, 6: 198}),
        labels=(Label("PER", 1800, 0.91, bins), Label("LOC", 1200, 0.88, bins), Label(f"$x$ {SCRIPT}", 3, 0.5, bins)),
        days=MentionsByPeriod(
            "published", "day", {date(2026, 11, 1): {"PER": 5}, date(2026, 11, 4): {"LOC": 2, "PER": 1}}, 4
        ),
        lengths=Lengths(tuple(range(SENTENCE_BINS)), 3),
        rejects=(Reject("source", "null_text", 9, (f"b{SCRIPT}", "c"), f"the text is null {SCRIPT}"),),
        units=(UnitSpeed(1, 30.0, 50), UnitSpeed(2, 20.0, 50)),
        settings=f"source:\n  path: {SCRIPT}\n",
    )
    return replace(made, **other)  # type: ignore[arg-type]
