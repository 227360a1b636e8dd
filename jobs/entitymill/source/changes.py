"""Find which documents a run must process: compare hashes of all rows, or only of changed rows, with the output."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.source import change_feed, feed_against_output, row_checks, rows_against_output
from entitymill.source.change_feed import Feed
from entitymill.source.reader import Source
from entitymill.source.row_checks import REJECT_CODE
from entitymill.source.rows_against_output import COMPARED_COLUMNS, Mode, Outcome, Policy, Totals, check_fingerprints
from entitymill.spark.spark_connect import cache_on_disk, is_remote

__all__ = [
    "COMPARED_COLUMNS", "Changes", "Mode", "Policy", "check_fingerprints", "compare_all", "compare_feed",
    "select_all_documents",
]  # fmt: skip
BROADCAST_SLICE = 500_000
"""Up to this number of ids (about 50 MB), Spark sends the ids of a run's slice (the rows that source.where selects) to every
executor, to avoid a shuffle."""


@dataclass(frozen=True)
class Changes:
    """Documents that one run must recognize or remove, and rows of the source that it must reject.

    mode: how the run found these documents.
    documents: DataFrame of the documents to recognize. The columns are doc_id, text, text_hash, chars, `passthrough` (if
        there are passthrough columns), and in_output (whether the output already contains the document).
    removed: DataFrame with the doc_id of each document to remove.
    rejected: DataFrame of rejected rows, with the columns doc_id, stage, code and detail.
    compared_ids: DataFrame with each doc_id that was compared; null stands for rows without an id. The run replaces the rows
        of these ids in `rejects`. None if all rows of the source were compared; the run then replaces all rows of `rejects`,
        or all rows of its slice (the rows that source.where selects).
    adopted: DataFrame with the doc_id of each unchanged document that the run's slice contains, although the output assigns
        the document to another slice or to none. The run assigns these documents to its own slice.
    rows: denominator of the ratio of rejected rows, which a run compares with limits.max_reject_ratio. If all rows were
        compared, it is the number of rows of the source or slice. If only changed rows were compared, it is the number of
        documents in the output or slice, plus the number of rejected rows; 0 if no row was rejected.
    reject_counts: dict from each reject code to the number of rows in `rejected`.
    to_recognize, to_remove, to_adopt: number of documents in `documents`, `removed` and `adopted`.
    chars: total number of code points of the texts in `documents`.
    to_replace: number of `documents` that are already in the output.
    close: function that releases the cached data of the DataFrames above; call it when they are no longer needed.
    stale_rejects: number of `compared_ids` that already have rows in `rejects`, which the run must replace; 0 if
        `compared_ids` is None. A null in `compared_ids` counts as such an id if `rejects` has any rows.
    causes: dict from each Cause (why a document counts as changed) to the number of documents; each counts for one Cause.
    """

    mode: Mode
    documents: DataFrame
    removed: DataFrame
    rejected: DataFrame
    compared_ids: DataFrame | None
    adopted: DataFrame
    rows: int
    reject_counts: dict[str, int]
    to_recognize: int
    to_remove: int
    to_adopt: int
    chars: int
    to_replace: int
    close: Callable[[], object] = field(default=lambda: None)
    stale_rejects: int = 0
    causes: dict[str, int] = field(default_factory=dict)


def select_all_documents(source: Source, mode: Mode) -> Changes:
    """Return `Changes` in which every valid row of the source is a new document; use this if the output has no documents.

    Invalid rows are rejected, and nothing is removed. This runs Spark jobs, to find duplicate ids and to count. `mode` is
    only stored in the result.
    """
    validated = source.validate_rows()
    counted = validated.groupBy(REJECT_CODE).agg(F.count("*").alias("rows"), F.sum("chars").alias("chars")).collect()
    documents = row_checks.select_documents(validated)
    return Changes(
        mode=mode,
        documents=documents.withColumn("in_output", F.lit(False)),
        removed=documents.select("doc_id").limit(0),
        rejected=row_checks.select_rejects(validated, source.settings.max_chars),
        compared_ids=None,
        adopted=documents.select("doc_id").limit(0),
        rows=sum(row["rows"] for row in counted),
        reject_counts={row[REJECT_CODE]: row["rows"] for row in counted if row[REJECT_CODE] is not None},
        to_recognize=sum(row["rows"] for row in counted if row[REJECT_CODE] is None),
        to_remove=0,
        to_adopt=0,
        chars=sum(row["chars"] or 0 for row in counted if row[REJECT_CODE] is None),
        to_replace=0,
    )


def compare_all(source: Source, published: DataFrame, policy: Policy) -> Changes:
    """Compare hashes of all rows of the source with the output, and return what the run must do.

    This runs Spark jobs, and caches data until `Changes.close` is called. The DataFrame `Changes.documents` reads the source
    a second time, for the texts to recognize.

    Args:
        source: the source, opened at the version that this run reads.
        published: DataFrame with COMPARED_COLUMNS of all documents in the output, even if the run replaces only a slice (the
            rows that source.where selects).
        policy: rules that decide which documents are recomputed.

    Raises:
        OutputError: the policy refuses the fingerprint (digest of models and settings) of a document in the output. If the
            run replaces a slice, documents of other slices count only if the run would change them.
    """
    check_fingerprints(published, policy)
    validated = source.validate_rows()
    with ExitStack() as cached:
        # Spark Connect may refuse to cache the slice's ids. Each use would then read them again from the source. If the
        # source is not pinned, the second use could get different ids than the first.
        if policy.slice is None or (not source.is_pinned and is_remote(source.rows.sparkSession)):
            rows, ids, related = source.rows.count(), None, published
        else:
            rows, ids, related = _restrict_to_slice(source, published, policy, cached)
        # A row may move to this slice from another one after the ids were read. `related` then lacks the row's document, and
        # the run would publish the document a second time. So only rows whose ids were read are compared.
        known = None if source.is_pinned else ids
        present = validated.withColumn("present", F.lit(True))
        compared = rows_against_output.compare_rows(present, related, policy, known_ids=known)
        outcomes = cache_on_disk(compared.where(F.col("kind") != Outcome.SAME), cached)
        totals = Totals(rows_against_output.sum_outcomes(outcomes))
        mode = Mode.FULL if policy.full else Mode.COMPARE
        found = _build_changes(mode, source, policy, outcomes, totals, row_checks.select_documents(validated))
        return replace(found, rows=rows, close=cached.pop_all().close)


def _restrict_to_slice(
    source: Source, published: DataFrame, policy: Policy, cached: ExitStack
) -> tuple[int, DataFrame, DataFrame]:
    """Return the number of rows of the run's slice, their ids, and the published documents to compare with them.

    The slice is the rows that source.where selects. The ids are a DataFrame with the column doc_id. The documents are those
    in `published` that belong to the slice or have one of the ids. This runs a Spark job, and caches the ids on disk until
    the stack `cached` is closed.
    """
    ids = cache_on_disk(source.rows.select("doc_id"), cached)
    span = (F.count("*").alias("rows"), F.min("doc_id").alias("least"), F.max("doc_id").alias("most"))
    [bounds] = ids.agg(*span).collect()
    if bounds["rows"] <= BROADCAST_SLICE:
        ids = F.broadcast(ids)
    own = rows_against_output.is_in_run_slice(policy)
    # The range of ids lets Delta skip files.
    others = published.where(~own & F.col("doc_id").between(F.lit(bounds["least"]), F.lit(bounds["most"])))
    return bounds["rows"], ids, published.where(own).unionByName(others.join(ids, "doc_id", "left_semi"))


def compare_feed(
    source: Source,
    feed: Feed,
    published: DataFrame,
    rejected: DataFrame | None,
    policy: Policy,
    retry: DataFrame | None = None,
) -> Changes | None:
    """Compare the output only with rows of the source that changed since the last run, and return what the run must do.

    If the change events do not show in which rows a changed id still occurs, the id is looked up in the source. If Spark
    fails, for example because files of the events were deleted, log the error's type and return None. The caller must then
    call `compare_all`. This runs Spark jobs, and caches data until `Changes.close` is called.

    Args:
        source: the source, opened at the version that this run reads.
        feed: changes since the version of the source that the last run read.
        published: DataFrame with COMPARED_COLUMNS of all documents in the output, even if the run replaces only a slice (the
            rows that source.where selects).
        rejected: rows of the `rejects` table, of which only doc_id is used; None if the table is empty.
        policy: rules that decide which documents are recomputed.
        retry: DataFrame with the doc_id of each document to look up in the source even if it has no change event; None if
            there are none.

    Raises:
        OutputError: the policy refuses the fingerprint (digest of models and settings) of a document in the output. If the
            run replaces a slice, documents of other slices count only if the run would change them.
    """
    check_fingerprints(published, policy)
    try:
        with ExitStack() as cached:
            compared = feed_against_output.compare_events(source, feed, published, rejected, policy, retry, cached)
            found = _build_changes(feed.mode, source, policy, compared.outcomes, compared.totals, compared.documents)
            rejects = sum(found.reject_counts.values())
            return replace(
                found,
                compared_ids=compared.compared_ids,
                rows=published.where(rows_against_output.is_in_run_slice(policy)).count() + rejects if rejects else 0,
                stale_rejects=compared.stale_rejects,
                close=cached.pop_all().close,
            )
    except (PySparkException, Py4JJavaError) as error:
        change_feed.log_unreadable(error)
        return None


def _build_changes(
    mode: Mode, source: Source, policy: Policy, outcomes: DataFrame, totals: Totals, documents: DataFrame
) -> Changes:
    """Return `Changes` from a comparison; the caller sets `rows`, `close` and, for a feed, `compared_ids`, `stale_rejects`.

    `outcomes` is a result of `rows_against_output.compare_rows`, without rows of kind SAME. `totals` counts the rows in
    `outcomes` and, for a feed, also rows of kind SAME. `documents` has at least all new and changed documents, with their
    texts.

    If rows are rejected and documents are removed, a Spark job counts the removed documents. Raise OutputError if the policy
    refuses the fingerprint (digest of models and settings) of a document that the run would change.
    """
    other_fingerprint = totals.find_refused_fingerprint()
    if other_fingerprint is not None:
        raise rows_against_output.build_fingerprint_error(other_fingerprint, policy)
    work = (Outcome.NEW, Outcome.CHANGED)
    to_do = outcomes.where(F.col("kind").isin(*(kind.value for kind in work))).select("doc_id", "in_output")
    to_do = to_do.dropDuplicates(["doc_id"])  # after an error, the output may have several rows of a document
    removed = outcomes.where("is_removed").select("doc_id").distinct()
    counts = totals.count_by(REJECT_CODE, Outcome.REJECTED)
    # If several rejected rows have the same id, this total counts their document several times. So count `removed` instead.
    to_remove = totals.sum_column("is_removed", *Outcome)
    if to_remove and counts:
        to_remove = removed.count()
    return Changes(
        mode=mode,
        documents=documents.join(to_do, "doc_id"),
        removed=removed,
        rejected=row_checks.select_rejects(outcomes.where(F.col("kind") == Outcome.REJECTED), source.settings.max_chars),
        compared_ids=None,
        adopted=outcomes.where(F.col("kind") == Outcome.ADOPTED).select("doc_id"),
        rows=0,
        reject_counts=counts,
        to_recognize=totals.sum_column("rows", *work),
        to_remove=to_remove,
        to_adopt=totals.sum_column("rows", Outcome.ADOPTED),
        chars=totals.sum_column("chars", *work),
        to_replace=totals.sum_column("in_output", *work),
        causes=totals.count_by("cause", Outcome.CHANGED),
    )
