"""A stub engine without a model: Spark functions that return the first two words of each document as mentions."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill import schemas, settings
from entitymill.workers.engine_choice import Engine


def stub_tagger(documents: DataFrame) -> DataFrame:
    """Return schemas.RECOGNIZED with two mentions per document."""
    words = F.split("text", " ", 3)

    def mention(begin: Column, entity: Column, label: str) -> Column:
        # Without coalesce, Spark would treat these offsets as nullable.
        begin, end = (F.coalesce(place, F.lit(0)) for place in (begin, begin + F.length(entity)))
        values = {
            "sentence_id": F.lit(0), "sentence_begin": F.lit(0), "sentence_end": F.col("chars"),
            "begin": begin, "end": end, "entity": entity, "label": F.lit(label), "confidence": F.lit(0.9),
            "token_count": F.lit(1),
        }  # fmt: skip
        fields = schemas.MENTIONS.elementType.fields  # type: ignore[attr-defined]
        return F.struct(*(values[field.name].cast(field.dataType).alias(field.name) for field in fields))

    first, second = words[0], words[1]
    found = F.array(mention(F.lit(0), first, "PER"), mention(F.length(first) + 1, second, "LOC"))
    values = {
        "doc_id": F.coalesce("doc_id", F.lit("")), "text_hash": F.coalesce("text_hash", F.lit("")),
        "chars": F.col("chars"), "sentences": F.lit(1), "tokens": F.lit(2), "split_sentences": F.lit(0),
        **{f"{part}_seconds": F.lit(0.0) for part in schemas.TIMES},
    }  # fmt: skip
    # Mentions are not cast, because a cast would make their fields nullable.
    whole = {"mentions": found}
    columns = (whole.get(f.name, values.get(f.name, F.lit(None)).cast(f.dataType)).alias(f.name) for f in schemas.RECOGNIZED)
    return documents.select(*columns)


def open_stub(spark: SparkSession, loaded: settings.Settings) -> Engine:
    """Return the stub engine; tests and benchmarks call this instead of engine_choice.open_engine."""
    return Engine("stub", "stub", lambda: stub_tagger)
