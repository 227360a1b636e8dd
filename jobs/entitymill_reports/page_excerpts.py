"""Read the texts for a report page: frequent entities and sentences. Used only if `report.show_text` allows texts."""

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
from entitymill.terminal.console_text import clip_overlaps
from entitymill_reports.page_content import Part, Sentence, TextSamples

TOP = 12
"""Number of entities to show per label."""
SAMPLE_SIZE = 20
"""Number of mentions in each sample."""
MAX_CHARS = 600
"""Maximum length, in characters, of a sentence in a sample."""
LABELS = 30
"""Maximum number of labels to show."""
SAMPLES = ("least", "rarest", "random")
_SENTENCE = ("doc_id", "sentence_id", "sentence_begin", "sentence_end")


def read_samples(spark: SparkSession, settings: Settings, tables: Tables) -> TextSamples:
    """Return the most frequent entities, and samples of sentences with their mentions.

    Sentences of documents whose text has changed since they were processed are left out. If the source cannot be read, the
    result has the reason instead of sentences. The samples are chosen by hashes, so the result is always the same for the
    same tables and texts.
    """
    entities = tables.read("entities")
    # One mention of each entity, chosen by hash, so that every read chooses the same mention.
    example = F.min_by(F.struct(*_SENTENCE, "mention_id"), F.xxhash64("mention_id")).alias("example")
    counted = entities.groupBy("label", "entity").agg(F.count("*").alias("mentions"), example)
    top = _list_top_entities(counted)
    chosen = _sample_mentions(entities, counted)
    if not chosen:
        return TextSamples(top)
    ids = sorted({row["doc_id"] for row in chosen})
    try:
        texts = reader.read_texts(spark, settings.source, ids)
    except (EntityMillError, PySparkException) as error:
        problem = str(error) if isinstance(error, EntityMillError) else "The source cannot be read now."
        return TextSamples(top, problem=problem)
    hashes = tables.read("documents").where(F.col("doc_id").isin(ids)).select("doc_id", "text_hash").collect()
    unchanged = {row["doc_id"] for row in hashes if _hash_text(texts.get(row["doc_id"])) == row["text_hash"]}
    mentions = _read_mentions(spark, entities, chosen)
    keys = _list_sentence_keys(chosen)
    found = [_build_sentence(texts[key[0]], key, mentions, chosen) for key in keys if key[0] in unchanged]
    return TextSamples(top, tuple(found), changed=sum(key[0] not in unchanged for key in keys))


def _list_top_entities(counted: DataFrame) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return label -> (entity, number of mentions) of its TOP most frequent entities; TOP * LABELS entities at most.

    Args:
        counted: one row per label and entity, with its number of mentions.
    """
    place = F.row_number().over(Window.partitionBy("label").orderBy(F.desc("mentions"), "entity")).alias("place")
    rows = counted.select("label", "entity", "mentions", place).where(F.col("place") <= TOP).limit(TOP * LABELS).collect()
    found: dict[str, list[tuple[str, int]]] = {}
    for row in sorted(rows, key=lambda row: (row["label"], row["place"])):
        found.setdefault(row["label"], []).append((row["entity"], row["mentions"]))
    return {label: tuple(entities) for label, entities in found.items()}


def _sample_mentions(entities: DataFrame, counted: DataFrame) -> list[Row]:
    """Return one row for each mention in each sample: the name of the sample, the mention's id and its sentence.

    There are three samples of at most SAMPLE_SIZE mentions each: the least confident mentions, one mention of
    each of the rarest entities, and random mentions. Mentions in sentences longer than MAX_CHARS are left out.

    Args:
        counted: one row per label and entity, with its number of mentions and one example mention.
    """
    short = F.col("sentence_end") - F.col("sentence_begin") <= MAX_CHARS
    random_order = F.xxhash64("mention_id")
    mention = [*_SENTENCE, "mention_id"]
    rare = counted.select("mentions", "example.*").where(short)

    def sample(rows: DataFrame, name: str, *order: Column | str) -> DataFrame:
        return rows.orderBy(*order).limit(SAMPLE_SIZE).select(F.lit(name).alias("sample"), *mention)

    least = sample(entities.where(short), "least", "confidence", "mention_id")
    rarest = sample(rare, "rarest", "mentions", random_order)
    # This hash is independent of the hash by which the examples were chosen.
    at_random = sample(entities.where(short), "random", F.xxhash64(F.lit("random"), F.col("mention_id")))
    return least.unionAll(rarest).unionAll(at_random).collect()


def _list_sentence_keys(chosen: Iterable[Row]) -> list[tuple[str, int, int, int]]:
    """Return (doc_id, sentence_id, begin, end) of each sentence that contains a sampled mention; no sentence twice."""
    return list(
        dict.fromkeys((row["doc_id"], row["sentence_id"], row["sentence_begin"], row["sentence_end"]) for row in chosen)
    )


def _read_mentions(spark: SparkSession, entities: DataFrame, chosen: list[Row]) -> list[Row]:
    """Return all mentions in the sentences of the sampled mentions, sorted by document and begin."""
    keys = spark.createDataFrame([key[:2] for key in _list_sentence_keys(chosen)], "doc_id string, sentence_id int")
    columns = ("doc_id", "sentence_id", "mention_id", "begin", "end", "label", "confidence")
    return entities.select(*columns).join(F.broadcast(keys), ["doc_id", "sentence_id"]).orderBy("doc_id", "begin").collect()


def _build_sentence(text: str, key: tuple[str, int, int, int], mentions: Sequence[Row], chosen: Sequence[Row]) -> Sentence:
    """Return a sentence, split into its mentions and the text between them, with the names of the samples it belongs to.

    Args:
        key: (doc_id, sentence_id, begin, end) of the sentence.
        mentions: all mentions in this and other sentences.
    """
    doc_id, number, at, end = key
    own = [row for row in chosen if (row["doc_id"], row["sentence_id"]) == (doc_id, number)]
    sampled = {row["mention_id"] for row in own}
    here = [row for row in mentions if (row["doc_id"], row["sentence_id"]) == (doc_id, number)]
    parts = []
    for begin, stop, row in clip_overlaps(((row["begin"], row["end"], row) for row in here), at):
        parts.append(Part(text[at:begin]))
        parts.append(Part(text[begin:stop], row["label"], float(row["confidence"]), row["mention_id"] in sampled))
        at = stop
    parts.append(Part(text[at:end]))
    samples = tuple(name for name in SAMPLES if any(row["sample"] == name for row in own))
    return Sentence(doc_id, tuple(part for part in parts if part.text), samples)


def _hash_text(text: str | None) -> str:
    """Return the SHA-256 of a text in hexadecimal, as in the `text_hash` column of `documents`; empty for None."""
    return "" if text is None else hashlib.sha256(text.encode("utf8", "surrogatepass")).hexdigest()
