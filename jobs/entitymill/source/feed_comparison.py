"""Compare events of a change feed with the output; look up ids in the source if the events do not suffice.

An id is called unsettled if its events do not tell which rows the id has in the source now.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from entitymill.source import change_feed, row_checks, row_comparison
from entitymill.source.change_feed import Feed
from entitymill.source.change_policy import KNOWN_COLUMNS, PENDING, Policy
from entitymill.source.reader import Source
from entitymill.source.row_checks import CODE
from entitymill.source.row_comparison import Kind, Totals
from entitymill.spark.spark_connect import cache_on_disk

log = logging.getLogger(__name__)
BROADCAST_IDS = 100_000
"""Maximum number of ids that are broadcast; the broadcast avoids shuffling the source's rows."""
_REJECTED, _NULL = "in rejects", "null"
"""Reasons to look up an id: it is in the `rejects` table, or it is null."""


@dataclass(frozen=True)
class FeedComparison:
    """Result of a comparison of events with the output.

    differing: result of `row_comparison.compare_rows` without rows of kind SAME.
    totals: totals of `differing`.
    documents: result of `row_checks.select_documents`, with at least all new and changed documents.
    touched: frame with each doc_id that was compared; null stands for rows without an id.
    stale_rejects: number of ids in `touched` that earlier runs rejected, so that their old rows in `rejects` have to be
        replaced. The null id counts whenever it is in `touched` and `rejects` has any rows.
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
    """Compare the latest state of each changed id with the output; look up unsettled ids in the source.

    Args:
        source: source of the run.
        feed: changes since the version of the source that the last run read.
        known: frame with KNOWN_COLUMNS of all documents in the output.
        rejected: rows of the `rejects` table, of which only doc_id is used; None if the table is empty.
        policy: rules that decide which documents are recomputed.
        retry: frame with the doc_id of each document to look up even without an event; None if there are none.
        cached: stack to which this function adds callbacks that release cached data when the stack is closed.
    """
    latest = cache_on_disk(change_feed.aggregate_events(feed), cached)
    to_compare = latest if retry is None else _add_ids_to_look_up(latest, retry)
    validated = _validate_latest(to_compare, source.settings.max_chars)
    related = _restrict_known(known, to_compare, policy)
    flagged = _flag_rejected(validated, rejected)
    compared = cache_on_disk(row_comparison.compare_rows(flagged, related, policy, _explain_unsettled()), cached)
    sums = row_comparison.sum_outcomes(compared)
    reasons = Totals(sums).count_by("reason", Kind.UNSETTLED)
    settled = ~F.col("kind").isin(Kind.UNSETTLED.value, Kind.SAME.value)
    differing = compared.where(settled).drop("reason", "present", "known_row")
    documents = row_checks.select_documents(validated.where("present"))
    if reasons:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        log.info("looking up ids in the source: %s", counts)
        unsettled = compared.where(F.col("kind") == Kind.UNSETTLED)
        events = validated.where("present").select(*source.rows.columns)
        rows, texts = _look_up_rows(source, unsettled, sum(reasons.values()), events, cached)
        known_rows = unsettled.where("known").select("known_row.*")
        looked_up = cache_on_disk(
            row_comparison.compare_rows(rows.withColumn("present", F.lit(True)), known_rows, policy), cached
        )
        sums = [row for row in sums if row["kind"] != Kind.UNSETTLED] + row_comparison.sum_outcomes(looked_up)
        differing = differing.unionByName(looked_up.where(F.col("kind") != Kind.SAME))
        documents = documents.unionByName(row_checks.select_documents(texts))
    stale_rejects = 0 if rejected is None else reasons.get(_REJECTED, 0) + reasons.get(_NULL, 0)
    return FeedComparison(differing, Totals(sums), documents, compared.select("doc_id"), stale_rejects)


def _add_ids_to_look_up(latest: DataFrame, ids: DataFrame) -> DataFrame:
    """Return the rows of `latest`, and a row for each of `ids` that has no event, with the new column `must_look_up`.

    The column is true for `ids`, and null for all other ids. Null ids are not added.
    """
    flagged = ids.where("doc_id IS NOT NULL").select("doc_id").distinct().withColumn("must_look_up", F.lit(True))
    return latest.join(flagged, "doc_id", "full").fillna(0, ["rows_put", "net_rows"])


def _validate_latest(latest: DataFrame, max_chars: int) -> DataFrame:
    """Validate the row that the latest commit inserted or updated for each id, if there is one.

    Returns:
        Frame with the columns of `row_checks.validate_rows`, present (whether the latest commit inserted or updated exactly
        one row), rows_put and net_rows (see `change_feed.aggregate_events`), and must_look_up (whether the id must be looked
        up whatever its events say).
    """
    rows = latest.select(
        "doc_id",
        "row.*",
        F.lit(1).cast("long").alias("copies"),
        (F.col("rows_put") == 1).alias("present"),
        *("rows_put", "net_rows"),
        F.col("must_look_up") if "must_look_up" in latest.columns else F.lit(False).alias("must_look_up"),
    )
    return row_checks.validate_rows(rows, max_chars).withColumn(CODE, F.when(F.col("present"), F.col(CODE)))


def _flag_rejected(validated: DataFrame, rejected: DataFrame | None) -> DataFrame:
    """Return `validated` with the new column `rejected`: true if the `rejects` table has the id, otherwise false or null."""
    if rejected is None:
        return validated.withColumn("rejected", F.lit(False))
    # This join does not match null ids, which are looked up anyway; a null-safe join would shuffle the events once more.
    listed = rejected.select("doc_id").distinct().withColumn("rejected", F.lit(True))
    return validated.join(listed, "doc_id", "left")


def _restrict_known(known: DataFrame, ids: DataFrame, policy: Policy) -> DataFrame:
    """Return the known documents whose doc_ids are in `ids`, and pending documents that this run may remove.

    A pending document is one whose mentions a dead run may have left incomplete.
    """
    listed = ids.select("doc_id", F.lit(True).alias("is_listed"))
    own = known if policy.slice is None else known.where(row_comparison.is_own(policy))
    related = own.join(listed, "doc_id", "left").where(F.col("is_listed") | F.col("status").eqNullSafe(PENDING))
    if policy.slice is not None:
        others = known.where(~row_comparison.is_own(policy)).join(listed, "doc_id", "left_semi")
        related = related.unionByName(others, allowMissingColumns=True)
    return related.select(*KNOWN_COLUMNS)


def _explain_unsettled() -> Column:
    """Return an expression for the reason why the events do not tell which rows an id has now; null if they do.

    The expression is over the aliases s and k of `row_comparison.compare_rows`.

    The events suffice under two conditions. Before the events, the source had one row with the id if the document is known,
    and no row otherwise. Now, the source has at most one row with the id, and the id's latest commit inserted or updated it.
    """
    known_rows = F.col("k.doc_id").isNotNull().cast("int")
    return (
        F.when(F.col("s.rejected"), _REJECTED)
        .when(F.col("s.must_look_up"), "to be retried")
        .when(F.col("k.status").eqNullSafe(PENDING), PENDING)
        .when(F.coalesce("s.doc_id", "k.doc_id").isNull(), _NULL)
        .when(F.col("s.rows_put") > 1, "in several rows of a commit")
        .when(known_rows + F.col("s.net_rows") != F.col("s.rows_put"), "with an unexpected number of rows")
    )


def _look_up_rows(
    source: Source, ids: DataFrame, id_count: int, events: DataFrame, cached: ExitStack
) -> tuple[DataFrame, DataFrame]:
    """Return the rows that the source has for some ids; texts that `events` has are not read again. This runs Spark jobs.

    Args:
        source: source of the run.
        ids: frame with the columns doc_id (distinct ids, one of which may be null) and present (whether the latest commit of
            the id inserted or updated exactly one row of the id).
        id_count: number of rows of `ids`.
        events: frame with the columns doc_id, text and, if present, `passthrough`, of the rows that the latest commit
            of each id inserted or updated.
        cached: stack to which this function adds callbacks that release cached data when the stack is closed.

    Returns:
        Two frames with the columns of `row_checks.validate_rows`. The first has all rows of the ids; the text is null in
        rows that are rejected because of their id. The second has only the rows whose texts were read from the source,
        because the events do not contain them.
    """
    few = F.broadcast(ids) if id_count <= BROADCAST_IDS else ids
    same_id = F.col("s.doc_id").eqNullSafe(F.col("i.doc_id"))
    rows_of_ids = source.rows.select("doc_id").alias("s").join(few.alias("i"), same_id).select("s.doc_id", "i.present")
    counts = cache_on_disk(
        rows_of_ids.groupBy("doc_id").agg(F.count("*").alias("copies"), F.first("present").alias("present")), cached
    )
    is_single = F.col("doc_id").isNotNull() & (F.col("copies") == 1)
    in_events = counts.where(is_single & F.col("present")).select("doc_id")
    missing = counts.where(is_single & ~F.col("present")).select("doc_id")
    missing_count = missing.count()
    texts = source.rows.limit(0)
    if missing_count:
        missing = F.broadcast(missing) if missing_count <= BROADCAST_IDS else missing
        texts = cache_on_disk(source.rows.join(missing, "doc_id", "left_semi"), cached)
    one = F.lit(1).cast("long")
    single = texts.unionByName(events.join(in_events, "doc_id", "left_semi")).withColumn("copies", one)
    # Rows without an id, and all rows of an id that occurs more than once, are rejected.
    each_row = F.explode(F.expr("sequence(1L, copies)"))
    rejected = counts.where(~is_single).select("doc_id", "copies", each_row.alias("row")).drop("row")
    rows = single.unionByName(rejected, allowMissingColumns=True)
    most = source.settings.max_chars
    return row_checks.validate_rows(rows, most), row_checks.validate_rows(texts.withColumn("copies", one), most)
