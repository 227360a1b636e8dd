"""Recognize documents with Spark NLP in the executors' JVM, which splits texts into sentences and tokens, and tags tokens.

The same code as for the engine `openvino` then joins the tags to mentions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import errors, schemas
from entitymill.errors import EntityMillError, ModelError
from entitymill.recognition import offsets, recognizer, tokens
from entitymill.recognition.offsets import Texts
from entitymill.recognition.tagger import Tags, bundle
from entitymill.recognition.tagger.tokens_to_model_input import find_truncated_sentences
from entitymill.recognition.tokens import Segments
from entitymill.settings import Settings
from entitymill.spark import session, storage
from entitymill.workers import engine_openvino
from entitymill.workers import recognized_rows as rows_module

if TYPE_CHECKING:  # executors import this module, and may lack Spark NLP's package
    from entitymill_sparknlp.pipeline_stages import TaggingPipeline


def open_pipeline(spark: SparkSession, settings: Settings) -> tuple[str, dict[str, Any], Callable[[DataFrame], DataFrame]]:
    """Load the Spark NLP model that the settings name, and the pipeline stages that run before it.

    Before a saved model is loaded, its files are checked, because they could run code. OpenVINO is configured for this Spark
    session.

    Returns:
        The model's name; a dict that identifies the sentence detector, the model, the engine and the precision; and a
        function that recognizes the documents of a DataFrame (see `recognize`). If a value of the dict changes, so does the
        fingerprint (digest of model and settings), and by default the next run recomputes all documents.

    Raises:
        ModelError: a model is missing or damaged, could run code, has an unsupported class, or cannot run in this session.
        SettingsError: the settings `entities` name a label that the model does not have.
    """
    from entitymill_sparknlp import pipeline_stages  # noqa: PLC0415  # needs Spark NLP's package, which executors may lack

    recognition = settings.recognition
    saved = pipeline_stages.inspect_model(spark, recognition.sparknlp_model or "")
    # Whether OpenVINO's Java classes are on the class path, and whether they come from this program's own Java binding.
    has_classes, is_own_binding = (session.has_class(spark, f"org.intel.openvino.{name}") for name in ("Core", "OpenvinoC"))
    pipeline_stages.check_runnable(saved, recognition.precision, has_classes=has_classes, is_own_binding=is_own_binding)
    pipeline_stages.configure_openvino(spark, recognition.precision)
    is_classifier = saved.kind != "PipelineModel"
    detector = settings.detector, settings.detector_model
    pipeline = pipeline_stages.load_pipeline(saved, pipeline_stages.build_stages(spark, *detector) if is_classifier else [])
    mentioned = settings.entities.referenced_labels
    if mentioned:
        engine_openvino.refuse_unknown_labels(saved.address, mentioned, pipeline.list_entity_labels())
    digest = (
        None
        if saved.pretrained
        else storage.hash_files(spark, (path for path, *_ in storage.list_files(spark, saved.address)))
    )
    parts = {
        "detector": pipeline_stages.identify_detector(spark, *detector) if is_classifier else "the pipeline's",
        "model": digest or saved.address,
        "engine": recognition.engine,
        "precision": recognition.precision if is_own_binding or saved.engine != "openvino" else "as jsl-openvino chooses",
    }
    options = {
        "trim": settings.trims_mentions,
        "annotations": settings.output.annotations,
        "consistent_labels": settings.makes_labels_consistent,
    }
    return saved.name, parts, lambda rows: recognize(rows, pipeline, **options)


def recognize(
    rows: DataFrame, pipeline: TaggingPipeline, *, trim: bool, annotations: bool, consistent_labels: bool = False
) -> DataFrame:
    """Return a lazy DataFrame with the mentions of documents, one row per document.

    Its columns are those in schemas.RECOGNIZED, and `passthrough` if `rows` has this column.

    Args:
        rows: documents with the columns doc_id, text, text_hash, chars, and optionally passthrough.
        pipeline: the stages that tag the documents.
        trim: whether to remove possessive endings and stray punctuation from mentions.
        annotations: whether to add the columns in schemas.ANNOTATIONS.
        consistent_labels: whether all mentions with the same spelling in a document get the same label.
    """
    passthrough = [field for field in rows.schema.fields if field.name == "passthrough"]
    packed = rows.select(F.col("text").alias(pipeline.text), F.struct(*rows.columns).alias("_row"))
    tagged = pipeline.stages.transform(packed)
    edges = [
        F.col(f"{column}.{edge}").alias(f"{name}_{edge}")
        for name, column in (("sentence", pipeline.sentence), ("token", pipeline.token), ("ner", pipeline.ner))
        for edge in ("begin", "end")
    ]
    probability = F.transform(pipeline.ner, lambda tag: F.element_at(tag["metadata"], tag["result"]).cast("float"))
    columns = [
        *(F.col(f"_row.{name}").alias(name) for name in rows.columns),
        *edges,
        F.col(f"{pipeline.ner}.result").alias("ner_result"),
        probability.alias("ner_confidence"),
        *([F.col(pipeline.ner).alias("ner")] if annotations else []),
    ]
    returned = T.StructType([*schemas.RECOGNIZED, *passthrough, *(schemas.ANNOTATIONS if annotations else [])])
    return tagged.select(*columns).mapInArrow(
        _MentionBuilder(trim, annotations, consistent_labels, errors.SIGNATURE), returned
    )


@dataclass(frozen=True)
class _MentionBuilder:
    """Builds mentions from the tags of Spark NLP's tokens; Spark calls this object on the executors.

    trim: whether to remove possessive endings and stray punctuation from mentions.
    annotations: whether to add the columns in schemas.ANNOTATIONS.
    consistent_labels: whether all mentions with the same spelling in a document get the same label.
    signature: the driver's `errors.SIGNATURE`, by which the driver recognizes this object's errors.
    """

    trim: bool
    annotations: bool
    consistent_labels: bool
    signature: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield, for each batch of tagged documents, a batch of rows with their mentions; skip empty batches.

        Errors of this program (EntityMillError) are signed with `signature` before they are raised.
        """
        try:
            for batch in batches:
                if batch.num_rows:
                    yield self._build_rows(batch)
        except EntityMillError as error:
            raise errors.sign_error(error, self.signature) from error

    def _build_rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with a row for each tagged document, with its mentions; times are 0, since none are measured."""
        texts = offsets.read_texts(batch.column("text"))
        segments = read_segments(batch, texts)
        tags, labels = read_tags(batch, texts, segments)
        found = recognizer.join_tags(texts, segments, tags, labels)
        made = recognizer.build_recognition(
            found, trim=self.trim, annotations=self.annotations, consistent_labels=self.consistent_labels
        )
        return rows_module.build_rows(batch, made, {}, annotations=self.annotations)


def read_segments(batch: pa.RecordBatch, texts: Texts) -> Segments:
    """Return the sentences and tokens that Spark NLP found in a batch of documents; empty tokens are left out.

    Spark NLP's offsets count UTF-16 code units in the document, with inclusive ends. The returned positions count UTF-16
    code units in the concatenated texts of the batch, with exclusive ends. A returned sentence reaches from its first to its
    last token; sentences without tokens are left out.
    """
    begin = _convert_to_batch_offsets(batch, "token_begin", texts)
    end = _convert_to_batch_offsets(batch, "token_end", texts, 1)
    # The rule-based sentence detector finds wrong offsets in some texts (docs/migration.md). Sorting the sentences prevents
    # these offsets from affecting other texts of the batch.
    sentences = np.sort(_convert_to_batch_offsets(batch, "sentence_begin", texts))
    order = np.argsort(begin, kind="stable")
    order = order[end[order] > begin[order]]
    begin, end = begin[order], end[order]
    return tokens.group_by_sentence(texts, begin, end, np.searchsorted(sentences, begin, side="right"))


def _convert_to_batch_offsets(batch: pa.RecordBatch, column: str, texts: Texts, add: int = 0) -> NDArray[np.int64]:
    """Convert offsets in each document to offsets in the concatenated texts of the batch; return them in one array.

    The batch has one row per document, with a list of offsets in the column `column`. `add` is added to each offset: 1 makes
    inclusive ends exclusive. An offset outside its document becomes the document's begin or end.
    """
    values = batch.column(column)
    counts = np.diff(values.offsets.to_numpy())
    converted = values.flatten().to_numpy().astype(np.int64) + add + np.repeat(texts.edges[:-1], counts)
    return np.clip(converted, np.repeat(texts.edges[:-1], counts), np.repeat(texts.edges[1:], counts))


def _check_tags(labels: list[str]) -> None:
    """Raise ModelError if a tag is neither O nor an IOB2 tag, or if its label cannot be the name of a directory."""
    invalid = [label for label in labels if not re.fullmatch(r"O|[BI]-.+", label, re.DOTALL)]
    if invalid:
        raise ModelError(
            f"recognition.sparknlp_model: the model's tag {bundle.shorten_label(invalid[0])} is neither O nor an IOB2 tag "
            "such as B-PER: name a model with IOB2 tags."
        )
    for label in labels:
        fault = None if label == "O" else bundle.find_label_fault(label[2:])
        if fault is not None:
            raise ModelError(
                f"recognition.sparknlp_model: the model's label '{bundle.shorten_label(label[2:])}' {fault}, so it cannot "
                "be the name of a directory of the table entities: rename the label, and train or save the model again."
            )


def read_tags(batch: pa.RecordBatch, texts: Texts, segments: Segments) -> tuple[Tags, list[str]]:
    """Return the tags of a batch of documents as indices into a list of distinct tags such as B-PER, and this list.

    The batch has one row per document, with the columns ner_begin, ner_result and ner_confidence. A tag belongs to the token
    that begins where the tag begins; if no token begins there, the tag is left out. If the last token of a sentence has no
    tag, Spark NLP has truncated the sentence, and `Tags.split` is true for it. Raise ModelError as `_check_tags` does.
    """
    results = batch.column("ner_result").flatten().dictionary_encode()
    labels = results.dictionary.to_pylist()
    _check_tags(labels)
    begins = _convert_to_batch_offsets(batch, "ner_begin", texts)
    tagged = np.searchsorted(segments.token_begin, begins)
    has_token = tagged < len(segments.token_begin)
    has_token[has_token] = segments.token_begin[tagged[has_token]] == begins[has_token]
    tagged = tagged[has_token]
    after = np.concatenate([np.zeros(1, np.int64), np.cumsum(segments.sentence_tokens)])
    split = np.zeros(len(segments.sentence_begin), np.bool_)
    split[find_truncated_sentences(tagged, after)] = True
    confidences = batch.column("ner_confidence").flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    tags = results.indices.to_numpy().astype(np.int16)
    return Tags(tagged, tags[has_token], confidences[has_token], None, split), labels
