"""Recognised documents -> rows of the tables, and columns beside theirs, which `to(schema)` leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.source import row_checks
from entitymill.spark.sql_text import quote_literal

_QUOTES = "['\N{RIGHT SINGLE QUOTATION MARK}]"
_BLANKS, _POSSESSIVE = quote_literal(r"(?U)\s+"), quote_literal(f"(?<=[sS]){_QUOTES}$|{_QUOTES}[sS]$")
_NORMALIZED = f"lower(regexp_replace(trim(regexp_replace(entity, {_BLANKS}, ' ')), {_POSSESSIVE}, ''))"
"""(?U): Java's Unicode white space, no-break blanks too."""


@dataclass(frozen=True)
class Stamp:
    """What the rows of a run carry.

    slice: digest of source.where; None unless the run replaces a slice.
    source_committed: when the version of a Delta source was committed, milliseconds since 1970.
    """

    run_id: str
    started_at: datetime
    model: str
    fingerprint: str
    source_version: str
    slice: str | None = None
    source_committed: int | None = None

    def columns(self) -> dict[str, Column]:
        """The columns that every table of results ends with."""
        return {"run_id": F.lit(self.run_id), "processed_at": F.lit(self.started_at)}


def add_normalized(mentions: DataFrame) -> DataFrame:
    """Add schemas.NORMALIZED, which mentions of one thing share, to rows with `entity`."""
    return mentions.withColumn(schemas.NORMALIZED.name, F.expr(_NORMALIZED))


def build_entities(recognised: DataFrame, stamp: Stamp) -> DataFrame:
    """One row per mention."""
    carried = [name for name in recognised.columns if name == "passthrough"]
    exploded = recognised.select("doc_id", F.explode("mentions").alias("mention"), *carried)
    rows = exploded.select("doc_id", "mention.*", *(f"{name}.*" for name in carried))
    return add_normalized(rows).withColumns({"model": F.lit(stamp.model), **stamp.columns()})


def build_documents(recognised: DataFrame, stamp: Stamp) -> DataFrame:
    """One row per document."""
    return recognised.withColumns(
        {
            "status": F.when(F.col("tokens") == 0, "blank").otherwise("done"),
            "entities": F.size("mentions"),
            "passthrough_hash": row_checks.hash_passthrough(recognised.columns),
            "slice": F.lit(stamp.slice).cast("string"),
            "fingerprint": F.lit(stamp.fingerprint),
            "source_version": F.lit(stamp.source_version),
            **stamp.columns(),
        }
    )


def build_rejects(refused: DataFrame, stamp: Stamp) -> DataFrame:
    """One row per refused row; `refused` has doc_id, stage, code, detail."""
    return refused.withColumns(
        {
            "slice": F.lit(stamp.slice).cast("string"),
            "run_id": F.lit(stamp.run_id),
            "at": F.lit(stamp.started_at),
        }
    )
