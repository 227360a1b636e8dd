"""Compare rows of the source with the output, and decide whether each document is new, changed, removed or the same."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from entitymill.errors import OutputError
from entitymill.source import row_checks
from entitymill.source.row_checks import REJECT_CODE

COMPARED_COLUMNS = ("doc_id", "status", "text_hash", "passthrough_hash", "fingerprint", "slice", "run_id")
"""Columns of the `documents` table that are needed to compare the table with the source."""
PENDING = "pending"
"""Status of a document whose mentions may be incomplete, because a run died; the next run recomputes the document."""


class Outcome(StrEnum):
    """What a run does with a document or a row of the source.

    NEW and CHANGED documents are recognized. ADOPTED documents are unchanged, and are only assigned to the run's slice (the
    rows that source.where selects). REMOVED documents are deleted from the output. REJECTED rows are written to `rejects`.
    SAME documents need no work: they are unchanged, or they are in another slice and missing in the source, or in neither
    source nor output. The ids of UNDECIDED documents must first be looked up in the source.
    """

    NEW = "new"
    CHANGED = "changed"
    ADOPTED = "adopted"
    REMOVED = "removed"
    REJECTED = "rejected"
    SAME = "same"
    UNDECIDED = "undecided"


class Cause(StrEnum):
    """Why a document counts as changed; if several causes apply, the first in this order is used."""

    PENDING = "left incomplete by a failed run"
    TEXT = "text"
    PASSTHROUGH = "passthrough columns"
    FINGERPRINT = "settings or model"
    FULL = "--full"


def compare_rows(
    validated: DataFrame,
    published: DataFrame,
    policy: Policy,
    undecided: Column | None = None,
    known_ids: DataFrame | None = None,
) -> DataFrame:
    """Return the Outcome of each row of `validated`, and of each document that is only in `published`.

    Args:
        validated: result of `row_checks.validate_rows`, with one more column, `present`. If `present` is false, the source
            no longer contains the id, or `undecided` has a reason; a row with false must have no reject code.
        published: DataFrame with COMPARED_COLUMNS of documents in the output.
        policy: rules that decide which documents are recomputed.
        undecided: expression for the reason why an id must first be looked up in the source. Ids with a reason are
            UNDECIDED; all others have null. The expression is evaluated in the full join of `validated` (alias s) and
            `published` (alias o) on doc_id. None if no id needs to be looked up.
        known_ids: DataFrame with the column doc_id; only rows of `validated` with these ids are compared. None compares all.

    Returns:
        A DataFrame with the columns doc_id, and these:

        - kind: the Outcome.
        - chars, copies, REJECT_CODE: code points of the text, number of rows with the id, and reject code, of `validated`.
        - in_output: whether `published` has the id.
        - is_removed: whether the run must remove the document: true for REMOVED. For REJECTED, it is true if a published
          document has the id, and belongs to the run's slice or to none.
        - other_fingerprint: the published document's fingerprint if the policy refuses it. Null if not, and for REJECTED
          rows whose is_removed is false. The caller must raise an error if the run would change a document where it is set.
        - cause: the Cause of a changed document, or null.
        - Only with `undecided`: reason (the value of `undecided`), present, and output_row (struct of COMPARED_COLUMNS).
    """
    text_hash = F.when(F.col(REJECT_CODE).isNull(), F.sha2("text", 256)).alias("text_hash")
    passthrough_hash = row_checks.hash_passthrough(validated.columns).alias("passthrough_hash")
    others = [name for name in validated.columns if name not in ("text", "passthrough")]
    source = validated.select(*others, text_hash, passthrough_hash)
    if known_ids is not None:
        is_known = F.col("doc_id").eqNullSafe(F.col("known_id"))
        source = source.join(known_ids.select(F.col("doc_id").alias("known_id")), is_known, "left_semi")
    joined = source.alias("s").join(
        published.select(*COMPARED_COLUMNS).alias("o"), F.col("s.doc_id") == F.col("o.doc_id"), "full"
    )
    in_output = F.col("o.doc_id").isNotNull()
    is_rejected = F.col(REJECT_CODE).isNotNull()
    kind, more = _classify(policy), []
    if undecided is not None:
        kind = F.when(undecided.isNotNull(), Outcome.UNDECIDED.value).otherwise(kind)
        output_row = F.struct(*(F.col(f"o.{name}") for name in COMPARED_COLUMNS))
        is_present = F.coalesce("present", F.lit(False))
        more = [undecided.alias("reason"), is_present.alias("present"), output_row.alias("output_row")]
    # A published document whose row is now rejected is removed, unless it belongs to another slice.
    is_of_this_slice = is_in_run_slice(policy) | F.col("o.slice").isNull()
    is_removed = F.when(is_rejected, in_output & is_of_this_slice).otherwise(kind == Outcome.REMOVED)
    is_refused = in_output & has_refused_fingerprint(policy) & (~is_rejected | is_removed)
    return joined.select(
        F.coalesce("s.doc_id", "o.doc_id").alias("doc_id"),
        kind.alias("kind"),
        *("chars", "copies", REJECT_CODE),
        in_output.alias("in_output"),
        is_removed.alias("is_removed"),
        F.when(is_refused, F.col("o.fingerprint")).alias("other_fingerprint"),
        F.when(kind == Outcome.CHANGED, _explain_change(policy)).alias("cause"),
        *more,
    )


def _classify(policy: Policy) -> Column:
    """Return an expression for the Outcome, except UNDECIDED, of a row in the join of source (s) and documents (o)."""
    in_output = F.col("o.doc_id").isNotNull()
    is_present = F.coalesce("present", F.lit(False))
    return (
        F.when(F.col(REJECT_CODE).isNotNull(), Outcome.REJECTED.value)
        .when(~is_present & in_output & is_in_run_slice(policy), Outcome.REMOVED.value)
        .when(~is_present, Outcome.SAME.value)
        .when(~in_output, Outcome.NEW.value)
        .when(_is_changed(policy), Outcome.CHANGED.value)
        .when(~is_in_run_slice(policy), Outcome.ADOPTED.value)
        .otherwise(Outcome.SAME.value)
    )


def _is_changed(policy: Policy) -> Column:
    """Return a condition that is true if a document, which is in both source and output, must be recomputed.

    A document outside the run's slice must be recomputed if its fingerprint (digest of models and settings) differs from
    this run's, even if the policy ignores other fingerprints. So if the run assigns a
    document to its slice without recomputing it, the document equals what the run would write.
    """
    fingerprint_differs = _fingerprint_differs(policy)
    changed = _is_pending() | _text_differs() | _passthrough_differs(policy)
    changed |= (
        fingerprint_differs if policy.reprocesses_other_fingerprints else fingerprint_differs & ~is_in_run_slice(policy)
    )
    if policy.full:
        is_recomputed = F.coalesce(F.col("o.run_id").isin(list(policy.interrupted_runs)), F.lit(False))
        changed |= ~is_recomputed
    return changed


def _explain_change(policy: Policy) -> Column:
    """Return an expression for the Cause why a document is recomputed; it is valid only where `_is_changed` is true."""
    return (
        F.when(_is_pending(), Cause.PENDING.value)
        .when(_text_differs(), Cause.TEXT.value)
        .when(_passthrough_differs(policy), Cause.PASSTHROUGH.value)
        .when(_fingerprint_differs(policy), Cause.FINGERPRINT.value)
        .otherwise(Cause.FULL.value)
    )


def _is_pending() -> Column:
    """Return a condition that is true if a dead run may have left the published document incomplete."""
    return F.col("o.status").eqNullSafe(PENDING)


def _text_differs() -> Column:
    """Return a condition that is true if the text in the source differs from the published document's text."""
    return ~F.col("s.text_hash").eqNullSafe(F.col("o.text_hash"))


