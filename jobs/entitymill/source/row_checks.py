"""Rows of the source -> documents and refused rows: which row is which, and why."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

BROADCAST_DUPLICATES = 100_000
CODE = "_code"
_MICROSECONDS = "yyyy-MM-dd'T'HH:mm:ss.SSSSSS"
CODES = {
    "null_id": ("doc_id IS NULL", "'the id is null'"),
    "malformed_id": ("cast(doc_id AS binary) != encode(doc_id, 'UTF-8')", "'the id is not valid UTF-8'"),
    "duplicate_id": ("copies > 1", "format_string('%d rows of this run have this id', copies)"),
    "null_text": ("text IS NULL", "'the text is null'"),
    "text_too_long": ("length(text) > {most}", "format_string('%d code points, source.max_chars is {most}', chars)"),
    "malformed_text": (
        "cast(text AS binary) != encode(text, 'UTF-8')",
        "'the text is not valid UTF-8 (a lone surrogate, or cut in the middle of a character)'",
    ),
}
"""Code -> what is wrong with a row, and in words, as SQL; the first that holds counts.

Of bytes that are not UTF-8, a lone surrogate for one: Java's round trip replaces them, so the bytes differ.
"""


def count_copies(rows: DataFrame) -> DataFrame:
    """Add `copies`, how often each id occurs; only ids are shuffled unless some do occur twice."""
    repeated = rows.where(F.col("doc_id").isNotNull()).groupBy("doc_id").agg(F.count("*").alias("copies"))
    repeated = repeated.where("copies > 1")
    found = repeated.limit(BROADCAST_DUPLICATES + 1).count()
    if not found:
        return rows.withColumn("copies", F.lit(1).cast("long"))
    if found <= BROADCAST_DUPLICATES:
        repeated = F.broadcast(repeated)
    return rows.join(repeated, "doc_id", "left")


def validate_rows(rows: DataFrame, max_chars: int) -> DataFrame:
    """Add `chars` and the code of what is wrong with a row, null for a document.

    Args:
        rows: doc_id, text, copies.
        max_chars: code points a text may have.
    """
    cases = " ".join(f"WHEN {wrong} THEN '{code}'" for code, (wrong, _) in CODES.items()).format(most=max_chars)
    return rows.withColumn("chars", F.length("text")).withColumn(CODE, F.expr(f"CASE {cases} END"))


def select_documents(judged: DataFrame) -> DataFrame:
    """doc_id, text, text_hash, chars, and `passthrough` where it is there, of the rows that are documents."""
    carried = [name for name in judged.columns if name == "passthrough"]
    return judged.where(F.col(CODE).isNull()).select(
        "doc_id", "text", F.sha2("text", 256).alias("text_hash"), "chars", *carried
    )


def select_rejects(judged: DataFrame, max_chars: int) -> DataFrame:
    """doc_id, stage, code and detail of the rows that are not."""
    cases = " ".join(f"WHEN '{code}' THEN {said}" for code, (_, said) in CODES.items()).format(most=max_chars)
    return judged.where(F.col(CODE).isNotNull()).select(
        "doc_id",
        F.lit("source").alias("stage"),
        F.col(CODE).alias("code"),
        F.expr(f"CASE {CODE} {cases} END").alias("detail"),
    )


def hash_passthrough(columns: list[str]) -> Column:
    """SHA-256 of the struct `passthrough` as JSON; null where the frame has none."""
    if "passthrough" not in columns:
        return F.lit(None).cast("string")
    # A fixed zone: a session's own would make every timestamp look changed on another machine.
    options = {"timeZone": "UTC", "ignoreNullFields": "false", "timestampFormat": f"{_MICROSECONDS}XXX"}
    return F.sha2(F.to_json("passthrough", {**options, "timestampNTZFormat": _MICROSECONDS}), 256)
