"""Write a copy of the source in which the mentions of chosen labels are masked.

A document is written only if the tables contain results for its current text. Otherwise, mentions could stay unmasked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill.errors import OutputError, SettingsError, SourceError
from entitymill.source.reader import Source, open_source
from entitymill.source.rows_against_output import PENDING
from entitymill.spark import storage
from entitymill.spark.private_session import keep_process_state, open_private_session
from entitymill.spark.spark_connect import cache_on_disk
from entitymill.spark.sql_text import MAX_LEVELS, check_name, quote_name, quote_part
from entitymill.tables import recovery, table_setup
from entitymill.tables.output_tables import Tables
from entitymill.tables.text_masking import LABEL, Masker

if TYPE_CHECKING:
    from entitymill.settings import Settings

PROPERTY = "entitymill.redacted"
"""Table property of the copies that `redact` writes; `redact` never overwrites a table without this property."""
MASK = f"[{LABEL}]"
TABLE = "table:"
_SPANS = "array<struct<begin: int, end: int, label: string>>"


@dataclass(frozen=True)
class RedactionResult:
    """Counts of a redacted copy: documents written, mentions masked, and rows of the source that were not written."""

    documents: int
    mentions: int
    left_out: int


@dataclass(frozen=True)
class KnownModel:
    """The model that the settings name: all its labels, and the fingerprint that a run with these settings writes.

    The fingerprint is a digest of model and settings. Rows of `documents` with it are results of this model and these
    settings.
    """

    labels: Sequence[str]
    fingerprint: str


def redact(
    spark: SparkSession,
    settings: Settings,
    to: str,
    labels: Sequence[str] = (),
    mask: str = MASK,
    *,
    partly: bool = False,
    model: KnownModel | None = None,
) -> RedactionResult:
    """Write a copy of the source with masked mentions, and return counts; replace an earlier copy in one commit.

    Args:
        to: path of a Delta table, or table:NAME for a table in a catalog.
        labels: labels of the mentions to mask; empty masks all labels.
        mask: replacement for each mention; `{label}` in the mask stands for the mention's label. A mask of one character is
            repeated to the mention's length.
        partly: whether to leave out documents without current results; if False, such a document causes a SourceError.
        model: model of the settings; None if the caller does not know it. If this model processed all documents, `labels`
            may contain any of its labels. If all were processed with one other model or other settings, `labels` may contain
            only labels that mentions in the tables have. If models or settings are mixed, `labels` must be empty.

    Raises:
        OutputError: the entity tables do not exist or fail `check_tables`; or `to` cannot be reached, or exists, but
            `redact` did not write it.
        SettingsError: a label in `labels` is unknown, or some of its mentions may be missing from the tables, and so would
            stay unmasked; or `to` overlaps the source or is inside another table.
        SourceError: documents would be left out, and `partly` is False.
    """
    with open_private_session(spark, settings.source.time_zone, {}) as own:
        return _redact(own, settings, to, labels, mask, partly=partly, model=model)


def _redact(
    spark: SparkSession,
    settings: Settings,
    to: str,
    labels: Sequence[str],
    mask: str,
    *,
    partly: bool,
    model: KnownModel | None,
) -> RedactionResult:
    """Check the target, the labels and the documents, and write the copy: see `redact`, which has the same arguments.

    `spark` must come from `open_private_session`.
    """
    tables = Tables(spark, settings.output)
    if not tables.is_complete():
        raise OutputError(f"output: no entity tables at {tables.output}: run the job first.")
    table_setup.check_tables(tables)
    source = open_source(spark, settings.source)
    _check_target(spark, source, to)
    entities = tables.read_latest("entities")
    documents = tables.read_latest("documents")
    _check_labels(entities, labels, settings.entities.labels, model)
    with ExitStack() as cached:
        rows = cache_on_disk(_select_verified_texts(source, documents, entities, labels), cached)
        counts = F.count("*").alias("documents"), F.sum(F.size("spans")).alias("mentions")
        fingerprints = F.min("fingerprint").alias("least"), F.max("fingerprint").alias("greatest")
        found = rows.agg(*counts, *fingerprints).collect()[0]
        _check_fingerprints({found["least"], found["greatest"]} - {None}, documents, entities, labels, model)
        total = source.rows.count()
        left_out = total - found["documents"]
        if left_out and not partly:
            raise SourceError(_describe_left_out(tables, source, left_out, total))
        shaped = _mask_texts(rows.drop("fingerprint"), source, mask)
        _check_target(spark, source, to)  # another program may have created a table there meanwhile
        shaped.writeTo(_sql_name(spark, to)).using("delta").tableProperty(PROPERTY, "true").createOrReplace()
    return RedactionResult(found["documents"], found["mentions"] or 0, left_out)


def _select_verified_texts(source: Source, documents: DataFrame, entities: DataFrame, labels: Sequence[str]) -> DataFrame:
    """Return a DataFrame of the documents that have complete results for their current text.

    Results are incomplete if a job has committed them to `entities` but not yet to `documents`, or died in between. The
    columns are doc_id, text, spans (of the mentions to mask), fingerprint and, if configured, `passthrough`. The mentions to
    mask are those with one of `labels`; if `labels` is empty, all mentions.
    """
    span = F.struct("begin", "end", "label")
    chosen = F.when(F.col("label").isin(*labels), span) if labels else span
    held = recovery.count_rows_by_document(entities, "mention", F.collect_list(chosen).alias("spans"))
    columns = (F.col("run_id").alias("named"), "entities", "fingerprint", F.col("text_hash").alias("known_hash"))
    known = documents.where(F.col("status") != PENDING).select("doc_id", *columns)
    is_counted = F.coalesce("mention_rows", F.lit(0)) == F.col("entities")
    sound = known.join(held, "doc_id", "left").where(is_counted & recovery.rows_match_documents_run("mention"))
    current = source.rows.join(sound, "doc_id").where(F.sha2("text", 256) == F.col("known_hash"))
    passthrough = [name for name in source.rows.columns if name == "passthrough"]
    spans = F.coalesce("spans", F.array().cast(_SPANS)).alias("spans")
    return current.select("doc_id", "text", spans, "fingerprint", *passthrough).dropDuplicates(["doc_id"])


def _mask_texts(rows: DataFrame, source: Source, mask: str) -> DataFrame:
    """Return the document id, masked text and passthrough columns of each row, with the column names of the source."""
    with keep_process_state():
        done = rows.mapInArrow(Masker(mask), T.StructType([field for field in rows.schema.fields if field.name != "spans"]))
    names = [source.settings.id_column, source.settings.text_column]
    columns = [F.col(old).alias(new) for old, new in zip(("doc_id", "text"), names, strict=True)]
    passthrough = [F.col(f"passthrough.{quote_part(field.name)}") for field in source.passthrough if field.name not in names]
    return done.select(*columns, *passthrough)


def _describe_left_out(tables: Tables, source: Source, left_out: int, total: int) -> str:
    """Return an error message that says why `left_out` of the source's `total` rows cannot be copied, and what to do."""
    ids = source.rows.select("doc_id")
    listed = tables.read("rejects").select("doc_id").distinct()
    rejected = min(left_out, ids.where("doc_id IS NULL").count() + ids.join(listed, "doc_id", "left_semi").count())
    stale = left_out - rejected
    reasons = [f"{stale} have no current results in {tables.output}: run the job first"] if stale else []
    if rejected:
        reasons.append(
            f"{rejected} were rejected (the `rejects` table says why): correct them in the source, then run the job"
        )
    found = f"{source.settings.path} has {total} rows; of these, {'; '.join(reasons)}."
    return f"{found} Or leave these rows out of the copy with --partly."


