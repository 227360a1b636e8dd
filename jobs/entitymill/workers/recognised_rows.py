"""What recognition found, as the rows that every engine returns: schemas.RECOGNISED, what is carried, annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_type

from entitymill import schemas

if TYPE_CHECKING:  # it brings OpenVINO, which a worker does without
    from entitymill.recognition.recogniser import Recognition


def _arrow(kind: T.DataType) -> pa.DataType:
    """A Spark type as Arrow builds it: everything may be null there, and lists name their items alike."""
    if isinstance(kind, T.ArrayType):
        return pa.list_(_arrow(kind.elementType))
    if isinstance(kind, T.StructType):
        return pa.struct([(field.name, _arrow(field.dataType)) for field in kind.fields])
    return to_arrow_type(kind)


_FAILURE, _MENTIONS = _arrow(schemas.FAILURE), _arrow(schemas.MENTIONS)
_ANNOTATIONS = {field.name: _arrow(field.dataType) for field in schemas.ANNOTATIONS}


def rows(
    documents: pa.RecordBatch, recognised: Recognition, seconds: tuple[float, float], *, annotations: bool
) -> pa.RecordBatch:
    """One row a document.

    Args:
        documents: as they came: doc_id, text_hash, chars, and what is carried.
        recognised: in their texts.
        seconds: spent on them, encoding and inference.
        annotations: whether to add those schemas.ANNOTATIONS that are not carried.
    """
    timing = np.zeros((2, documents.num_rows))
    timing[:, :1] = np.array(seconds)[:, None]
    return _batch(
        documents,
        {
            "sentences": recognised.sentences,
            "tokens": recognised.tokens,
            "split_sentences": recognised.split_sentences,
            "mentions": _identified(documents.column("doc_id"), recognised.mentions),
            "encoding_seconds": pa.array(timing[0], pa.float64()),
            "inference_seconds": pa.array(timing[1], pa.float64()),
            "failure": pa.nulls(documents.num_rows, _FAILURE),
            **recognised.annotations,
        },
        annotations=annotations,
    )


def failed(document: pa.RecordBatch, code: str, detail: str, *, annotations: bool) -> pa.RecordBatch:
    """What stands in the place of a document's results: one row that says why there are none.

    Args:
        document: as it came.
        code: why, one word.
        detail: why, with numbers; never text.
        annotations: as in `rows`.
    """
    zero = pa.array([0], pa.int32())
    none = pa.array([0.0], pa.float64())
    columns = {
        "sentences": zero,
        "tokens": zero,
        "split_sentences": zero,
        "mentions": pa.array([[]], _MENTIONS),
        "encoding_seconds": none,
        "inference_seconds": none,
        "failure": pa.array([{"code": code, "detail": detail}], _FAILURE),
        **{name: pa.array([[]], kind) for name, kind in _ANNOTATIONS.items()},
    }
    return _batch(document, columns, annotations=annotations)


def failed_ids(results: pa.RecordBatch) -> list[str]:
    """doc_id of the documents without results."""
    if results.column("failure").null_count == results.num_rows:
        return []
    return list(results.column("doc_id").filter(results.column("failure").is_valid()).to_pylist())


def _batch(documents: pa.RecordBatch, columns: dict[str, pa.Array], *, annotations: bool) -> pa.RecordBatch:
    # Spark takes them by place: as schemas.RECOGNISED, what is carried, schemas.ANNOTATIONS.
    passed_on = [name for name in documents.schema.names if name in ("passthrough", "ner")]
    added = [name for name in _ANNOTATIONS if annotations and name not in passed_on]
    names = [*(field.name for field in schemas.RECOGNISED), *passed_on, *added]
    every = {**columns, **{name: documents.column(name) for name in ("doc_id", "text_hash", "chars", *passed_on)}}
    return pa.RecordBatch.from_arrays([every[name] for name in names], names=names)


def _identified(doc_ids: pa.StringArray, mentions: pa.ListArray) -> pa.ListArray:
    """Mentions with an id each: doc_id:begin-end."""
    found = mentions.flatten()
    counts = np.diff(mentions.offsets.to_numpy())
    begins, ends = (found.field(name).cast(pa.string()) for name in ("begin", "end"))
    document = doc_ids.cast(pa.string()).take(pa.array(np.repeat(np.arange(len(doc_ids)), counts)))
    ids = pc.binary_join_element_wise(document, pc.binary_join_element_wise(begins, ends, "-"), ":")
    names = [field.name for field in found.type]
    fields = [ids, *(found.field(name) for name in names)]
    structs = pa.StructArray.from_arrays(fields, names=["mention_id", *names])
    return pa.ListArray.from_arrays(mentions.offsets, structs)
