"""Rows of the source -> documents and refused rows: which row is which, and why."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

BROADCAST_DUPLICATES = 100_000
CODE = "_code"
_MICROSECONDS = "yyyy-MM-dd'T'HH:mm:ss.SSSSSS"
CODES = ("null_id", "malformed_id", "duplicate_id", "null_text", "text_too_long", "malformed_text")


def with_copies(rows: DataFrame) -> DataFrame:
    """Add `copies`, how often each id occurs; only ids are shuffled unless some do occur twice."""
    repeated = rows.where(F.col("doc_id").isNotNull()).groupBy("doc_id").agg(F.count("*").alias("copies"))
    repeated = repeated.where("copies > 1")
    found = repeated.limit(BROADCAST_DUPLICATES + 1).count()
    if not found:
        return rows.withColumn("copies", F.lit(1).cast("long"))
    if found <= BROADCAST_DUPLICATES:
        repeated = F.broadcast(repeated)
    return rows.join(repeated, "doc_id", "left")


def judge(rows: DataFrame, max_chars: int) -> DataFrame:
    """Add `chars` and the code of what is wrong with a row, null for a document.

    Args:
        rows: doc_id, text, copies.
        max_chars: code points a text may have.
    """
    code = (
        F.when(F.col("doc_id").isNull(), "null_id")
        .when(_malformed("doc_id"), "malformed_id")
        .when(F.col("copies") > 1, "duplicate_id")
        .when(F.col("text").isNull(), "null_text")
        .when(F.length("text") > max_chars, "text_too_long")
        .when(_malformed("text"), "malformed_text")
    )
    return rows.withColumn("chars", F.length("text")).withColumn(CODE, code)


def documents(judged: DataFrame) -> DataFrame:
    """doc_id, text, text_hash, chars, and `passthrough` where it is there, of the rows that are documents."""
    carried = [name for name in judged.columns if name == "passthrough"]
    return judged.where(F.col(CODE).isNull()).select(
        "doc_id", "text", F.sha2("text", 256).alias("text_hash"), "chars", *carried
    )


def refused(judged: DataFrame, max_chars: int) -> DataFrame:
    """doc_id, stage, code and detail of the rows that are not."""
    return judged.where(F.col(CODE).isNotNull()).select(
        "doc_id", F.lit("source").alias("stage"), F.col(CODE).alias("code"), _detail(max_chars).alias("detail")
    )


def passthrough_hash(columns: list[str]) -> Column:
    """SHA-256 of the struct `passthrough` as JSON; null where the frame has none."""
    if "passthrough" not in columns:
        return F.lit(None).cast("string")
    # A fixed zone: a session's own would make every timestamp look changed on another machine.
    options = {"timeZone": "UTC", "ignoreNullFields": "false", "timestampFormat": f"{_MICROSECONDS}XXX"}
    return F.sha2(F.to_json("passthrough", {**options, "timestampNTZFormat": _MICROSECONDS}), 256)


def _malformed(column: str) -> Column:
    """Bytes that are not UTF-8, a lone surrogate for one: Java's round trip replaces them, so the bytes differ."""
    return F.col(column).cast("binary") != F.encode(F.col(column), "UTF-8")


def _detail(max_chars: int) -> Column:
    return (
        F.when(F.col(CODE) == "null_id", F.lit("the id is null"))
        .when(F.col(CODE) == "malformed_id", F.lit("the id is not valid UTF-8"))
        .when(F.col(CODE) == "duplicate_id", F.format_string("%d rows of this run have this id", F.col("copies")))
        .when(F.col(CODE) == "null_text", F.lit("the text is null"))
        .when(
            F.col(CODE) == "text_too_long",
            F.format_string(f"%d code points, source.max_chars is {max_chars}", F.col("chars")),
        )
        .otherwise(F.lit("the text is not valid UTF-8 (a lone surrogate, or cut in the middle of a character)"))
    )
