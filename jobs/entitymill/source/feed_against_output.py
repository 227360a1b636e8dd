"""Compare change events (inserts, updates, deletes of the source) with the output; look up undecided ids in the source.

An id is undecided if the events do not show whether, and in which rows, the source still contains it.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from entitymill.source import change_feed, row_checks, rows_against_output
from entitymill.source.change_feed import Feed
from entitymill.source.reader import Source
from entitymill.source.row_checks import REJECT_CODE
from entitymill.source.rows_against_output import COMPARED_COLUMNS, PENDING, Outcome, Policy, Totals
from entitymill.spark.spark_connect import cache_on_disk

log = logging.getLogger(__name__)
BROADCAST_IDS = 100_000
"""Up to this number of ids, Spark sends all ids to every executor (a broadcast), and need not shuffle the source's rows."""
_REJECTED, _NULL = "in rejects", "null"
"""Reasons to look up an id in the source: the `rejects` table contains the id, or the id is null."""


@dataclass(frozen=True)
class FeedComparison:
    """Result of a comparison of change events with the output.

    outcomes: result of `rows_against_output.compare_rows` for the rows of the source and the documents for which the run has
        something to do, so without rows whose Outcome (column kind) is SAME or UNDECIDED.
    totals: numbers of all compared rows, also those whose Outcome is SAME, by Outcome, reject code and Cause.
    documents: DataFrame with at least all new and changed documents, with the columns doc_id, text, text_hash, chars and, if
        there are passthrough columns, `passthrough`.
    compared_ids: DataFrame with each doc_id that was compared; null stands for rows without an id.
    stale_rejects: number of `compared_ids` that already have rows in `rejects`; the run must replace these rows. A null in
        `compared_ids` counts as such an id if `rejects` has any rows.
    """

    outcomes: DataFrame
    totals: Totals
    documents: DataFrame
    compared_ids: DataFrame
    stale_rejects: int


def compare_events(
    source: Source,
    feed: Feed,
    published: DataFrame,
    rejected: DataFrame | None,
    policy: Policy,
    retry: DataFrame | None,
    cached: ExitStack,
) -> FeedComparison:
    """Compare change events with the output; look up an id in the source if its events do not show its current rows.

    Documents with the status PENDING (left incomplete by a dead run) are also looked up, even if they have no event. This
    runs Spark jobs. If ids are looked up, log for each reason how many.

    Args:
        source: the source, opened at the version that this run reads.
        feed: changes since the version of the source that the last run read.
        published: DataFrame with COMPARED_COLUMNS of all documents in the output.
        rejected: rows of the `rejects` table, of which only doc_id is used; None if the table is empty.
        policy: rules that decide which documents are recomputed.
        retry: DataFrame with the doc_id of each document to look up in the source even if it has no change event; None if
            there are none.
        cached: stack that releases the cached data when it is closed.
    """
    latest = cache_on_disk(change_feed.aggregate_events(feed), cached)
    to_compare = latest if retry is None else _add_ids_to_look_up(latest, retry)
    validated = _validate_latest(to_compare, source.settings.max_chars)
    related = _select_related(published, to_compare, policy)
    flagged = _flag_rejected(validated, rejected)
    compared = cache_on_disk(rows_against_output.compare_rows(flagged, related, policy, _explain_undecided()), cached)
    sums = rows_against_output.sum_outcomes(compared)
    reasons = Totals(sums).count_by("reason", Outcome.UNDECIDED)
    decided = ~F.col("kind").isin(Outcome.UNDECIDED.value, Outcome.SAME.value)
    outcomes = compared.where(decided).drop("reason", "present", "output_row")
    documents = row_checks.select_documents(validated.where("present"))
    if reasons:
        counts = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()))
        log.info("looking up ids in the source, by reason: %s", counts)
        undecided = compared.where(F.col("kind") == Outcome.UNDECIDED)
        events = validated.where("present").select(*source.rows.columns)
        rows, texts = _look_up_rows(source, undecided, sum(reasons.values()), events, cached)
        output_rows = undecided.where("in_output").select("output_row.*")
        looked_up = cache_on_disk(
            rows_against_output.compare_rows(rows.withColumn("present", F.lit(True)), output_rows, policy), cached
        )
        sums = [row for row in sums if row["kind"] != Outcome.UNDECIDED] + rows_against_output.sum_outcomes(looked_up)
        outcomes = outcomes.unionByName(looked_up.where(F.col("kind") != Outcome.SAME))
        documents = documents.unionByName(row_checks.select_documents(texts))
    stale_rejects = 0 if rejected is None else reasons.get(_REJECTED, 0) + reasons.get(_NULL, 0)
    return FeedComparison(outcomes, Totals(sums), documents, compared.select("doc_id"), stale_rejects)


def _add_ids_to_look_up(latest: DataFrame, ids: DataFrame) -> DataFrame:
    """Return `latest` with a new column `must_look_up`: true for each doc_id in `ids`, null for all other ids.

    `latest` is the result of `change_feed.aggregate_events`. `ids` has the doc_id of each document that the run must retry.
    `compare_events` looks up these ids in the source, because their rows may have no change event to read the text from.

    An id that has no event gets a new row. In this row, rows_written and net_rows (rows added minus removed) are 0, since no
    event wrote, added or removed a row. Null ids in `ids` are ignored.
    """
    flagged = ids.where("doc_id IS NOT NULL").select("doc_id").distinct().withColumn("must_look_up", F.lit(True))
    return latest.join(flagged, "doc_id", "full").fillna(0, ["rows_written", "net_rows"])


