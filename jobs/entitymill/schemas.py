"""The schemas of every table this product writes, each column with its comment. They live here and nowhere else."""

from __future__ import annotations

from pyspark.sql import types as T

VERSION = "4"
"""Of these schemas; kept as a property of each table."""


def _column(name: str, kind: T.DataType, comment: str, *, nullable: bool = True) -> T.StructField:
    return T.StructField(name, kind, nullable, {"comment": comment})


def _key(name: str, kind: T.DataType, comment: str) -> T.StructField:
    return _column(name, kind, comment, nullable=False)


_STRING, _INT, _LONG, _TIME = T.StringType(), T.IntegerType(), T.LongType(), T.TimestampType()

_MENTION = [
    _key("mention_id", _STRING, "doc_id:begin-end, unique in the table"),
    _column("sentence_id", _INT, "number of the sentence in its document, from 0"),
    _column("sentence_begin", _INT, "first code point of the sentence in the source text"),
    _column("sentence_end", _INT, "code point after the sentence's last"),
    _column("begin", _INT, "first code point of the mention in the source text, from 0"),
    _column("end", _INT, "code point after the mention's last"),
    _column("entity", _STRING, "the mention as written: substring(text, begin + 1, end - begin)"),
    _key("label", _STRING, "PER, ORG, LOC, MISC, or what else the model knows"),
    _column("confidence", T.FloatType(), "mean probability of the mention's tokens for their own tags"),
    _column("token_count", _INT, "tokens in the mention"),
]
NORMALIZED = _column(
    "entity_normalized", _STRING, "the mention for grouping: lower case, single blanks, no possessive ending"
)
_ORIGIN = [
    _column("model", _STRING, "name of the model"),
    _column("run_id", _STRING, "run that wrote the row"),
    _column("processed_at", _TIME, "start of that run"),
]

_DOC_ID = _key("doc_id", _STRING, "id of the document in the source, as a string")


def entities_schema(passthrough: list[T.StructField]) -> T.StructType:
    """One row per mention; partitioned by label.

    Args:
        passthrough: source columns to carry, in the order the settings name them.
    """
    carried = [T.StructField(field.name, field.dataType, True, field.metadata) for field in passthrough]
    after = [field.name for field in _MENTION].index("entity") + 1
    return T.StructType([_DOC_ID, *_MENTION[:after], NORMALIZED, *_MENTION[after:], *carried, *_ORIGIN])


ENTITY_COLUMNS = tuple(entities_schema([]).names)
MENTIONS = T.ArrayType(T.StructType([T.StructField(f.name, f.dataType, False) for f in _MENTION]), False)

DOCUMENTS = T.StructType(
    [
        _DOC_ID,
        _column("text_hash", _STRING, "SHA-256 of the text's UTF-8 bytes, hex"),
        _column(
            "status", _STRING, "done; blank: only white space; pending: will be recomputed, its mentions may be incomplete"
        ),
        _column("chars", _INT, "code points of the text"),
        _column("sentences", _INT, "sentences with at least one token"),
        _column("tokens", _INT, "tokens"),
        _column(
            "split_sentences",
            _INT,
            "sentences longer than the model's limit: tagged in overlapping windows, or cut short by the encoding sparknlp",
        ),
        _column("entities", _INT, "rows of this document in entities"),
        _column("passthrough_hash", _STRING, "SHA-256 of the carried columns as JSON, hex; null where none are carried"),
        _column("slice", _STRING, "digest of source.where, where the run replaced a slice; else null"),
        _column("fingerprint", _STRING, "of everything but the text that decides the result: models, precision, settings"),
        _column("source_version", _STRING, "version of the source table that was read"),
        _column("run_id", _STRING, "run that wrote the row"),
        _column("processed_at", _TIME, "start of that run"),
    ]
)

REJECTS = T.StructType(
    [
        _column("doc_id", _STRING, "id of the refused row; null where that is the reason"),
        _column("stage", _STRING, "where it was refused"),
        _column("code", _STRING, "why, one word"),
        _column("detail", _STRING, "why, with numbers; never text"),
        _column("slice", _STRING, "digest of source.where, where the run replaced a slice; else null"),
        _column("run_id", _STRING, "run that refused it"),
        _column("at", _TIME, "start of that run"),
    ]
)

