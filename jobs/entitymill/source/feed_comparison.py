"""Events of a change feed vs what the output holds; ids whose rows the events do not settle are looked up in the source."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from entitymill.source import change_feed, id_lookup, outcomes, row_checks
from entitymill.source.change_feed import Feed
from entitymill.source.outcomes import Kind, Totals, cache_on_disk
from entitymill.source.policy import KNOWN_COLUMNS, PENDING, Policy
from entitymill.source.reader import Source
from entitymill.source.row_checks import CODE

log = logging.getLogger(__name__)
_REJECTED, _NULL = "in rejects", "null"


@dataclass(frozen=True)
class FeedComparison:
    """What the events lead to.

    differing: of `outcomes.compare_rows`, but those of kind SAME.
    totals: of `differing`.
    documents: of `row_checks.documents`: at least the new and changed ones.
    touched: doc_id of all ids that were looked at.
    stale_rejects: how many of them are in `rejects`, or null.
    """

    differing: DataFrame
    totals: Totals
    documents: DataFrame
    touched: DataFrame
    stale_rejects: int


def compare_events(
    source: Source,
    feed: Feed,
    known: DataFrame,
    rejected: DataFrame | None,
    policy: Policy,
    retry: DataFrame | None,
    cached: ExitStack,
) -> FeedComparison:
    """Compare the rows that the events left with what is known; for the arguments see `changes.compare_feed`.

    Args:
        cached: gets what is cached.
    """
    latest = cache_on_disk(change_feed.aggregate_events(feed), cached)
    named = latest if retry is None else _add_ids(latest, retry)
    judged = _validate_latest(named, source.settings.max_chars)
    related = _restrict_known(known, named, policy)
    flagged = _flag_rejected(judged, rejected)
    compared = cache_on_disk(outcomes.compare_rows(flagged, related, policy, _explain_unsettled()), cached)
    sums = outcomes.sum_outcomes(compared)
    reasons = Totals(sums).reasons()
    settled = ~F.col("kind").isin(Kind.UNSETTLED.value, Kind.SAME.value)
    differing = compared.where(settled).drop("reason", "present", "held")
    documents = row_checks.select_documents(judged.where("present"))
    if reasons:
        log.info("looking up ids in the source: %s", ", ".join(f"{n} {why}" for why, n in sorted(reasons.items())))
        unsettled = compared.where(F.col("kind") == Kind.UNSETTLED)
        events = judged.where("present").select(*source.rows.columns)
        rows, texts = id_lookup.look_up_rows(source, unsettled, sum(reasons.values()), events, cached)
        held = unsettled.where("known").select("held.*")
        looked_up = cache_on_disk(outcomes.compare_rows(rows.withColumn("present", F.lit(True)), held, policy), cached)
        sums = [row for row in sums if row["kind"] != Kind.UNSETTLED] + outcomes.sum_outcomes(looked_up)
        differing = differing.unionByName(looked_up.where(F.col("kind") != Kind.SAME))
        documents = documents.unionByName(row_checks.select_documents(texts))
    stale_rejects = 0 if rejected is None else reasons.get(_REJECTED, 0) + reasons.get(_NULL, 0)
    return FeedComparison(differing, Totals(sums), documents, compared.select("doc_id"), stale_rejects)


def _add_ids(latest: DataFrame, ids: DataFrame) -> DataFrame:
    """Add ids that are looked up although no event may name them."""
    retried = ids.where("doc_id IS NOT NULL").select("doc_id").distinct().withColumn("retried", F.lit(True))
    return latest.join(retried, "doc_id", "full").fillna(0, ["rows_put", "net_rows"])


def _validate_latest(named: DataFrame, max_chars: int) -> DataFrame:
    """Judge the row that the latest commit left of each id, if there is one.

    Returns:
        As `row_checks.judge`, with present: whether the latest commit put one row; and rows_put, net_rows and retried.
    """
    rows = named.select(
        "doc_id",
        "row.*",
        F.lit(1).cast("long").alias("copies"),
        (F.col("rows_put") == 1).alias("present"),
        *("rows_put", "net_rows"),
        F.col("retried") if "retried" in named.columns else F.lit(False).alias("retried"),
    )
    return row_checks.validate_rows(rows, max_chars).withColumn(CODE, F.when(F.col("present"), F.col(CODE)))


def _flag_rejected(judged: DataFrame, rejected: DataFrame | None) -> DataFrame:
    """Add `rejected`: whether the id is in `rejects`. Rows without an id need no flag: they are looked up anyway."""
    if rejected is None:
        return judged.withColumn("rejected", F.lit(False))
    # Not null-safe: that would shuffle the events once more.
    listed = rejected.select("doc_id").distinct().withColumn("rejected", F.lit(True))
    return judged.join(listed, "doc_id", "left")


def _restrict_known(known: DataFrame, named: DataFrame, policy: Policy) -> DataFrame:
    """Return the known documents that are named, and those of the run's own that are pending."""
    joined = known.join(named.select("doc_id", F.lit(True).alias("named")), "doc_id", "left")
    is_pending = F.col("status").eqNullSafe(PENDING) & outcomes.is_own(policy)
    return joined.where(F.col("named") | is_pending).select(*KNOWN_COLUMNS)


def _explain_unsettled() -> Column:
    """Return why the events do not say which rows the source has of an id; null if they do.

    They do if the source had one row of each known document and none of any other id, and all rows that it has now are of
    the latest commit: one, or none.
    """
    known_rows = F.col("k.doc_id").isNotNull().cast("int")
    return (
        F.when(F.col("s.rejected"), _REJECTED)
        .when(F.col("s.retried"), "to be retried")
        .when(F.col("k.status").eqNullSafe(PENDING), PENDING)
        .when(F.coalesce("s.doc_id", "k.doc_id").isNull(), _NULL)
        .when(F.col("s.rows_put") > 1, "in several rows of a commit")
        .when(known_rows + F.col("s.net_rows") != F.col("s.rows_put"), "with other rows than the output knows of")
    )
