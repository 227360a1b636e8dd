"""Rows of the source vs what the output holds of them: what happens to each document."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from entitymill.errors import OutputError
from entitymill.source import row_checks
from entitymill.source.policy import KNOWN_COLUMNS, PENDING, Policy
from entitymill.source.row_checks import CODE


def cache_on_disk(frame: DataFrame, cached: ExitStack) -> DataFrame:
    """Cache a frame on disk until a stack is closed."""
    cached.callback(frame.persist(StorageLevel.DISK_ONLY).unpersist)
    return frame


class Kind(StrEnum):
    """What happens to a document or a refused row."""

    NEW = "new"
    CHANGED = "changed"
    ADOPTED = "adopted"
    REMOVED = "removed"
    REJECTED = "rejected"
    SAME = "same"
    UNSETTLED = "unsettled"


def compare_rows(judged: DataFrame, known: DataFrame, policy: Policy, unsettled: Column | None = None) -> DataFrame:
    """Return one row for each row of the source and for each known document that it has no row of.

    Args:
        judged: of `row_checks.judge`, with `present`: whether the row is in the source.
        known: KNOWN_COLUMNS.
        unsettled: why the id needs a look at the source, null if it needs none; over s, `judged`, and k, `known`.

    Returns:
        doc_id, kind, chars, copies, CODE, known (whether `known` has it), gone (whether it is taken out of the output),
        other_fingerprint (of a known document, if the policy refuses it). If `unsettled` is given, also reason, its value;
        present; and held, a struct of KNOWN_COLUMNS.
    """
    text_hash = F.when(F.col(CODE).isNull(), F.sha2("text", 256)).alias("text_hash")
    passthrough_hash = row_checks.hash_passthrough(judged.columns).alias("passthrough_hash")
    others = [name for name in judged.columns if name not in ("text", "passthrough")]
    source = judged.select(*others, text_hash, passthrough_hash).alias("s")
    joined = source.join(known.select(*KNOWN_COLUMNS).alias("k"), F.col("s.doc_id") == F.col("k.doc_id"), "full")
    is_known = F.col("k.doc_id").isNotNull()
    is_refused = F.col(CODE).isNotNull()
    kind, more = _classify(policy), []
    if unsettled is not None:
        kind = F.when(unsettled.isNotNull(), Kind.UNSETTLED.value).otherwise(kind)
        held = F.struct(*(F.col(f"k.{name}") for name in KNOWN_COLUMNS))
        more = [unsettled.alias("reason"), F.coalesce("present", F.lit(False)).alias("present"), held.alias("held")]
    return joined.select(
        F.coalesce("s.doc_id", "k.doc_id").alias("doc_id"),
        kind.alias("kind"),
        *("chars", "copies", CODE),
        is_known.alias("known"),
        # A refused row takes the known document out, too.
        F.when(is_refused, is_known & (is_own(policy) | F.col("k.slice").isNull()))
        .otherwise(kind == Kind.REMOVED)
        .alias("is_removed"),
        F.when(is_known & has_other_fingerprint(policy), F.col("k.fingerprint")).alias("other_fingerprint"),
        *more,
    )


def _classify(policy: Policy) -> Column:
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
    """Whether a document that is in the source and in the output is to be recognised again."""
    is_pending = F.col("k.status").eqNullSafe(PENDING)
    has_other_model = ~F.col("k.fingerprint").eqNullSafe(policy.fingerprint)
    has_other_text = ~F.col("s.text_hash").eqNullSafe(F.col("k.text_hash"))
    # Documents of another model are reprocessed for that reason, or left alone: their carried columns are not compared.
    has_other_columns = ~has_other_model & ~F.col("s.passthrough_hash").eqNullSafe(F.col("k.passthrough_hash"))
    changed = is_pending | has_other_text | has_other_columns
    # A document of another slice is adopted only if it is just what this run would write.
    changed |= has_other_model if policy.reprocesses else has_other_model & ~is_own(policy)
    if policy.full:
        is_recomputed = F.coalesce(F.col("k.run_id").isin(list(policy.interrupted_runs)), F.lit(False))
        changed |= ~is_recomputed
    return changed


def is_own(policy: Policy) -> Column:
    """Whether a known document is one that this run may remove."""
    return F.lit(True) if policy.slice is None else F.col("slice").eqNullSafe(policy.slice)


def has_other_fingerprint(policy: Policy) -> Column:
    """Whether a known document makes the run fail, if the run touches it."""
    if not policy.refuses:
        return F.lit(False)
    return ~F.col("status").eqNullSafe(PENDING) & (F.col("fingerprint") != policy.fingerprint)


def check_fingerprints(known: DataFrame, policy: Policy) -> None:
    """Fail if the output holds documents of another fingerprint, and the policy is to refuse them.

    `compare_all` and `compare_feed` call it themselves; of a slice they check the documents that it takes over, too.

    Args:
        known: KNOWN_COLUMNS of what the output holds; of a slice only its own documents are checked.

    Raises:
        OutputError: it does.
    """
    if not policy.refuses:
        return
    others = known.where(has_other_fingerprint(policy) & is_own(policy))
    found = others.select("fingerprint").take(1)
    if found:
        raise other_fingerprint_error(found[0][0], policy)


def other_fingerprint_error(found: str, policy: Policy) -> OutputError:
    """Return the error for an output that holds a document of the fingerprint `found`."""
    return OutputError(
        f"incremental.on_fingerprint_change: the output holds documents of fingerprint {found}, this run's is "
        f"{policy.fingerprint}: a model, a precision or a setting that decides results differs; "
        "set it to reprocess or ignore, or run with --full."
    )


@dataclass(frozen=True)
class Totals:
    """Sums over outcomes: rows of `sum_outcomes`."""

    sums: list[Row]

    def rows(self, *kinds: Kind) -> int:
        """Return how many outcomes are of these kinds."""
        return self._sum("rows", kinds)

    def chars(self, *kinds: Kind) -> int:
        """Return the code points of their texts."""
        return self._sum("chars", kinds)

    def known(self, *kinds: Kind) -> int:
        """Return how many of them the output holds."""
        return self._sum("known", kinds)

    def removed(self) -> int:
        """Return how many outcomes take a document out of the output."""
        return self._sum("is_removed", tuple(Kind))

    def codes(self) -> dict[str, int]:
        """Return reject code -> refused rows."""
        return self._by(CODE, Kind.REJECTED)

    def reasons(self) -> dict[str, int]:
        """Return reason -> ids that need a look at the source."""
        return self._by("reason", Kind.UNSETTLED)

    def other_fingerprint(self) -> str | None:
        """Return a fingerprint that the policy refuses, of a document that the run touches."""
        found = (row["other_fingerprint"] for row in self.sums if row["kind"] not in (Kind.SAME, Kind.UNSETTLED))
        return next((fingerprint for fingerprint in found if fingerprint is not None), None)

    def _by(self, column: str, kind: Kind) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self.sums:
            if row["kind"] == kind:
                counts[row[column]] = counts.get(row[column], 0) + row["rows"]
        return counts

    def _sum(self, column: str, kinds: tuple[Kind, ...]) -> int:
        return sum(row[column] or 0 for row in self.sums if row["kind"] in kinds)


def sum_outcomes(outcomes: DataFrame) -> list[Row]:
    """Count outcomes by kind, reject code and, where the column is there, reason; runs a job."""
    by = ["kind", CODE, *(name for name in outcomes.columns if name == "reason")]
    sums = outcomes.groupBy(*by).agg(
        F.count("*").alias("rows"),
        F.sum("chars").alias("chars"),
        F.sum(F.col("known").cast("long")).alias("known"),
        F.sum(F.col("is_removed").cast("long")).alias("gone"),
        F.max("other_fingerprint").alias("other_fingerprint"),
    )
    return sums.collect()
