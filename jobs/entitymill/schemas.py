"""Define the schemas of all tables that this program writes, with a comment on each column."""

from __future__ import annotations

from pyspark.sql import types as T

VERSION = "5"
"""Version of the schemas in this module, stored as a property of each table."""


def _column(name: str, kind: T.DataType, comment: str, *, nullable: bool = True) -> T.StructField:
    """Return a column of the type `kind`, with a comment."""
    return T.StructField(name, kind, nullable, {"comment": comment})


def _key(name: str, kind: T.DataType, comment: str) -> T.StructField:
    """Return a column of the type `kind` that is never null, with a comment."""
    return _column(name, kind, comment, nullable=False)


_STRING, _INT, _LONG, _TIME = T.StringType(), T.IntegerType(), T.LongType(), T.TimestampType()

MENTION_ID = _key("mention_id", _STRING, "doc_id:begin-end, unique in the table")
_MENTION = [
    _column("sentence_id", _INT, "number of the sentence in its document, from 0"),
    _column("sentence_begin", _INT, "first code point of the sentence in the source text"),
    _column("sentence_end", _INT, "code point after the last one of the sentence"),
    _column("begin", _INT, "first code point of the mention in the source text, from 0"),
    _column("end", _INT, "code point after the last one of the mention"),
    _column("entity", _STRING, "the mention as written: substring(text, begin + 1, end - begin)"),
    _key("label", _STRING, "PER, ORG, LOC, MISC, or another label of the model"),
    _column("confidence", T.FloatType(), "mean probability of the assigned tags, over the mention's tokens"),
    _column("token_count", _INT, "tokens in the mention"),
]
NORMALIZED = _column(
    "entity_normalized", _STRING, "the mention for grouping: lower case, single spaces, no possessive ending"
)
_ORIGIN = [
    _column("model", _STRING, "name of the model"),
    _column("run_id", _STRING, "run that wrote the row"),
    _column("processed_at", _TIME, "start of that run"),
]

_DOC_ID = _key("doc_id", _STRING, "id of the document in the source, as a string")


def entities_schema(passthrough: list[T.StructField]) -> T.StructType:
    """Return the schema of `entities`, which has one row per mention and is partitioned by label.

    Args:
        passthrough: source columns to copy, in the order of `source.passthrough`; they become nullable, and come between
            the columns of the mention and `model`.
    """
    copied = [T.StructField(field.name, field.dataType, True, field.metadata) for field in passthrough]
    after = [field.name for field in _MENTION].index("entity") + 1
    return T.StructType([_DOC_ID, MENTION_ID, *_MENTION[:after], NORMALIZED, *_MENTION[after:], *copied, *_ORIGIN])


ENTITY_COLUMNS = tuple(entities_schema([]).names)
"""Names of the columns of `entities`, without passthrough columns."""
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
            "sentences over the model's limit: tagged in overlapping windows, or cut short (a long word; encoding sparknlp)",
        ),
        _column("entities", _INT, "rows of this document in entities"),
        _column("passthrough_hash", _STRING, "SHA-256 of the passthrough columns as JSON, hex; null if there are none"),
        _column("slice", _STRING, "digest of source.where if output.replace_slice was set; else null"),
        _column(
            "fingerprint", _STRING, "digest of everything but the text that decides the result: models, precision, settings"
        ),
        _column("source_version", _STRING, "version of the source table that was read"),
        _column("run_id", _STRING, "run that wrote the row"),
        _column("processed_at", _TIME, "start of that run"),
    ]
)

REJECTS = T.StructType(
    [
        _column("doc_id", _STRING, "id of the rejected row; null if the missing id is the reason"),
        _column("stage", _STRING, "where it was rejected: source, or recognition"),
        _column("code", _STRING, "reject code"),
        _column("detail", _STRING, "reason in words, with numbers; never text"),
        _column("slice", _STRING, "digest of source.where if output.replace_slice was set; else null"),
        _column("run_id", _STRING, "run that rejected it"),
        _column("at", _TIME, "start of that run"),
    ]
)

