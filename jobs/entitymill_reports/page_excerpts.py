"""Read the texts that a report page shows: frequent entities, and sentences. Used only if report.show_text allows texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.errors import PySparkException

from entitymill.errors import EntityMillError
from entitymill.terminal.console_text import clip_overlaps
from entitymill_reports.page_data import Part, Sentence, TextSamples
from entitymill_reports.table_reader import TableReader

TOP = 12
"""Number of the most frequent entities to show for each label."""
SAMPLE_SIZE = 20
"""Number of mentions in each sample."""
MAX_CHARS = 600
"""Maximum length, in characters, of a sentence in a sample."""
LABELS = 30
"""Maximum number of labels whose most frequent entities are shown."""
SAMPLES = ("least", "rarest", "random")
_MAX_TOP = TOP * LABELS
_TOP_ENTITIES = f"""
    SELECT label, entity, mentions, place
    FROM (
        SELECT label, entity, count(*) AS mentions,
            row_number() OVER (PARTITION BY label ORDER BY count(*) DESC, entity) AS place
        FROM report_entities
        GROUP BY label, entity
    ) AS counted
    WHERE place <= {TOP}
    ORDER BY label, place
    LIMIT {_MAX_TOP}
"""  # noqa: S608
_IS_SHORT = f"sentence_end - sentence_begin <= {MAX_CHARS}"
# Mentions are chosen by hashes of their ids, so that the same tables always give the same samples. The example of a rare
# entity is its mention with the least hash. The prefix `random` makes the random sample independent of these examples.
_SAMPLED_MENTIONS = f"""
    WITH chosen AS (
        SELECT 'least' AS sample, mention_id FROM (
            SELECT mention_id FROM report_entities WHERE {_IS_SHORT} ORDER BY confidence, mention_id LIMIT {SAMPLE_SIZE}
        ) AS l
        UNION ALL
        SELECT 'rarest' AS sample, substr(example, 33) AS mention_id FROM (
            SELECT count(*) AS mentions, min(CASE WHEN {_IS_SHORT} THEN md5(mention_id) || mention_id END) AS example
            FROM report_entities
            GROUP BY label, entity
            HAVING max({_IS_SHORT})
            ORDER BY mentions, example
            LIMIT {SAMPLE_SIZE}
        ) AS r
        UNION ALL
        SELECT 'random' AS sample, mention_id FROM (
            SELECT mention_id FROM report_entities WHERE {_IS_SHORT}
            ORDER BY md5('random' || mention_id) LIMIT {SAMPLE_SIZE}
        ) AS a
    )
    SELECT m.doc_id, m.sentence_id, m.sentence_begin, m.sentence_end, m.mention_id, m.`begin`, m.`end`, m.label,
        m.confidence, c.sample, d.text_hash
    FROM report_entities AS m
    JOIN (
        SELECT DISTINCT e.doc_id, e.sentence_id
        FROM report_entities AS e
        JOIN chosen ON e.mention_id = chosen.mention_id
    ) AS s ON m.doc_id = s.doc_id AND m.sentence_id = s.sentence_id
    JOIN report_documents AS d ON m.doc_id = d.doc_id
    LEFT JOIN chosen AS c ON m.mention_id = c.mention_id
    ORDER BY m.doc_id, m.`begin`
"""  # noqa: S608


def read_samples(reader: TableReader) -> TextSamples:
    """Return the most frequent entities of each label, and samples of sentences with their mentions.

    There are three samples of at most SAMPLE_SIZE mentions each: the least confident mentions, one mention of each of the
    rarest entities, and random mentions. Sentences longer than MAX_CHARS are left out. So are sentences of documents whose
    text in the source has changed. If the source cannot be read, the result has no sentences, and `problem` says why.
    """
    top: dict[str, list[tuple[str, int]]] = {}
    for row in reader.read_rows(_TOP_ENTITIES):
        top.setdefault(row["label"], []).append((row["entity"], row["mentions"]))
    frequent = {label: tuple(entities) for label, entities in top.items()}
    mentions = reader.read_rows(_SAMPLED_MENTIONS)
    hashes = {row["doc_id"]: row["text_hash"] for row in mentions}
    if not mentions:
        return TextSamples(frequent)
    try:
        texts = reader.read_texts(sorted(hashes))
    except (EntityMillError, PySparkException) as error:
        problem = str(error) if isinstance(error, EntityMillError) else "The source cannot be read now."
        return TextSamples(frequent, problem=problem)
    unchanged = {doc_id for doc_id, text_hash in hashes.items() if _hash_text(texts.get(doc_id)) == text_hash}
    keys = _list_sentence_keys(mentions)
    found = [_build_sentence(texts[key[0]], key, mentions) for key in keys if key[0] in unchanged]
    return TextSamples(frequent, tuple(found), changed=sum(key[0] not in unchanged for key in keys))


def _list_sentence_keys(mentions: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int, int]]:
    """Return (doc_id, sentence_id, begin, end) of each sentence with a sampled mention, without duplicates.

    The sentences are in the order of SAMPLES: first those of the sample `least`. `mentions` are rows that the query
    _SAMPLED_MENTIONS returned.
    """
    sampled = [row for sample in SAMPLES for row in mentions if row["sample"] == sample]
    return list(
        dict.fromkeys((row["doc_id"], row["sentence_id"], row["sentence_begin"], row["sentence_end"]) for row in sampled)
    )


def _build_sentence(text: str, key: tuple[str, int, int, int], mentions: Sequence[Mapping[str, Any]]) -> Sentence:
    """Return a sentence, split into its mentions and the text between them.

    The result also names the samples for which its mentions were chosen. `text` is the complete document. `key` has the
    sentence's doc_id, sentence_id, begin and end. `mentions` has the mentions of all sentences; a mention in several samples
    has several rows.
    """
    doc_id, number, at, end = key
    own = [row for row in mentions if (row["doc_id"], row["sentence_id"]) == (doc_id, number)]
    sampled = {row["mention_id"] for row in own if row["sample"]}
    here = {row["mention_id"]: row for row in own}.values()  # a mention has a row for each of its samples
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