def _check_labels(entities: DataFrame, labels: Sequence[str], kept: Sequence[str], model: KnownModel | None) -> None:
    """Raise SettingsError if a label to mask is left out of the tables, or is unknown to both the tables and the model.

    `kept` is the setting entities.labels: if it is not empty, mentions with other labels are not in the tables.
    """
    for label in labels:
        if kept and label not in kept:
            raise SettingsError(f"--labels: entities.labels leaves out {label}, so its mentions are not in the tables.")
    unknown = [label for label in labels if model is None or label not in model.labels]
    held = sorted(row["label"] for row in entities.select("label").distinct().collect()) if unknown else []
    for label in unknown:
        if label not in held:
            raise SettingsError(
                f"--labels: no mention in the tables has the label {label}; labels in the tables: {', '.join(held)}."
            )


def _check_fingerprints(
    fingerprints: set[str], documents: DataFrame, entities: DataFrame, labels: Sequence[str], model: KnownModel | None
) -> None:
    """Raise SettingsError if mentions with one of the labels may be missing from the tables, and so would stay unmasked.

    Mentions may be missing if the documents were processed with different models or settings. If all were processed with one
    model and the same settings, mentions may be missing if this model is not known to have the label. The labels of `model`
    are known; of any other model, only the labels of its mentions in the tables are known.

    Args:
        fingerprints: the least and the greatest fingerprint (digest of model and settings) of the documents that are copied;
            only one if these are equal.
        labels: labels of the mentions to mask; if empty, nothing is checked.
        model: model of the settings; None if the caller does not know it.
    """
    if not labels or not fingerprints:
        return
    known: set[str] = set()
    if model is not None and fingerprints == {model.fingerprint}:
        known = set(model.labels)
    elif len(fingerprints) == 1:
        alike = documents.where(F.col("fingerprint").isin(fingerprints)).select("doc_id")
        theirs = entities.join(alike, "doc_id", "left_semi").select("label").distinct()
        known = {row["label"] for row in theirs.collect()}
    if unknown := [label for label in labels if label not in known]:
        raise SettingsError(
            f"--labels: mentions with the label {unknown[0]} may be missing from the tables, because some documents were "
            "processed with a model or with settings that may leave out this label. Run the job first, with --full if it "
            "otherwise skips these documents."
        )


def _sql_name(spark: SparkSession, to: str) -> str:
    """Return the target's identifier for SQL statements: the quoted name for table:NAME, otherwise delta.`URI`."""
    if to.startswith(TABLE):
        name = to.removeprefix(TABLE)
        try:
            check_name(name, MAX_LEVELS)
        except ValueError as error:
            raise SettingsError(f"--to: {error}.") from error
        return quote_name(spark, name)
    return "delta." + quote_part(storage.qualify(spark, to))


def _check_target(spark: SparkSession, source: Source, to: str) -> None:
    """Raise OutputError or SettingsError, as `redact` describes, if the redacted copy must not be written to `to`."""
    named = _sql_name(spark, to)
    try:
        target_exists = spark.catalog.tableExists(named) if to.startswith(TABLE) else storage.exists(spark, to)
        if not target_exists and not to.startswith(TABLE):
            source.check_output(to)
    except OSError as error:
        raise OutputError(f"--to: {to} cannot be reached: {error}.") from error
    except SettingsError as error:
        raise SettingsError(str(error).replace("output.path", "--to")) from error
    if not target_exists:
        return
    try:
        properties = spark.sql(f"DESCRIBE DETAIL {named}").collect()[0]["properties"] or {}
    except PySparkException:
        properties = {}
    if PROPERTY not in properties:
        raise OutputError(f"--to: {to} exists, but `entitymill redact` did not write it; choose another path or table name.")
