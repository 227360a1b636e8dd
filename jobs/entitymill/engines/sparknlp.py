"""3  tokens -> tags -> mentions by Spark NLP itself, in the executors' JVM: the model card's four stages as they stand.

Spark NLP batches within a row only, so a document stays whole until it is tagged. Its annotations then go through the same
joining as the other engine's tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.engines import documents
from entitymill.engines.sparknlp_model import Pipeline
from entitymill.errors import ModelError
from entitymill.recognition.tagger.rows import cut_short
from entitymill.recognition.tagger.tags import Tags


def recognise(rows: DataFrame, pipeline: Pipeline, *, annotations: bool) -> DataFrame:
    """Tag documents.

    Args:
        rows: doc_id, text, text_hash, chars, perhaps passthrough.
        pipeline: that tags them.
        annotations: whether to return Spark NLP's own column `ner` and the chunks too.

    Returns:
        schemas.RECOGNISED, passthrough where it was there, and schemas.ANNOTATIONS where wanted.
    """
    carried = [field for field in rows.schema.fields if field.name == "passthrough"]
    packed = rows.select(F.col("text").alias(pipeline.text), F.struct(*rows.columns).alias("_row"))
    tagged = pipeline.stages.transform(packed)
    offsets = [
        F.col(f"{column}.{edge}").alias(f"{name}_{edge}")
        for name, column in (("sentence", pipeline.sentence), ("token", pipeline.token), ("ner", pipeline.ner))
        for edge in ("begin", "end")
    ]
    probability = F.transform(pipeline.ner, lambda tag: F.element_at(tag["metadata"], tag["result"]).cast("float"))
    columns = [
        *(F.col(f"_row.{name}").alias(name) for name in rows.columns),
        F.lit(0).alias("block"),
        *offsets,
        F.col(f"{pipeline.ner}.result").alias("ner_result"),
        probability.alias("ner_confidence"),
        *([F.col(pipeline.ner).alias("ner")] if annotations else []),
    ]
    wanted = schemas.ANNOTATIONS if annotations else []
    names = [*(field.name for field in carried), *(["ner"] if annotations else [])]
    returned = T.StructType([*schemas.RECOGNISED, *carried, *wanted])
    return tagged.select(*columns).mapInArrow(_Join(tuple(names), annotations), returned)


@dataclass(frozen=True)
class _Join:
    """Spark NLP's annotations to mentions, batch by batch."""

    carried: tuple[str, ...]
    annotations: bool

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            texts = batch.column("text").to_pylist()
            segments = documents.read_segments(batch, texts)
            tags, labels = read_tags(batch, segments)
            found = documents.found(texts, segments, tags, labels)
            yield documents.output(batch, found, (0.0, 0.0), self.carried, with_annotations=self.annotations)


def read_tags(batch: pa.RecordBatch, segments: documents.Segments) -> tuple[Tags, list[str]]:
    """The tags of a batch, and the labels they count in.

    Args:
        batch: with ner_begin, ner_result and ner_confidence of each document.
        segments: of the same batch.

    Raises:
        ModelError: a tag is neither O nor an IOB2 tag.
    """
    begins = batch.column("ner_begin")
    results = batch.column("ner_result").flatten().dictionary_encode()
    labels = results.dictionary.to_pylist()
    strange = [label for label in labels if not re.fullmatch(r"O|[BI]-.+", label)]
    if strange:
        raise ModelError(
            f"recognition.sparknlp_model: the model's tag {strange[0]} is neither O nor an IOB2 tag such as B-PER."
        )
    # An annotation names its token by the offset it begins at; the document keeps equal offsets apart.
    reach = 1 + int(segments.unit_begin.max(initial=0))
    row_of_token = np.searchsorted(segments.sentence_starts, segments.sentence_of, side="right") - 1
    row_of_tag = np.repeat(np.arange(len(begins)), np.diff(begins.offsets.to_numpy()))
    keys = row_of_token * reach + segments.unit_begin
    tokens = np.searchsorted(keys, row_of_tag * reach + begins.flatten().to_numpy())
    after = np.concatenate([np.zeros(1, np.int64), np.cumsum(segments.sentence_tokens)])
    split = np.zeros(len(segments.sentence_tokens), np.bool_)
    split[cut_short(tokens, after)] = True
    confidences = batch.column("ner_confidence").flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    tags = results.indices.to_numpy().astype(np.int16)
    return Tags(tokens, tags, confidences, None, split), labels