RUNS = T.StructType(
    [
        _key("run_id", _STRING, "id of the run"),
        _column("started_at", _TIME, "start"),
        _column("ended_at", _TIME, "end"),
        _column("status", _STRING, "running, done, failed, stopped by a signal; or died: found running by a later run"),
        _column(
            "mode",
            _STRING,
            "how the run found its documents: first, full, compare, feed, arrivals; none: nothing to do; maintenance",
        ),
        _column("settings", _STRING, "all settings as JSON, secrets masked"),
        _column("source", _STRING, "what was read"),
        _column("source_version", _STRING, "which version of it"),
        _column("scope", _STRING, "digest of the settings that say which rows the run was about"),
        _column("model", _STRING, "name of the model"),
        _column("fingerprint", _STRING, "of everything but the texts that decides the result"),
        _column("entities_by_label", T.MapType(_STRING, _LONG), "label -> mentions"),
        _column("documents", _LONG, "documents processed"),
        _column("removed", _LONG, "documents that are no longer in the source"),
        _column("units", _LONG, "units the work was cut into"),
        _column("planned", _LONG, "documents to be processed, as found before the first unit"),
        _column("units_done", _LONG, "units published so far"),
        _column("stage", _STRING, "what the run was at: preparation, waiting, source, recognition, writing, done"),
        _column("error", _STRING, "what ended it, in one sentence without text; null where nothing did"),
        _column(
            "exit_code",
            _INT,
            "0 where nothing went wrong, or only a drift was seen; null while it runs, or when it died",
        ),
        _column("application_id", _STRING, "Spark's id of the application"),
        _column("log", _STRING, "where its log is, on the driver"),
        _column("sentences", _LONG, "sentences tagged"),
        _column("rejects", _LONG, "rows refused"),
        _column("seconds", T.MapType(_STRING, T.DoubleType()), "stage -> seconds"),
        _column("sentences_per_second", T.DoubleType(), "sentences over the wall seconds of the whole run"),
        _column("epoch", _LONG, "grows with every run that may write the tables; null where there was nothing to do"),
        _column("process", _STRING, "where it runs: host and process id, as JSON"),
        _column("until", _TIME, "when another run may take over, unless a sign of life comes before"),
        _column("settled", T.BooleanType(), "whether all its changes are whole; else the next run checks the tables"),
        _column("slice", _STRING, "digest of source.where, where the run replaced a slice; else null"),
        _column("source_committed", _LONG, "when the version of a Delta source was committed, milliseconds since 1970"),
        _column("output_versions", T.MapType(_STRING, _LONG), "table -> its version of Delta when the run ended"),
    ]
)

ERASURES = T.StructType(
    [
        _key("erasure_id", _STRING, "id of the erasure"),
        _column("at", _TIME, "when"),
        _column("doc_id_sha256", _STRING, "SHA-256 of the erased id's UTF-8 bytes, hex: the id itself is not kept"),
        _column("table", _STRING, "where it was looked for"),
        _column("rows", _LONG, "rows it had there, all gone now, 0: none"),
    ]
)

CONSTRAINTS = {
    "entities": "`begin` >= 0 AND `end` > `begin` AND confidence >= 0 AND confidence <= 1",
    "documents": "status IN ('done', 'blank', 'pending') AND entities >= 0",
}
"""Table -> its CHECK constraint."""

_ANNOTATION = T.StructType(
    [
        T.StructField("annotatorType", _STRING),
        T.StructField("begin", _INT),
        T.StructField("end", _INT),
        T.StructField("result", _STRING),
        T.StructField("metadata", T.MapType(_STRING, _STRING)),
        T.StructField("embeddings", T.ArrayType(T.FloatType())),
    ]
)
ANNOTATIONS = [
    T.StructField("ner", T.ArrayType(_ANNOTATION), True, {"annotatorType": "named_entity"}),
    T.StructField("ner_chunk", T.ArrayType(_ANNOTATION), True, {"annotatorType": "chunk"}),
]
"""Spark NLP's own columns as they are once read back from a table, where nothing nested is required any more; an engine adds
them on request."""

ANNOTATION_TABLE = T.StructType(
    [_DOC_ID, *ANNOTATIONS, _column("run_id", _STRING, "run that wrote the row")],
)
"""One row per document, where `output.annotations` is set."""

FAILURE = T.StructType([T.StructField("code", _STRING), T.StructField("detail", _STRING)])
"""Why there is nothing of a document: one word, and a sentence with numbers, never text."""

RECOGNISED = [
    T.StructField("doc_id", _STRING, False),
    T.StructField("text_hash", _STRING, False),
    T.StructField("chars", _INT, False),
    T.StructField("sentences", _INT, False),
    T.StructField("tokens", _INT, False),
    T.StructField("split_sentences", _INT, False),
    T.StructField("mentions", MENTIONS, False),
    # Seconds a worker spent, on the first row of each window of work; 0 on the others, so that they add up.
    T.StructField("encoding_seconds", T.DoubleType(), False),
    T.StructField("inference_seconds", T.DoubleType(), False),
    T.StructField("failure", FAILURE, True),
]
"""What every engine returns, one row per document, with a struct column `passthrough` after these where one is carried. Of a
document that no worker survives there is a `failure` and nothing else; elsewhere it is null."""
