"""Build rows of the tables from recognized documents; `select_table_columns` then drops extra columns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.source import row_checks
from entitymill.spark import spark_connect
from entitymill.spark.sql_text import quote_literal

_QUOTES = "['\N{RIGHT SINGLE QUOTATION MARK}]"
_BLANKS, _POSSESSIVE = quote_literal(r"(?U)\s+"), quote_literal(f"(?<=[sS]){_QUOTES}$|{_QUOTES}[sS]$")
_NORMALIZED = f"lower(regexp_replace(trim(regexp_replace(entity, {_BLANKS}, ' ')), {_POSSESSIVE}, ''))"
"""SQL expression for the normalized entity; (?U) makes \\s match Unicode white space, including no-break spaces."""


@dataclass(frozen=True)
class Provenance:
    """Values that a run writes into each of its rows, to show from which run, model and source version the row comes.

    model: name of the model.
    fingerprint: digest of everything but the text that decides a result: model, precision and settings.
    slice: digest of source.where if the run replaces a slice (the rows that source.where selects); otherwise None.
    source_committed: commit time of the source's Delta version, in milliseconds since 1970; None for other sources.
    """

    run_id: str
    started_at: datetime
    model: str
    fingerprint: str
    source_version: str
    slice: str | None = None
    source_committed: int | None = None

    def columns(self) -> dict[str, Column]:
        """Return name -> column for run_id and processed_at, the last columns of `entities` and `documents`."""
        return {"run_id": F.lit(self.run_id), "processed_at": F.lit(self.started_at)}


def select_table_columns(rows: DataFrame, schema: T.StructType) -> DataFrame:
    """Return rows with exactly the columns of a table's schema.

    With Spark Connect, results may come from a temporary table of the run, whose columns are all nullable. Spark could then
    not prove that a column has no nulls; instead, Delta checks the rows when it writes them.
    """
    return rows.to(_make_nullable(schema) if spark_connect.is_remote(rows.sparkSession) else schema)


def _make_nullable(kind: Any) -> Any:
    """Return a data type in which each field, element and value may be null."""
    if isinstance(kind, T.StructType):
        fields = [T.StructField(old.name, _make_nullable(old.dataType), metadata=old.metadata) for old in kind]
        return T.StructType(fields)
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(_make_nullable(kind.elementType))
    if isinstance(kind, T.MapType):
        return T.MapType(kind.keyType, _make_nullable(kind.valueType))
    return kind


def add_normalized(mentions: DataFrame) -> DataFrame:
    """Return the rows with a new column `entity_normalized`, computed from the column `entity`.

    Spellings that differ only in case, white space, or a possessive ending have the same normalized form.
    """
    return mentions.withColumn(schemas.NORMALIZED.name, F.expr(_NORMALIZED))


def build_entities(recognized: DataFrame, provenance: Provenance) -> DataFrame:
    """Return rows of `entities`, one per mention of the recognized documents, with any passthrough columns."""
    passthrough = [name for name in recognized.columns if name == "passthrough"]
    exploded = recognized.select("doc_id", F.explode("mentions").alias("mention"), *passthrough)
    mention_id = F.concat("doc_id", F.lit(":"), "mention.begin", F.lit("-"), "mention.end").alias(schemas.MENTION_ID.name)
    rows = exploded.select("doc_id", mention_id, "mention.*", *(f"{name}.*" for name in passthrough))
    return add_normalized(rows).withColumns({"model": F.lit(provenance.model), **provenance.columns()})


def build_documents(recognized: DataFrame, provenance: Provenance) -> DataFrame:
    """Return rows of `documents`, one per recognized document; `status` is `blank` without tokens, otherwise `done`."""
    return recognized.withColumns(
        {
            "status": F.when(F.col("tokens") == 0, "blank").otherwise("done"),
            "entities": F.size("mentions"),
            "passthrough_hash": row_checks.hash_passthrough(recognized.columns),
            "slice": F.lit(provenance.slice).cast("string"),
            "fingerprint": F.lit(provenance.fingerprint),
            "source_version": F.lit(provenance.source_version),
            **provenance.columns(),
        }
    )


def build_rejects(rejected: DataFrame, provenance: Provenance) -> DataFrame:
    """Return rows of `rejects` from rows with the columns doc_id, stage, code and detail."""
    return rejected.withColumns(
        {
            "slice": F.lit(provenance.slice).cast("string"),
            "run_id": F.lit(provenance.run_id),
            "at": F.lit(provenance.started_at),
        }
    )