def _fingerprint_differs(policy: Policy) -> Column:
    """Return a condition that is true if other models or settings than this run's produced the published document."""
    return ~F.col("o.fingerprint").eqNullSafe(policy.fingerprint)


def _passthrough_differs(policy: Policy) -> Column:
    """Return a condition that is true if fingerprints of document and run are equal, but the passthrough columns differ."""
    # If the fingerprints differ, passthrough columns are not compared: the policy decides about the document.
    return ~_fingerprint_differs(policy) & ~F.col("s.passthrough_hash").eqNullSafe(F.col("o.passthrough_hash"))


def is_in_run_slice(policy: Policy) -> Column:
    """Return a condition that is true for published documents of the run's slice (the rows that source.where selects).

    If the run replaces no slice, it is true for all documents. Documents for which it is false stay in the output, even if
    they are no longer in the source.
    """
    return F.lit(True) if policy.slice is None else F.col("slice").eqNullSafe(policy.slice)


def has_refused_fingerprint(policy: Policy) -> Column:
    """Return a condition that is true for documents whose fingerprint (digest of models and settings) the policy refuses.

    It is false for documents with the status PENDING, because these documents are recomputed anyway.
    """
    if not policy.refuses_other_fingerprints:
        return F.lit(False)
    return ~F.col("status").eqNullSafe(PENDING) & (F.col("fingerprint") != policy.fingerprint)


def check_fingerprints(published: DataFrame, policy: Policy) -> None:
    """Raise OutputError if a published document has a fingerprint (digest of models and settings) that the policy refuses.

    If the run replaces a slice (the rows that source.where selects), only the slice's documents are checked here.
    `compare_all` and `compare_feed` later check documents of other slices that the run would change.
    """
    if not policy.refuses_other_fingerprints:
        return
    refused = published.where(has_refused_fingerprint(policy) & is_in_run_slice(policy))
    found = refused.select("fingerprint").take(1)
    if found:
        raise build_fingerprint_error(found[0][0], policy)


