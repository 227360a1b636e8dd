"""Compare rows of the source with the output, and decide whether each document is new, changed, removed or the same."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from entitymill.errors import OutputError
from entitymill.source import row_checks
from entitymill.source.change_policy import KNOWN_COLUMNS, PENDING, Policy
from entitymill.source.row_checks import CODE


class Kind(StrEnum):
    """What a run does with a document or a row of the source.

    NEW and CHANGED documents are recognized, ADOPTED documents only get the run's slice (the rows that source.where
    selects), REMOVED documents are deleted from the output, and REJECTED rows are written to `rejects`. SAME needs no work.
    UNSETTLED means that the id must be looked up in the source first.
    """

    NEW = "new"
    CHANGED = "changed"
    ADOPTED = "adopted"
    REMOVED = "removed"
    REJECTED = "rejected"
    SAME = "same"
    UNSETTLED = "unsettled"


class Cause(StrEnum):
    """Why a document counts as changed; if several causes apply, the first in this order is used."""

    PENDING = "left incomplete by a failed run"
    TEXT = "text"
    PASSTHROUGH = "passthrough columns"
    FINGERPRINT = "settings or model"
    FULL = "--full"


def compare_rows(validated: DataFrame, known: DataFrame, policy: Policy, unsettled: Column | None = None) -> DataFrame:
    """Return one row for each row of `validated`, and for each known document whose doc_id is not in `validated`.

    Args:
        validated: result of `row_checks.validate_rows`, with the `present` column: whether the row is in the source.
        known: frame with KNOWN_COLUMNS of documents in the output.
        policy: rules that decide which documents are recomputed.
        unsettled: expression over the aliases s (`validated`) and k (`known`): the reason why the id must be looked up in
            the source, null if it need not. None if no id needs to be looked up.

    Returns:
        Frame with the columns doc_id, kind, chars, copies, CODE, known (whether `known` has the id), is_removed (whether the
        document is removed from the output), other_fingerprint (the known document's fingerprint if the run must fail when
        it changes this document, otherwise null), and cause (the Cause of a changed document, otherwise null). With
        `unsettled`, the frame also has reason (the value of `unsettled`), present, and known_row (a struct of
        KNOWN_COLUMNS).
    """
    text_hash = F.when(F.col(CODE).isNull(), F.sha2("text", 256)).alias("text_hash")
    passthrough_hash = row_checks.hash_passthrough(validated.columns).alias("passthrough_hash")
    others = [name for name in validated.columns if name not in ("text", "passthrough")]
    source = validated.select(*others, text_hash, passthrough_hash).alias("s")
    joined = source.join(known.select(*KNOWN_COLUMNS).alias("k"), F.col("s.doc_id") == F.col("k.doc_id"), "full")
    is_known = F.col("k.doc_id").isNotNull()
    is_rejected = F.col(CODE).isNotNull()
    kind, more = _classify(policy), []
    if unsettled is not None:
        kind = F.when(unsettled.isNotNull(), Kind.UNSETTLED.value).otherwise(kind)
        known_row = F.struct(*(F.col(f"k.{name}") for name in KNOWN_COLUMNS))
        more = [
            unsettled.alias("reason"),
            F.coalesce("present", F.lit(False)).alias("present"),
            known_row.alias("known_row"),
        ]
    return joined.select(
        F.coalesce("s.doc_id", "k.doc_id").alias("doc_id"),
        kind.alias("kind"),
        *("chars", "copies", CODE),
        is_known.alias("known"),
        # If the row of a known document is rejected, the document is removed.
        F.when(is_rejected, is_known & (is_own(policy) | F.col("k.slice").isNull()))
        .otherwise(kind == Kind.REMOVED)
        .alias("is_removed"),
        F.when(is_known & has_refused_fingerprint(policy), F.col("k.fingerprint")).alias("other_fingerprint"),
        F.when(kind == Kind.CHANGED, _explain_change(policy)).alias("cause"),
        *more,
    )


def _classify(policy: Policy) -> Column:
    """Return an expression for the Kind of a row of the join of the source (s) with the known documents (k)."""
    is_known = F.col("k.doc_id").isNotNull()
    is_present = F.coalesce("present", F.lit(False))
    return (
        F.when(F.col(CODE).isNotNull(), Kind.REJECTED.value)
        .when(~is_present & is_known & is_own(policy), Kind.REMOVED.value)
        .when(~is_present, Kind.SAME.value)
        .when(~is_known, Kind.NEW.value)
        .when(_is_changed(policy), Kind.CHANGED.value)
        .when(~is_own(policy), Kind.ADOPTED.value)
        .otherwise(Kind.SAME.value)
    )


def _is_changed(policy: Policy) -> Column:
    """Return a condition that is true if a document that is both in the source and in the output must be recomputed."""
    has_other_fingerprint = _has_other_fingerprint(policy)
    changed = _is_pending() | _has_other_text() | _has_other_passthrough(policy)
    # A document of another slice is adopted only if it equals what this run would write.
    changed |= has_other_fingerprint if policy.reprocesses else has_other_fingerprint & ~is_own(policy)
    if policy.full:
        is_recomputed = F.coalesce(F.col("k.run_id").isin(list(policy.interrupted_runs)), F.lit(False))
        changed |= ~is_recomputed
    return changed


def _explain_change(policy: Policy) -> Column:
    """Return an expression for the Cause of a document for which `_is_changed` is true."""
    return (
        F.when(_is_pending(), Cause.PENDING.value)
        .when(_has_other_text(), Cause.TEXT.value)
        .when(_has_other_passthrough(policy), Cause.PASSTHROUGH.value)
        .when(_has_other_fingerprint(policy), Cause.FINGERPRINT.value)
        .otherwise(Cause.FULL.value)
    )


def _is_pending() -> Column:
    return F.col("k.status").eqNullSafe(PENDING)


def _has_other_text() -> Column:
    return ~F.col("s.text_hash").eqNullSafe(F.col("k.text_hash"))


def _has_other_fingerprint(policy: Policy) -> Column:
    return ~F.col("k.fingerprint").eqNullSafe(policy.fingerprint)


def _has_other_passthrough(policy: Policy) -> Column:
    # Passthrough columns are compared only for documents of the same model: for others, the policy decides.
    return ~_has_other_fingerprint(policy) & ~F.col("s.passthrough_hash").eqNullSafe(F.col("k.passthrough_hash"))


def is_own(policy: Policy) -> Column:
    """Return a condition that is true for known documents of the run's slice; for all, if the run replaces no slice.

    Only these documents may be removed by the run if they are no longer in the source.
    """
    return F.lit(True) if policy.slice is None else F.col("slice").eqNullSafe(policy.slice)


def has_refused_fingerprint(policy: Policy) -> Column:
    """Return a condition that is true for documents in the output that make the run fail because of their fingerprint.

    If the policy refuses other fingerprints, these are documents whose fingerprint differs from the run's. Pending documents
    are not among them, because they are recomputed anyway.
    """
    if not policy.refuses:
        return F.lit(False)
    return ~F.col("status").eqNullSafe(PENDING) & (F.col("fingerprint") != policy.fingerprint)


def check_fingerprints(known: DataFrame, policy: Policy) -> None:
    """Check that the output has no documents that the policy refuses because of their fingerprint.

    If the run replaces a slice, this checks only documents of the slice. `compare_all` and `compare_feed` later check the
    documents of other slices that the run would change.

    Args:
        known: frame with KNOWN_COLUMNS of all documents in the output.

    Raises:
        OutputError: the output has a document that the policy refuses.
    """
    if not policy.refuses:
        return
    others = known.where(has_refused_fingerprint(policy) & is_own(policy))
    found = others.select("fingerprint").take(1)
    if found:
        raise build_fingerprint_error(found[0][0], policy)


def build_fingerprint_error(found: str, policy: Policy) -> OutputError:
    """Return the error for an output that has a document with the fingerprint `found` instead of the run's fingerprint."""
    return OutputError(
        f"incremental.on_fingerprint_change: the output has documents of fingerprint {found}, but this run has "
        f"{policy.fingerprint}: a model, a precision or another setting that affects results has changed. "
        "Set `incremental.on_fingerprint_change: reprocess` (or `ignore`), or run with --full."
    )