def _validate_latest(latest: DataFrame, max_chars: int) -> DataFrame:
    """Return one row per id in `latest`: the text that the latest commit wrote for the id, and whether the row is valid.

    `latest` is the result of `change_feed.aggregate_events`, perhaps with the column must_look_up. The columns are doc_id,
    text, `passthrough` (if configured), rows_written and net_rows as in `latest`, copies (always 1), and these:

    - present: whether the latest commit wrote exactly one row with the id. If false, the text is meaningless.
    - must_look_up: true if the id must be looked up in the source in any case; otherwise false or null.
    - chars: number of code points of the text.
    - REJECT_CODE: reject code of the row; null for documents, and if `present` is false.
    """
    rows = latest.select(
        "doc_id",
        "row.*",
        F.lit(1).cast("long").alias("copies"),
        (F.col("rows_written") == 1).alias("present"),
        *("rows_written", "net_rows"),
        F.col("must_look_up") if "must_look_up" in latest.columns else F.lit(False).alias("must_look_up"),
    )
    return row_checks.validate_rows(rows, max_chars).withColumn(REJECT_CODE, F.when(F.col("present"), F.col(REJECT_CODE)))


def _flag_rejected(validated: DataFrame, rejected: DataFrame | None) -> DataFrame:
    """Return `validated` with the new column `rejected`: true if the id is in `rejected`, otherwise false or null.

    The argument `rejected` has the rows of the `rejects` table; it is None if the table is empty.
    """
    if rejected is None:
        return validated.withColumn("rejected", F.lit(False))
    # This join does not match null ids, which are looked up anyway; a null-safe join would shuffle the events again.
    listed = rejected.select("doc_id").distinct().withColumn("rejected", F.lit(True))
    return validated.join(listed, "doc_id", "left")


def _select_related(published: DataFrame, ids: DataFrame, policy: Policy) -> DataFrame:
    """Return the published documents whose doc_id is in `ids` or whose status is PENDING (left incomplete by a dead run).

    If the run replaces a slice (the rows that source.where selects), PENDING documents of other slices are returned only if
    `ids` contains their doc_id.
    """
    listed = ids.select("doc_id", F.lit(True).alias("is_listed"))
    own = published if policy.slice is None else published.where(rows_against_output.is_in_run_slice(policy))
    related = own.join(listed, "doc_id", "left").where(F.col("is_listed") | F.col("status").eqNullSafe(PENDING))
    if policy.slice is not None:
        others = published.where(~rows_against_output.is_in_run_slice(policy)).join(listed, "doc_id", "left_semi")
        related = related.unionByName(others, allowMissingColumns=True)
    return related.select(*COMPARED_COLUMNS)


def _explain_undecided() -> Column:
    """Return an expression for the reason why an id is undecided (must be looked up in the source); null for other ids.

    Use it only in the join of `rows_against_output.compare_rows`, in which alias s has the id's events, and alias o has the
    published document. An id is undecided in any of these cases:

    - The id is null or in `rejects`, or its document must be retried or has the status PENDING.
    - The latest commit wrote several rows of the id.
    - The id does not have as many rows now as the latest commit wrote. The number of rows now is the number before the
      events (1 if the document is published, otherwise 0) plus `net_rows` (rows added minus removed).
    """
    output_rows = F.col("o.doc_id").isNotNull().cast("int")
    return (
        F.when(F.col("s.rejected"), _REJECTED)
        .when(F.col("s.must_look_up"), "to be retried")
        .when(F.col("o.status").eqNullSafe(PENDING), PENDING)
        .when(F.coalesce("s.doc_id", "o.doc_id").isNull(), _NULL)
        .when(F.col("s.rows_written") > 1, "in several rows of a commit")
        .when(
            output_rows + F.col("s.net_rows") != F.col("s.rows_written"), "with rows that the change feed does not explain"
        )
    )


def _look_up_rows(
    source: Source, ids: DataFrame, id_count: int, events: DataFrame, cached: ExitStack
) -> tuple[DataFrame, DataFrame]:
    """Use Spark jobs to find the rows of these ids in the source; read a text only if `events` does not contain it.

    Args:
        source: the source, opened at the version that this run reads.
        ids: DataFrame with the columns doc_id (distinct ids; one may be null) and present (whether `events` has the id).
        id_count: number of rows of `ids`.
        events: rows that the latest commit of each id inserted or updated, with the columns of `source.rows`.
        cached: stack that releases the cached data when it is closed.

    Returns:
        Two results of `row_checks.validate_rows`. The first has all rows of the source with these ids; a row whose id is
        null or not unique has no text. The second has only the rows whose texts were read from the source.
    """
    ids = F.broadcast(ids) if id_count <= BROADCAST_IDS else ids
    same_id = F.col("s.doc_id").eqNullSafe(F.col("i.doc_id"))
    rows_of_ids = source.rows.select("doc_id").alias("s").join(ids.alias("i"), same_id).select("s.doc_id", "i.present")
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
    # Rows without an id, and all rows of an id that occurs more than once, are rejected. So their texts are not read.
    each_row = F.explode(F.expr("sequence(1L, copies)"))
    rejected = counts.where(~is_single).select("doc_id", "copies", each_row.alias("row")).drop("row")
    rows = single.unionByName(rejected, allowMissingColumns=True)
    most = source.settings.max_chars
    return row_checks.validate_rows(rows, most), row_checks.validate_rows(texts.withColumn("copies", one), most)
