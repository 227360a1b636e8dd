"""What of a page is text: frequent entities and marked sentences. Read only where `report.show_text` allows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

from entitymill.errors import EntityMillError
from entitymill.settings import Settings
from entitymill.source import reader
from entitymill.tables import Tables
from entitymill_reports.page_figures import Part, Sentence, Shown

TOP = 12
"""Most frequent entities of a label."""
EACH = 20
"""Mentions of a sample."""
MAX_CHARS = 600
"""Of a sentence; longer ones are in no sample."""
LABELS = 30
SAMPLES = ("least", "rarest", "random")
_SENTENCE = ("doc_id", "sentence_id", "sentence_begin", "sentence_end")


def read(spark: SparkSession, settings: Settings, tables: Tables) -> Shown:
    """Frequent entities, and samples of sentences with their mentions, the same ones for the same table."""
    entities = tables.read("entities")
    # One mention stands for each entity; no chance that differs from one reading to the next.
    example = F.min_by(F.struct(*_SENTENCE, "mention_id"), F.xxhash64("mention_id")).alias("example")
    counted = entities.groupBy("label", "entity").agg(F.count("*").alias("mentions"), example)
    top = _top(counted)
    chosen = _chosen(entities, counted)
    if not chosen:
        return Shown(top)
    ids = sorted({row["doc_id"] for row in chosen})
    try:
        texts = reader.read_texts(spark, settings.source, ids)
    except (EntityMillError, PySparkException) as error:
        said = str(error) if isinstance(error, EntityMillError) else "The source cannot be read now."
        return Shown(top, problem=said)
    hashes = tables.read("documents").where(F.col("doc_id").isin(ids)).select("doc_id", "text_hash").collect()
    same = {row["doc_id"] for row in hashes if _hash(texts.get(row["doc_id"])) == row["text_hash"]}
    mentions = _mentions(spark, entities, chosen)
    keys = _keys(chosen)
    found = [_sentence(texts[key[0]], key, mentions, chosen) for key in keys if key[0] in same]
    return Shown(top, tuple(found), changed=sum(key[0] not in same for key in keys))


def _top(counted: DataFrame) -> dict[str, tuple[tuple[str, int], ...]]:
    place = F.row_number().over(Window.partitionBy("label").orderBy(F.desc("mentions"), "entity")).alias("place")
    rows = counted.select("label", "entity", "mentions", place).where(F.col("place") <= TOP).limit(TOP * LABELS).collect()
    found: dict[str, list[tuple[str, int]]] = {}
    for row in sorted(rows, key=lambda row: (row["label"], row["place"])):
        found.setdefault(row["label"], []).append((row["entity"], row["mentions"]))
    return {label: tuple(entities) for label, entities in found.items()}


def _chosen(entities: DataFrame, counted: DataFrame) -> list[Row]:
    """The sampled mentions: sample, mention_id and sentence of each."""
    short = F.col("sentence_end") - F.col("sentence_begin") <= MAX_CHARS
    chance = F.xxhash64("mention_id")
    mention = [*_SENTENCE, "mention_id"]
    rare = counted.select("mentions", "example.*").where(short)

    def sample(rows: DataFrame, name: str, *order: Column | str) -> DataFrame:
        return rows.orderBy(*order).limit(EACH).select(F.lit(name).alias("sample"), *mention)

    least = sample(entities.where(short), "least", "confidence", "mention_id")
    rarest = sample(rare, "rarest", "mentions", chance)
    # Another order than that by which examples are chosen.
    by_chance = sample(entities.where(short), "random", F.xxhash64(F.lit("random"), F.col("mention_id")))
    return least.unionAll(rarest).unionAll(by_chance).collect()


def _keys(chosen: Iterable[Row]) -> list[tuple[str, int, int, int]]:
    """Each sentence once."""
    return list(
        dict.fromkeys((row["doc_id"], row["sentence_id"], row["sentence_begin"], row["sentence_end"]) for row in chosen)
    )


def _mentions(spark: SparkSession, entities: DataFrame, chosen: list[Row]) -> list[Row]:
    """All mentions of the chosen sentences."""
    keys = spark.createDataFrame([key[:2] for key in _keys(chosen)], "doc_id string, sentence_id int")
    columns = ("doc_id", "sentence_id", "mention_id", "begin", "end", "label", "confidence")
    return entities.select(*columns).join(F.broadcast(keys), ["doc_id", "sentence_id"]).orderBy("doc_id", "begin").collect()


def _sentence(text: str, key: tuple[str, int, int, int], mentions: Sequence[Row], chosen: Sequence[Row]) -> Sentence:
    doc_id, number, at, end = key
    own = [row for row in chosen if (row["doc_id"], row["sentence_id"]) == (doc_id, number)]
    judged = {row["mention_id"] for row in own}
    parts = []
    for row in mentions:
        begin = max(row["begin"], at)  # each character once, should mentions overlap
        if (row["doc_id"], row["sentence_id"]) == (doc_id, number) and begin < row["end"]:
            parts.append(Part(text[at:begin]))
            spoken = text[begin : row["end"]]
            parts.append(Part(spoken, row["label"], float(row["confidence"]), row["mention_id"] in judged))
            at = row["end"]
    parts.append(Part(text[at:end]))
    samples = tuple(name for name in SAMPLES if any(row["sample"] == name for row in own))
    return Sentence(doc_id, tuple(part for part in parts if part.text), samples)


def _hash(text: str | None) -> str:
    return "" if text is None else hashlib.sha256(text.encode("utf8", "surrogatepass")).hexdigest()