@dataclass(frozen=True)
class Totals:
    """Totals over the result of `compare_rows`, from the rows that `sum_outcomes` returns."""

    sums: list[Row]

    def sum_column(self, column: str, *kinds: Kind) -> int:
        """Return the sum of a column, such as `rows` or `chars`, over the rows of these kinds."""
        return sum(row[column] or 0 for row in self.sums if row["kind"] in kinds)

    def count_by(self, column: str, kind: Kind) -> dict[str, int]:
        """Return value of `column` -> number of rows of a kind, for a column by which `sum_outcomes` groups."""
        counts: dict[str, int] = {}
        for row in self.sums:
            if row["kind"] == kind:
                counts[row[column]] = counts.get(row[column], 0) + row["rows"]
        return counts

    def find_refused_fingerprint(self) -> str | None:
        """Return the fingerprint of one document that the run would change, but the policy refuses, or None."""
        found = (row["other_fingerprint"] for row in self.sums if row["kind"] not in (Kind.SAME, Kind.UNSETTLED))
        return next((fingerprint for fingerprint in found if fingerprint is not None), None)


def sum_outcomes(outcomes: DataFrame) -> list[Row]:
    """Return sums over the rows of `compare_rows`, for `Totals`.

    There is one row per combination of kind, reject code, cause and, if there is such a column, reason.

    This runs a Spark job.
    """
    by = ["kind", CODE, "cause", *(name for name in outcomes.columns if name == "reason")]
    sums = outcomes.groupBy(*by).agg(
        F.count("*").alias("rows"),
        F.sum("chars").alias("chars"),
        F.sum(F.col("known").cast("long")).alias("known"),
        F.sum(F.col("is_removed").cast("long")).alias("is_removed"),
        F.max("other_fingerprint").alias("other_fingerprint"),
    )
    return sums.collect()
