"""Compare events of a change feed with the output; ids whose rows remain unclear are looked up in the source."""

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
    """Result of a comparison of events with the output.

    differing: rows of `outcomes.compare_rows` without those of kind SAME.
    totals: totals of `differing`.
    documents: rows of `row_checks.select_documents`, at least the new and changed ones.
    touched: doc_id of all ids that were compared.
    stale_rejects: how many of these ids are in `rejects`, or null.
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
    """Compare the latest state of each changed id with the output; for the arguments see `changes.compare_feed`.

    Args:
        cached: stack that releases cached data when it is closed.
    """
    latest = cache_on_disk(change_feed.aggregate_events(feed), cached)
    named = latest if retry is None else _add_ids(latest, retry)
    validated = _validate_latest(named, source.settings.max_chars)
    related = _restrict_known(known, named, policy)
    flagged = _flag_rejected(validated, rejected)
    compared = cache_on_disk(outcomes.compare_rows(flagged, related, policy, _explain_unsettled()), cached)
    sums = outcomes.sum_outcomes(compared)
    reasons = Totals(sums).count_by_reason()
    settled = ~F.col("kind").isin(Kind.UNSETTLED.value, Kind.SAME.value)
    differing = compared.where(settled).drop("reason", "present", "known_row")
    documents = row_checks.select_documents(validated.where("present"))
    if reasons:
        log.info("looking up ids in the source: %s", ", ".join(f"{n} {why}" for why, n in sorted(reasons.items())))
        unsettled = compared.where(F.col("kind") == Kind.UNSETTLED)
        events = validated.where("present").select(*source.rows.columns)
        rows, texts = id_lookup.look_up_rows(source, unsettled, sum(reasons.values()), events, cached)
        known_rows = unsettled.where("known").select("known_row.*")
        looked_up = cache_on_disk(outcomes.compare_rows(rows.withColumn("present", F.lit(True)), known_rows, policy), cached)
        sums = [row for row in sums if row["kind"] != Kind.UNSETTLED] + outcomes.sum_outcomes(looked_up)
        differing = differing.unionByName(looked_up.where(F.col("kind") != Kind.SAME))
        documents = documents.unionByName(row_checks.select_documents(texts))
    stale_rejects = 0 if rejected is None else reasons.get(_REJECTED, 0) + reasons.get(_NULL, 0)
    return FeedComparison(differing, Totals(sums), documents, compared.select("doc_id"), stale_rejects)


def _add_ids(latest: DataFrame, ids: DataFrame) -> DataFrame:
    """Add ids that must be looked up even without an event."""
    retried = ids.where("doc_id IS NOT NULL").select("doc_id").distinct().withColumn("retried", F.lit(True))
    return latest.join(retried, "doc_id", "full").fillna(0, ["rows_put", "net_rows"])


def _validate_latest(named: DataFrame, max_chars: int) -> DataFrame:
    """Validate the row that the latest commit left for each id, if there is one.

    Returns:
        Columns of `row_checks.validate_rows`, and: present (whether the latest commit put exactly one row), rows_put,
        net_rows and retried.
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


def _flag_rejected(validated: DataFrame, rejected: DataFrame | None) -> DataFrame:
    """Add the column `rejected`: whether the id is in `rejects`. Rows without an id need none: they are looked up anyway."""
    if rejected is None:
        return validated.withColumn("rejected", F.lit(False))
    # This join is not null-safe, which would shuffle the events once more.
    listed = rejected.select("doc_id").distinct().withColumn("rejected", F.lit(True))
    return validated.join(listed, "doc_id", "left")


def _restrict_known(known: DataFrame, named: DataFrame, policy: Policy) -> DataFrame:
    """Return the known documents that `named` contains, and pending documents that this run may remove."""
    joined = known.join(named.select("doc_id", F.lit(True).alias("named")), "doc_id", "left")
    is_pending = F.col("status").eqNullSafe(PENDING) & outcomes.is_own(policy)
    return joined.where(F.col("named") | is_pending).select(*KNOWN_COLUMNS)


def _explain_unsettled() -> Column:
    """Return the reason why the events leave open which rows an id has in the source; null if they do not.

    They are sufficient if the source had one row for each known document and none for any other id, and if all rows that an
    id has now, one or none, are from its latest commit.
    """
    known_rows = F.col("k.doc_id").isNotNull().cast("int")
    return (
        F.when(F.col("s.rejected"), _REJECTED)
        .when(F.col("s.retried"), "to be retried")
        .when(F.col("k.status").eqNullSafe(PENDING), PENDING)
        .when(F.coalesce("s.doc_id", "k.doc_id").isNull(), _NULL)
        .when(F.col("s.rows_put") > 1, "in several rows of a commit")
        .when(known_rows + F.col("s.net_rows") != F.col("s.rows_put"), "with an unexpected number of rows")
    )