def build_fingerprint_error(refused: str, policy: Policy) -> OutputError:
    """Return the error to raise if the output has a document with the fingerprint `refused`, which the policy refuses."""
    return OutputError(
        f"incremental.on_fingerprint_change: the output has documents with fingerprint {refused}, but this run has "
        f"{policy.fingerprint}: a model, a precision or another setting that affects results has changed. "
        "Set `incremental.on_fingerprint_change: reprocess` (or `ignore`), or run with --full."
    )


@dataclass(frozen=True)
class Totals:
    """Numbers of compared rows (new, changed, removed, rejected and others) in a comparison of the source with the output.

    sums: results of one or more calls of `sum_outcomes`; each Row has the totals for an Outcome, a reject code and a Cause.
    """

    sums: list[Row]

    def sum_column(self, column: str, *kinds: Outcome) -> int:
        """Return the sum of `column` (rows, chars, in_output or is_removed) over the Rows in `sums` with these Outcomes."""
        return sum(row[column] or 0 for row in self.sums if row["kind"] in kinds)

    def count_by(self, column: str, kind: Outcome) -> dict[str, int]:
        """Return the number of rows of this Outcome for each value of `column` (REJECT_CODE, cause or reason)."""
        counts: dict[str, int] = {}
        for row in self.sums:
            if row["kind"] == kind:
                counts[row[column]] = counts.get(row[column], 0) + row["rows"]
        return counts

    def find_refused_fingerprint(self) -> str | None:
        """Return a fingerprint that the policy refuses, of any document that the run would change; None if there is none."""
        found = (row["other_fingerprint"] for row in self.sums if row["kind"] not in (Outcome.SAME, Outcome.UNDECIDED))
        return next((fingerprint for fingerprint in found if fingerprint is not None), None)


def sum_outcomes(outcomes: DataFrame) -> list[Row]:
    """Count the rows of a result of `compare_rows` with a Spark job, by kind (the Outcome), reject code and Cause.

    Return one Row per combination of these and, if `outcomes` has the column reason, of the reason. Its other columns are
    rows (number of rows), chars (sum), in_output and is_removed (how many rows have true in this column; null if the column
    is always null), and other_fingerprint (one of the values, or null).
    """
    by = ["kind", REJECT_CODE, "cause", *(name for name in outcomes.columns if name == "reason")]
    sums = outcomes.groupBy(*by).agg(
        F.count("*").alias("rows"),
        F.sum("chars").alias("chars"),
        F.sum(F.col("in_output").cast("long")).alias("in_output"),
        F.sum(F.col("is_removed").cast("long")).alias("is_removed"),
        F.max("other_fingerprint").alias("other_fingerprint"),
    )
    return sums.collect()


class Mode(StrEnum):
    """How a run finds the documents that it must recognize.

    FIRST: all documents, because the output had none. FULL: because of --full, all documents, except those that an
    unfinished --full run recomputed. COMPARE: all rows were compared with the output. FEED: only rows in the source's change
    feed were compared. ARRIVALS: only rows in data files added since the last run were compared. NONE: nothing to do.
    """

    FIRST = "first"
    FULL = "full"
    COMPARE = "compare"
    FEED = "feed"
    ARRIVALS = "arrivals"
    NONE = "none"


@dataclass(frozen=True)
class Policy:
    """Rules that decide which documents a run recomputes.

    fingerprint: fingerprint of this run: a digest of models, precision and other settings that affect results.
    on_fingerprint_change: what to do if fingerprints of documents in the output differ from this run's: `reprocess` these
        documents, `ignore` the difference, or `refuse` the run. A full run always reprocesses them.
    slice: digest of source.where if the run replaces a slice (the rows that source.where selects); otherwise None.
    full: whether to recompute all documents, even unchanged ones, except documents that `interrupted_runs` wrote.
    interrupted_runs: ids of runs with --full and this fingerprint that did not complete; the documents that they wrote are
        up to date.
    """

    fingerprint: str
    on_fingerprint_change: str
    slice: str | None
    full: bool = False
    interrupted_runs: frozenset[str] = frozenset()

    @property
    def refuses_other_fingerprints(self) -> bool:
        """Whether the run fails if the output has documents of another fingerprint (digest of models and settings)."""
        return self.on_fingerprint_change == "refuse" and not self.full

    @property
    def reprocesses_other_fingerprints(self) -> bool:
        """Whether another fingerprint (digest of models and settings) makes a document count as changed."""
        return self.on_fingerprint_change != "ignore" or self.full
