"""Sums over all runs of an output: what counters count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import functions as F

from entitymill.tables import Tables

MOST_LABELS = 100


@dataclass(frozen=True)
class Totals:
    """Over all runs of an output. mentions: by label; last_success: seconds since 1970."""

    runs: Mapping[str, int]
    documents: int
    sentences: int
    rejects: int
    mentions: Mapping[str, int]
    last_success: float | None


def read(tables: Tables) -> Totals | None:
    """Sums over the table `runs`, in two queries; none where there is no such table."""
    if not tables.exists("runs"):
        return None
    runs = tables.read("runs").where("status <> 'running'")
    sums = [F.sum(name).alias(name) for name in ("documents", "sentences", "rejects")]
    each = (
        runs.groupBy("status")
        .agg(F.count("*").alias("runs"), F.max(F.unix_micros("ended_at")).alias("ended"), *sums)
        .collect()
    )
    labels = runs.select(F.explode("entities_by_label").alias("label", "mentions"))
    by_label = labels.groupBy("label").agg(F.sum("mentions").alias("mentions")).limit(MOST_LABELS).collect()
    ended = next((row["ended"] for row in each if row["status"] == "done"), None)
    documents, sentences, rejects = (sum(row[name] or 0 for row in each) for name in ("documents", "sentences", "rejects"))
    return Totals(
        {row["status"]: row["runs"] for row in each},
        documents,
        sentences,
        rejects,
        {row["label"]: row["mentions"] for row in by_label},
        None if ended is None else ended / 1e6,
    )
