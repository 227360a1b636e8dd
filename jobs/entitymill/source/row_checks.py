"""Validate rows of the source: find which rows are documents, and why the other rows are rejected."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

BROADCAST_DUPLICATES = 100_000
"""Up to this number of duplicate ids, Spark sends them to every executor (a broadcast), and need not shuffle the rows."""
REJECT_CODE = "_code"
"""Name of the column with the reject code of a row, which is null if the row is a document."""
_TIMESTAMP_FORMAT = "yyyy-MM-dd'T'HH:mm:ss.SSSSSS"
REJECT_CODES = {
    "null_id": ("doc_id IS NULL", "'the id is null'"),
    "malformed_id": ("cast(doc_id AS binary) != encode(doc_id, 'UTF-8')", "'the id is not valid UTF-8'"),
    "duplicate_id": ("copies > 1", "format_string('%d rows that this run read have this id', copies)"),
    "null_text": ("text IS NULL", "'the text is null'"),
    "text_too_long": ("length(text) > {most}", "format_string('%d code points, source.max_chars is {most}', chars)"),
    "malformed_text": (
        "cast(text AS binary) != encode(text, 'UTF-8')",
        "'the text is not valid UTF-8 (a lone surrogate, or cut in the middle of a character)'",
    ),
}
"""Dict from each reject code to two SQL expressions: the condition for rejecting a row, and the detail for `rejects`.

{most} stands for `source.max_chars`. If several conditions are true, a row gets the first of their codes. When Java decodes
bytes to a string, it replaces invalid UTF-8. Encoding the string again then gives different bytes, which the two `malformed`
conditions detect.
"""


def count_copies(rows: DataFrame) -> DataFrame:
    """Return the rows with a new column `copies`, the number of rows with the same id.

    For an id that is unique or null, `copies` may be either 1 or null. This runs a Spark job. Only ids are shuffled,
    unless more than BROADCAST_DUPLICATES ids occur in several rows.
    """
    repeated = rows.where(F.col("doc_id").isNotNull()).groupBy("doc_id").agg(F.count("*").alias("copies"))
    repeated = repeated.where("copies > 1")
    repeated_count = repeated.limit(BROADCAST_DUPLICATES + 1).count()
    if not repeated_count:
        return rows.withColumn("copies", F.lit(1).cast("long"))
    if repeated_count <= BROADCAST_DUPLICATES:
        repeated = F.broadcast(repeated)
    return rows.join(repeated, "doc_id", "left")


def validate_rows(rows: DataFrame, max_chars: int) -> DataFrame:
    """Return all rows, with the new columns `chars` (code points of the text) and REJECT_CODE (null for documents).

    `rows` must have the columns doc_id, text and copies; `max_chars` is the maximum length of a valid text, in code points.
    """
    cases = " ".join(f"WHEN {wrong} THEN '{code}'" for code, (wrong, _) in REJECT_CODES.items()).format(most=max_chars)
    return rows.withColumn("chars", F.length("text")).withColumn(REJECT_CODE, F.expr(f"CASE {cases} END"))


def select_documents(validated: DataFrame) -> DataFrame:
    """Return doc_id, text, text_hash, chars and, if `validated` has it, `passthrough` of all rows without a reject code.

    These rows are the documents. `validated` is the result of `validate_rows`. `text_hash` is computed here: the SHA-256 of
    the text, in hexadecimal. The other columns are copied.
    """
    passthrough = [name for name in validated.columns if name == "passthrough"]
    return validated.where(F.col(REJECT_CODE).isNull()).select(
        "doc_id", "text", F.sha2("text", 256).alias("text_hash"), "chars", *passthrough
    )


def select_rejects(validated: DataFrame, max_chars: int) -> DataFrame:
    """Return doc_id, stage (always `source`), code and detail of all rows with a reject code, for the `rejects` table.

    The detail is the reason in words. `validated` has at least the columns doc_id, copies, chars and REJECT_CODE of a result
    of `validate_rows` with the same `max_chars`.
    """
    cases = " ".join(f"WHEN '{code}' THEN {detail}" for code, (_, detail) in REJECT_CODES.items()).format(most=max_chars)
    return validated.where(F.col(REJECT_CODE).isNotNull()).select(
        "doc_id",
        F.lit("source").alias("stage"),
        F.col(REJECT_CODE).alias("code"),
        F.expr(f"CASE {REJECT_CODE} {cases} END").alias("detail"),
    )


def hash_passthrough(columns: list[str]) -> Column:
    """Return an expression for the SHA-256 of the column `passthrough` as JSON; null if `columns` lacks `passthrough`."""
    if "passthrough" not in columns:
        return F.lit(None).cast("string")
    # With the session's time zone, timestamps would look changed on a machine in another zone.
    options = {"timeZone": "UTC", "ignoreNullFields": "false", "timestampFormat": f"{_TIMESTAMP_FORMAT}XXX"}
    return F.sha2(F.to_json("passthrough", {**options, "timestampNTZFormat": _TIMESTAMP_FORMAT}), 256)