RUNS = T.StructType(
    [
        _key("run_id", _STRING, "id of the run"),
        _column("started_at", _TIME, "start"),
        _column("ended_at", _TIME, "end"),
        _column(
            "status",
            _STRING,
            "running, done, failed, stopped (by a signal or limits.max_core_hours), or died (recorded by a later run)",
        ),
        _column(
            "mode",
            _STRING,
            "how the run found its documents: first, full, compare, feed, arrivals; none: nothing to do; maintenance",
        ),
        _column("settings", _STRING, "all settings as JSON, secrets masked; of an erasure, a digest of the ids"),
        _column("source", _STRING, "address of the source that was read, or a table's full name"),
        _column("source_version", _STRING, "version of the source"),
        _column("scope", _STRING, "digest of the settings that select the source's rows"),
        _column("model", _STRING, "name of the model"),
        _column("fingerprint", _STRING, "digest of everything but the texts that decides the result"),
        _column("entities_by_label", T.MapType(_STRING, _LONG), "number of mentions per label"),
        _column("documents", _LONG, "documents processed"),
        _column("removed", _LONG, "documents that are no longer in the source; a run that ended early left some"),
        _column("units", _LONG, "units into which the work was split"),
        _column("planned", _LONG, "documents to be processed, counted before the first unit"),
        _column("units_done", _LONG, "units published so far"),
        _column("stage", _STRING, "latest stage of the run: preparation, waiting, source, recognition, writing, done"),
        _column("error", _STRING, "error that ended the run, in one sentence without text; else null"),
        _column("exit_code", _INT, "exit code; 0 also if the only problem was drift; null while it runs, or if it died"),
        _column("application_id", _STRING, "Spark's id of the application"),
        _column("log", _STRING, "path of the log on the driver; a temporary log is deleted after a successful run"),
        _column("sentences", _LONG, "sentences tagged"),
        _column("rejects", _LONG, "rows rejected"),
        _column("seconds", T.MapType(_STRING, T.DoubleType()), "seconds per stage"),
        _column("sentences_per_second", T.DoubleType(), "sentences per second of the run's total time"),
        _column(
            "epoch", _LONG, "number that grows with every run that may write the tables; null if there was nothing to do"
        ),
        _column("process", _STRING, "host and process id, and limits.lease_seconds, as JSON"),
        _column("until", _TIME, "when another run may take over, unless there is a heartbeat before"),
        _column("settled", T.BooleanType(), "whether all its changes are complete; else the next run checks the tables"),
        _column("slice", _STRING, "digest of source.where if output.replace_slice was set; else null"),
        _column("source_committed", _LONG, "when the version of a Delta source was committed, milliseconds since 1970"),
        _column("output_versions", T.MapType(_STRING, _LONG), "Delta version of each table when the run ended"),
        _column("chars", _LONG, "code points of the processed documents"),
        _column("cores", _INT, "cores of Spark's executors, as last counted"),
        _column("core_hours", T.DoubleType(), "hours from the run's start, times its cores: what a cluster costs"),
        _column(
            "cpu_seconds",
            T.MapType(_STRING, T.DoubleType()),
            "recognition: CPU seconds of workers and taggers; job: of the whole job, if known",
        ),
    ]
)

ERASURES = T.StructType(
    [
        _key("erasure_id", _STRING, "id of the erasure"),
        _column("at", _TIME, "time of the erasure"),
        _column("doc_id_sha256", _STRING, "SHA-256 of the erased id's UTF-8 bytes, hex; the id itself is not stored"),
        _column("table", _STRING, "table that was searched"),
        _column("rows", _LONG, "rows removed from that table"),
    ]
)

CONSTRAINTS = {
    "entities": "`begin` >= 0 AND `end` > `begin` AND confidence >= 0 AND confidence <= 1",
    "documents": "status IN ('done', 'blank', 'pending') AND entities >= 0",
}
"""For each table with a CHECK constraint, the condition that all its rows must meet."""

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
"""The columns `ner` (the tag of each token) and `ner_chunk` (the mentions), in Spark NLP's format. All nested fields are
nullable, as in columns that Spark reads from a table. Engines add these columns if `output.annotations` is set."""

ANNOTATION_TABLE = T.StructType([_DOC_ID, *ANNOTATIONS, _column("run_id", _STRING, "run that wrote the row")])
"""Schema of the `annotations` table, which has one row per document and is written if `output.annotations` is set."""

FAILURE = T.StructType([T.StructField("code", _STRING), T.StructField("detail", _STRING)])
"""Why a document has no result: the reject code, and a sentence that may contain numbers but never document text."""

PARTS = ("segmentation", "encoding", "inference", "mentions")
"""The steps of recognition in a worker, in order: split documents into sentences (`segmentation`), turn tokens into the
model's input (`encoding`), run the model (`inference`), and build mentions from its output (`mentions`)."""
TIMES = (*PARTS, "cpu")
"""Names of the times that a worker measures for each batch of documents, in seconds. Those of PARTS are wall-clock times;
`cpu` is the CPU time of the worker and its child process."""

RECOGNIZED = [
    T.StructField("doc_id", _STRING, False),
    T.StructField("text_hash", _STRING, False),
    T.StructField("chars", _INT, False),
    T.StructField("sentences", _INT, False),
    T.StructField("tokens", _INT, False),
    T.StructField("split_sentences", _INT, False),
    T.StructField("mentions", MENTIONS, False),
    # The first row of a batch has the seconds of the whole batch. The other rows have 0, so that the sum over all rows is
    # correct.
    *(T.StructField(f"{name}_seconds", T.DoubleType(), False) for name in TIMES),
    T.StructField("failure", FAILURE, True),
]
"""Columns that both engines (setting `recognition.engine`) return, one row per document. If there are passthrough columns, a
struct column `passthrough` follows. `failure` is null, unless the document crashes the model's process or makes it hang."""
