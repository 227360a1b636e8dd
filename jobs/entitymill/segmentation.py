"""2  documents -> sentences -> tokens, by Spark NLP's own annotators in the JVM.

What leaves this module is offsets alone: whatever segments next (Spark Connect, Spark 4) has to give the same columns.

Spark NLP's annotators take time that grows with the square of a text's length (measured: 0.1 MB 4 s, 1 MB 106 s; at 30 KB
it is half of all), so a long text goes through them in blocks, cut where a sentence most certainly ends. Where the cuts lie
depends on the text alone.
"""

from __future__ import annotations

import re
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sparknlp.annotator import SentenceDetector, SentenceDetectorDLModel, Tokenizer
from sparknlp.base import DocumentAssembler

from entitymill import storage
from entitymill.errors import ModelError
from entitymill.settings import PRETRAINED, SegmentationSettings

CHUNK_CHARS = 2_000
BLOCK_CHARS = 32_000
"""A text of at most CHUNK_CHARS code points is one block. A longer one is cut after the last sentence end in each chunk of
so many; where it has none the block grows, until at BLOCK_CHARS it is cut after a line break, a full stop, or a blank."""

_SENTENCE_END = r"""(?<=[\p{Lu}"'(\[])\s+["')\]]*[.!?]\p{Ll}{3}|\n\s*\n"""
"""In reversed text: a full stop behind three small letters and before a capital, or an empty line."""


def _literal(text: str) -> str:
    """A string as Spark SQL reads it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


_REVERSED = "reverse(chunk)"
_TAIL = f"""
  CASE WHEN {_REVERSED} rlike {_literal(_SENTENCE_END)}
         THEN char_length(regexp_extract({_REVERSED}, {_literal(f"(?s)^(.*?)(?:{_SENTENCE_END})")}, 1))
       WHEN char_length(done.carry) + char_length(chunk) < {BLOCK_CHARS} THEN char_length(chunk)
       WHEN instr({_REVERSED}, '\n') > 0 THEN instr({_REVERSED}, '\n') - 1
       WHEN instr({_REVERSED}, ' .') > 0 THEN instr({_REVERSED}, ' .') - 1
       WHEN instr({_REVERSED}, ' ') > 0 THEN instr({_REVERSED}, ' ') - 1
       ELSE 0 END"""
_BLOCKS = f"""
  CASE WHEN char_length(text) <= {CHUNK_CHARS} THEN array(text)
  ELSE filter(aggregate(
    regexp_extract_all(text, '(?s).{{1,{CHUNK_CHARS}}}', 0),
    named_struct('blocks', cast(array() AS array<string>), 'carry', ''),
    (done, chunk) -> transform(array({_TAIL}), tail -> named_struct(
      'blocks', IF(tail = char_length(chunk), done.blocks,
                   concat(done.blocks, array(concat(done.carry, left(chunk, char_length(chunk) - tail))))),
      'carry', IF(tail = char_length(chunk), concat(done.carry, chunk), right(chunk, tail))))[0],
    done -> concat(done.blocks, array(done.carry))), block -> block != '')
  END"""
"""Joined in order, the blocks are the text. (The chunks come from a regular expression, which reads the text once; substring
would count from the text's start for each.)"""


def blocks(documents: DataFrame) -> DataFrame:
    """One row per block, a document's in order and next to each other.

    `text` becomes the block's own; `block` is its number from 0, `blocks` how many its document has.
    """
    others = [column for column in documents.columns if column != "text"]
    cut = documents.select(*others, F.expr(_BLOCKS).alias("_blocks"))
    # Without "outer" Spark would filter on the blocks' size first, and compute them three times.
    counted = [F.size("_blocks").alias("blocks"), F.posexplode_outer("_blocks").alias("block", "text")]
    return cut.select(*others, *counted)


def segment(documents: DataFrame, detector: SentenceDetector | SentenceDetectorDLModel) -> DataFrame:
    """Documents (doc_id, text, …) to blocks with schemas.OFFSETS, which count in their own block."""
    cut = blocks(documents)
    annotated = PipelineModel(stages(detector, cut)).transform(cut)
    offsets = [
        F.col(f"_{what}.{edge}").alias(f"{what}_{edge}") for what in ("sentence", "token") for edge in ("begin", "end")
    ]
    return annotated.select(*cut.columns, *offsets)


def stages(detector: SentenceDetector | SentenceDetectorDLModel, texts: DataFrame) -> list[Any]:
    """Transformers of `text` to `_document`, `_sentence` and `_token`."""
    pipeline = [
        DocumentAssembler().setInputCol("text").setOutputCol("_document"),
        detector.setInputCols(["_document"]).setOutputCol("_sentence"),
        Tokenizer().setInputCols(["_sentence"]).setOutputCol("_token"),
    ]
    # Fitting learns nothing: Tokenizer turns its rules into a model.
    return Pipeline(stages=pipeline).fit(texts.limit(0)).stages


def load_detector(spark: SparkSession, settings: SegmentationSettings) -> SentenceDetector | SentenceDetectorDLModel:
    """The sentence detector the settings name.

    Raises:
        ModelError: its model is missing or is not one.
    """
    if settings.detector == "rules":
        return SentenceDetector()
    path = settings.model
    named = PRETRAINED.fullmatch(path)
    try:
        if named:
            return SentenceDetectorDLModel.pretrained(named[1], named[2])
        address = storage.driver_first(path)
        if not storage.exists(spark, address):
            raise ModelError(f"segmentation.model: nothing is at {path}; name a saved SentenceDetectorDLModel.")
        if re.search(r"\s", address):
            raise ModelError(
                f"segmentation.model: {path} cannot be read: Spark NLP reads nothing below a directory with a blank in its "
                "name."
            )
        return SentenceDetectorDLModel.load(address)
    except (Py4JJavaError, OSError, TypeError) as error:
        what = "cannot be downloaded; name a saved one" if named else "is not a saved SentenceDetectorDLModel"
        raise ModelError(f"segmentation.model: {path} {what}.") from error


def identity(spark: SparkSession, settings: SegmentationSettings) -> str:
    """What decides the sentences: the detector's name, and a digest of its model's files.

    Raises:
        ModelError: the model is missing.
    """
    if settings.detector == "rules":
        return "rules"
    if PRETRAINED.fullmatch(settings.model):
        return settings.model
    try:
        address = storage.driver_first(settings.model)
        if not storage.exists(spark, address):
            raise ModelError(f"segmentation.model: nothing is at {settings.model}; name a saved SentenceDetectorDLModel.")
        return f"dl {storage.digest(spark, address)}"
    except OSError as error:
        raise ModelError(f"segmentation.model: {settings.model} cannot be read: {error}.") from error
