"""What a run has to do: documents of the source vs those of the output, by hashes or by what changed since the last run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.source import change_feed, feed_comparison, outcomes, row_checks
from entitymill.source.change_feed import Feed
from entitymill.source.outcomes import Kind, Totals, cache_on_disk, check_fingerprints
from entitymill.source.policy import KNOWN_COLUMNS, Mode, Policy
from entitymill.source.reader import Source
from entitymill.source.row_checks import CODE

__all__ = [
    "KNOWN_COLUMNS",
    "Changes",
    "Mode",
    "Policy",
    "check_fingerprints",
    "compare_all",
    "compare_feed",
    "select_all_documents",
]
BROADCAST_SLICE = 500_000
"""Ids of a slice that every executor gets, some 50 MB, so that documents of other slices are not shuffled."""


@dataclass(frozen=True)
class Changes:
    """What one run has to do.

    mode: how it was found.
    documents: to recognise: doc_id, text, text_hash, chars, known (whether the output has a row of it), perhaps
        `passthrough`.
    removed: doc_id of documents to take out.
    refused: doc_id, stage, code, detail.
    touched: doc_id of the ids whose rows in `rejects` are replaced by `refused`, null for rows without an id; None if all
        rows of the source were looked at, so that all rejects of the run's scope are replaced.
    adopted: doc_id of documents of no slice or of another slice that only get the run's slice.
    rows: of which `counts` were refused: all that were looked at; in a run by feed the documents of the output and the
        refused rows, or 0 if no row was refused.
    counts: reject code -> rows in `refused`.
    to_recognise, to_remove, to_adopt: documents in `documents`, `removed` and `adopted`.
    chars, known: code points of the texts in `documents`, and how many of these are known.
    close: releases what is cached.
    stale_rejects: how many of the touched ids may have rows in `rejects`; 0 if `touched` is None.
    """

    mode: Mode
    documents: DataFrame
    removed: DataFrame
    rejected: DataFrame
    touched: DataFrame | None
    adopted: DataFrame
    rows: int
    reject_counts: dict[str, int]
    to_recognise: int
    to_remove: int
    to_adopt: int
    chars: int
    known: int
    close: Callable[[], object] = field(default=lambda: None)
    stale_rejects: int = 0

    @property
    def covers_all_rows(self) -> bool:
        """Whether the comparison covered every row of the source, not only those that changed."""
        return self.touched is None


def select_all_documents(source: Source, mode: Mode) -> Changes:
    """Return all documents, for an output that holds none."""
    judged = source.validated_rows()
    counted = judged.groupBy(CODE).agg(F.count("*").alias("rows"), F.sum("chars").alias("chars")).collect()
    documents = row_checks.select_documents(judged)
    return Changes(
        mode=mode,
        documents=documents.withColumn("known", F.lit(False)),
        removed=documents.select("doc_id").limit(0),
        rejected=row_checks.select_rejects(judged, source.settings.max_chars),
        touched=None,
        adopted=documents.select("doc_id").limit(0),
        rows=sum(row["rows"] for row in counted),
        reject_counts={row[CODE]: row["rows"] for row in counted if row[CODE] is not None},
        to_recognise=sum(row["rows"] for row in counted if row[CODE] is None),
        to_remove=0,
        to_adopt=0,
        chars=sum(row["chars"] or 0 for row in counted if row[CODE] is None),
        known=0,
    )


def compare_all(source: Source, known: DataFrame, policy: Policy) -> Changes:
    """Compare all rows with what the output holds, by hashes; texts to be recognised are read in a second pass.

    Args:
        known: KNOWN_COLUMNS of all that the output holds; of a slice, too.

    Raises:
        OutputError: the run would touch a document of another fingerprint, and the policy is to refuse.
    """
    check_fingerprints(known, policy)
    judged = source.validated_rows()
    with ExitStack() as cached:
        if policy.slice is None:
            rows, related = source.rows.count(), known
        else:
            rows, related = _restrict_to_slice(source, known, policy, cached)
        compared = outcomes.compare_rows(judged.withColumn("present", F.lit(True)), related, policy)
        differing = cache_on_disk(compared.where(F.col("kind") != Kind.SAME), cached)
        totals = Totals(outcomes.sum_outcomes(differing))
        mode = Mode.FULL if policy.full else Mode.COMPARE
        found = _build_changes(mode, source, policy, differing, totals, row_checks.select_documents(judged))
        return replace(found, rows=rows, close=cached.pop_all().close)


def _restrict_to_slice(source: Source, known: DataFrame, policy: Policy, cached: ExitStack) -> tuple[int, DataFrame]:
    """Count the slice's rows, and leave out known documents that it has nothing to do with.

    Returns:
        Rows of the source; of `known`, the documents of the slice, and others whose id is in the source.
    """
    ids = cache_on_disk(source.rows.select("doc_id"), cached)
    span = (F.count("*").alias("rows"), F.min("doc_id").alias("least"), F.max("doc_id").alias("most"))
    [found] = ids.agg(*span).collect()
    if found["rows"] <= BROADCAST_SLICE:
        ids = F.broadcast(ids)
    own = outcomes.is_own(policy)
    # A range, so that Delta skips files.
    others = known.where(~own & F.col("doc_id").between(F.lit(found["least"]), F.lit(found["most"])))
    return found["rows"], known.where(own).unionByName(others.join(ids, "doc_id", "left_semi"))


def compare_feed(
    source: Source,
    feed: Feed,
    known: DataFrame,
    rejected: DataFrame | None,
    policy: Policy,
    retry: DataFrame | None = None,
) -> Changes | None:
    """Compare what changed since the last run with what the output holds.

    An id whose rows the events do not settle is looked up in the source.

    Args:
        feed: since the version of the source that the output is of.
        known: KNOWN_COLUMNS of all that the output holds; of a slice, too.
        rejected: doc_id of `rejects`; None if it is empty.
        retry: doc_id of documents to look up although no event names them; None if there are none.

    Returns:
        None if Delta cannot read what it promised: all rows must be compared.

    Raises:
        OutputError: the run would touch a document of another fingerprint, and the policy is to refuse.
    """
    check_fingerprints(known, policy)
    try:
        with ExitStack() as cached:
            compared = feed_comparison.compare_events(source, feed, known, rejected, policy, retry, cached)
            found = _build_changes(feed.mode, source, policy, compared.differing, compared.totals, compared.documents)
            refused = sum(found.reject_counts.values())
            return replace(
                found,
                touched=compared.touched,
                rows=known.where(outcomes.is_own(policy)).count() + refused if refused else 0,
                stale_rejects=compared.stale_rejects,
                close=cached.pop_all().close,
            )
    except (PySparkException, Py4JJavaError) as error:
        change_feed.log_unreadable(error)
        return None


def _build_changes(
    mode: Mode, source: Source, policy: Policy, differing: DataFrame, totals: Totals, documents: DataFrame
) -> Changes:
    """Put together what a run has to do; `rows`, `touched` and `close` are left to the caller.

    Args:
        differing: of `outcomes.compare_rows`, but those of kind SAME.
        totals: of `differing`.
        documents: of `row_checks.documents`: at least the new and changed ones.

    Raises:
        OutputError: the run would touch a document of another fingerprint, and the policy is to refuse.
    """
    other_fingerprint = totals.other_fingerprint()
    if other_fingerprint is not None:
        raise outcomes.other_fingerprint_error(other_fingerprint, policy)
    work = (Kind.NEW, Kind.CHANGED)
    to_do = differing.where(F.col("kind").isin(*(kind.value for kind in work))).select("doc_id", "known")
    removed = differing.where("is_removed").select("doc_id").distinct()
    counts = totals.codes()
    # A refused id may occur more than once.
    to_remove = removed.count() if totals.removed() and counts else totals.removed()
    return Changes(
        mode=mode,
        documents=documents.join(to_do, "doc_id"),
        removed=removed,
        rejected=row_checks.select_rejects(differing.where(F.col("kind") == Kind.REJECTED), source.settings.max_chars),
        touched=None,
        adopted=differing.where(F.col("kind") == Kind.ADOPTED).select("doc_id"),
        rows=0,
        reject_counts=counts,
        to_recognise=totals.rows(*work),
        to_remove=to_remove,
        to_adopt=totals.rows(Kind.ADOPTED),
        chars=totals.chars(*work),
        known=totals.known(*work),
    )
