"""Documents vs what the output holds already -> what is to be done: by hashes, or by what Delta says has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from entitymill.errors import OutputError
from entitymill.source import change_feed as feeds
from entitymill.source import row_checks
from entitymill.source.change_feed import Feed
from entitymill.source.reader import Source
from entitymill.source.row_checks import CODE

log = logging.getLogger(__name__)
KNOWN_COLUMNS = ("doc_id", "status", "text_hash", "passthrough_hash", "fingerprint", "slice")
NEVER = 9
"""A balance that no document can make up for."""


class Unsure(Exception):  # noqa: N818  # no error: another way is gone
    """Only a look at all rows can tell what changed."""


@dataclass(frozen=True)
class Policy:
    """What counts as changed.

    fingerprint: of this run.
    on_fingerprint_change: as `incremental.on_fingerprint_change`.
    slice: digest of the slice that is replaced; none where the run is about the whole source.
    """

    fingerprint: str
    on_fingerprint_change: str
    slice: str | None


@dataclass(frozen=True)
class Changes:
    """What one run has to do.

    mode: how it was found: `first`, `full`, `compare`, `feed`, `arrivals`.
    documents: to recognise: doc_id, text, text_hash, chars, known (whether the output has a row of it), perhaps
        `passthrough`.
    removed: doc_id of documents to take out.
    refused: doc_id, stage, code, detail.
    whole: whether all rows of the source were looked at; where only some were, none of these is refused, or was.
    rows: looked at.
    counts: of refused rows, by code.
    to_recognise, to_remove: documents in `documents` and in `removed`.
    chars, known: code points of the texts in `documents`, and how many of these are known.
    close: gives back what is cached.
    """

    mode: str
    documents: DataFrame
    removed: DataFrame
    refused: DataFrame
    whole: bool
    rows: int
    counts: dict[str, int]
    to_recognise: int
    to_remove: int
    chars: int
    known: int
    close: Callable[[], object] = field(default=lambda: None)


def everything(source: Source, mode: str) -> Changes:
    """All documents, of which the output holds none."""
    judged = source.judged()
    counts, chars = _count(judged)
    documents = row_checks.documents(judged)
    return Changes(
        mode=mode,
        documents=documents.withColumn("known", F.lit(False)),
        removed=documents.select("doc_id").limit(0),
        refused=row_checks.refused(judged, source.settings.max_chars),
        whole=True,
        rows=sum(counts.values()),
        counts={code: rows for code, rows in counts.items() if code},
        to_recognise=counts.get("", 0),
        to_remove=0,
        chars=chars,
        known=0,
    )


def compared(source: Source, known: DataFrame, policy: Policy) -> Changes:
    """All documents against what is known of them, by hashes; the texts of those to be recognised are read in a second pass.

    Args:
        known: KNOWN_COLUMNS of what the output holds.

    Raises:
        OutputError: a fingerprint differs, and the policy is to refuse.
    """
    judged = source.judged()
    looked_at = judged.withColumns({"here": F.lit(True), "balance": F.lit(None).cast("long")})
    outcomes = _outcomes(looked_at, known, policy).persist(StorageLevel.DISK_ONLY)
    try:
        return _changes("compare", judged, outcomes, source, source.rows.count(), whole=True)
    except BaseException:
        outcomes.unpersist()
        raise


def told(source: Source, feed: Feed, known: DataFrame, refused: DataFrame | None, policy: Policy) -> Changes | None:
    """What Delta says has changed against what is known of it.

    Args:
        feed: since the version that the output is of.
        known: KNOWN_COLUMNS of what the output holds.
        refused: doc_id of `rejects`; none: it is empty.

    Returns:
        None where a row was, or is now, refused, or an id may occur elsewhere too, or where Delta cannot read what it
        promised: only a look at all rows can tell then.
    """
    cached: list[DataFrame] = []
    try:
        found = _told(source, feed, known, refused, policy, cached)
    except BaseException as error:
        for frame in cached:
            frame.unpersist()
        if isinstance(error, PySparkException | Py4JJavaError):
            # An old file was vacuumed, or the feed was off for a while.
            log.warning("Delta does not tell what changed (%s): all rows are compared", type(error).__name__)
        elif not isinstance(error, Unsure):
            raise
        return None
    return replace(found, close=lambda: [frame.unpersist() for frame in cached])


def _told(
    source: Source, feed: Feed, known: DataFrame, refused: DataFrame | None, policy: Policy, cached: list[DataFrame]
) -> Changes:
    rows = feeds.rows(feed).persist(StorageLevel.DISK_ONLY)
    cached.append(rows)
    here = F.col("here").isNotNull()
    columns = [f"here.{name}" for name in ("text", "passthrough") if name in feed.events.columns]
    unsure = F.col("doc_id").isNull() | (F.col("now") > 1)
    if refused is not None:
        rejected = refused.select("doc_id", F.lit(True).alias("rejected")).dropDuplicates(["doc_id"])
        rows = rows.join(rejected, "doc_id", "left")
        unsure |= F.col("rejected").isNotNull()
    flags = (F.lit(1).cast("long").alias("copies"), here.alias("here"), unsure.alias("unsure"))
    # A known document is one row; with those that came and went, it must be the rows of the latest commit: one, or none.
    balance = (F.col("more") - F.col("now")).alias("balance")
    judged = row_checks.judge(rows.select("doc_id", *columns, *flags, balance), source.settings.max_chars)
    judged = judged.withColumn(CODE, F.when(F.col("here"), F.col(CODE)))
    balanced = F.when(F.col("unsure") | F.col(CODE).isNotNull(), NEVER).otherwise(F.col("balance"))
    concerned = known.join(rows.select("doc_id"), "doc_id", "left_semi")
    outcomes = _outcomes(judged.withColumn("balance", balanced), concerned, policy).persist(StorageLevel.DISK_ONLY)
    cached.append(outcomes)
    return _changes(feed.mode, judged.where("here"), outcomes, source, 0, whole=False)


def _outcomes(judged: DataFrame, known: DataFrame, policy: Policy) -> DataFrame:
    """One row per document or refused row that is not as it was: doc_id, kind, chars, copies, CODE, known.

    Args:
        judged: with `here`, whether the row is in the source, and `balance`: with 1 for a known document it must be 0, or
            the outcome is `unsure`; null where that is not asked.
        known: KNOWN_COLUMNS of what the output holds.
    """
    hashes = judged.select(
        "doc_id",
        F.when(F.col(CODE).isNull(), F.sha2("text", 256)).alias("text_hash"),
        row_checks.passthrough_hash(judged.columns).alias("passthrough_hash"),
        *("chars", "copies", CODE, "here", "balance"),
    )
    held = known.select(*KNOWN_COLUMNS).alias("k")
    joined = hashes.alias("s").join(held, F.col("s.doc_id") == F.col("k.doc_id"), "full")
    kind = _kind(policy)
    outcome = joined.select(
        F.coalesce("s.doc_id", "k.doc_id").alias("doc_id"),
        kind.alias("kind"),
        "chars",
        "copies",
        CODE,
        F.col("k.doc_id").isNotNull().alias("known"),
        # A refused row of a known document takes it out too.
        (F.col("k.doc_id").isNotNull() & F.col(CODE).isNotNull() & (_mine(policy) | F.col("slice").isNull())).alias("out"),
    )
    return outcome.where(F.col("kind") != "same")


def _kind(policy: Policy) -> Column:
    other_model = ~F.col("fingerprint").eqNullSafe(F.lit(policy.fingerprint))
    # `pending` was 0.1.0's, of a run that died.
    changed = F.col("status").eqNullSafe("pending") | ~F.col("s.text_hash").eqNullSafe(F.col("k.text_hash"))
    # Of another model's documents the carried columns may be others, too: then it is the model that counts.
    changed |= ~other_model & ~F.col("s.passthrough_hash").eqNullSafe(F.col("k.passthrough_hash"))
    if policy.on_fingerprint_change != "ignore":
        changed |= other_model
    if policy.slice is not None:
        changed |= ~F.col("slice").eqNullSafe(F.lit(policy.slice))
    held = F.col("k.doc_id").isNotNull()
    kind = F.when(held.cast("int") + F.col("balance") != 0, "unsure").when(F.col(CODE).isNotNull(), "refused")
    kind = kind.when(~F.coalesce("here", F.lit(False)), F.when(held & _mine(policy), "removed").otherwise("same"))
    kind = kind.when(~held, "new").when(changed, "changed")
    return F.coalesce(kind, F.lit("same"))


def _mine(policy: Policy) -> Column:
    """Whether a known document is one that this run may remove."""
    return F.lit(True) if policy.slice is None else F.col("slice").eqNullSafe(F.lit(policy.slice))


def check_fingerprints(known: DataFrame, policy: Policy) -> None:
    """Refuse, where the policy is to.

    Args:
        known: KNOWN_COLUMNS of what the output holds.

    Raises:
        OutputError: the output holds documents of another fingerprint.
    """
    if policy.on_fingerprint_change != "refuse":
        return
    others = known.where((F.col("status") != "pending") & (F.col("fingerprint") != policy.fingerprint))
    if policy.slice is not None:
        others = others.where(F.col("slice") == policy.slice)
    found = others.select("fingerprint").take(1)
    if found:
        raise OutputError(
            f"incremental.on_fingerprint_change: the output holds documents of fingerprint {found[0][0]}, this run's is "
            f"{policy.fingerprint}: a model, a precision or a setting that decides results differs; "
            "set it to reprocess or ignore, or run with --full."
        )


def _changes(mode: str, judged: DataFrame, outcomes: DataFrame, source: Source, total: int, *, whole: bool) -> Changes:
    gone = (F.col("kind") == "removed") | F.col("out")
    sums = outcomes.groupBy("kind", CODE).agg(
        F.count("*").alias("rows"),
        F.sum("chars").alias("chars"),
        F.sum(F.col("known").cast("long")).alias("known"),
        F.sum(gone.cast("long")).alias("gone"),
    )
    found = sums.collect()
    if any(row["kind"] == "unsure" for row in found):
        raise Unsure
    work = [row for row in found if row["kind"] in ("new", "changed")]
    todo = outcomes.where(F.col("kind").isin("new", "changed")).select("doc_id", "known")
    removed = outcomes.where(gone).select("doc_id").distinct()
    refused = {row[CODE]: row["rows"] for row in found if row["kind"] == "refused"}
    to_remove = sum(row["gone"] or 0 for row in found)
    return Changes(
        mode=mode,
        documents=row_checks.documents(judged).join(todo, "doc_id"),
        removed=removed,
        refused=row_checks.refused(outcomes.where(F.col("kind") == "refused"), source.settings.max_chars),
        whole=whole,
        rows=total,
        counts=refused,
        to_recognise=sum(row["rows"] for row in work),
        # A refused id may occur more than once.
        to_remove=removed.count() if to_remove and refused else to_remove,
        chars=sum(row["chars"] or 0 for row in work),
        known=sum(row["known"] or 0 for row in work),
        close=outcomes.unpersist,
    )


def _count(judged: DataFrame) -> tuple[dict[str, int], int]:
    """Reject code -> rows, "" -> documents; and the documents' code points."""
    sums = judged.groupBy(CODE).agg(F.count("*").alias("rows"), F.sum("chars").alias("chars")).collect()
    return {row[CODE] or "": row["rows"] for row in sums}, sum(row["chars"] or 0 for row in sums if row[CODE] is None)
