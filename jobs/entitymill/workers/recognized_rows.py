"""Build the rows that every engine returns for documents.

The columns are schemas.RECOGNIZED, then `passthrough` if the documents have this column, then schemas.ANNOTATIONS if a
function's argument `annotations` is True.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_type

from entitymill import schemas

if TYPE_CHECKING:  # the module `recognizer` imports OpenVINO, which a worker must not load
    from entitymill.recognition.recognizer import Recognition


def _to_arrow_type(kind: T.DataType) -> pa.DataType:
    """Return the Arrow type for a Spark type; all fields are nullable, and list elements have Arrow's default name."""
    if isinstance(kind, T.ArrayType):
        return pa.list_(_to_arrow_type(kind.elementType))
    if isinstance(kind, T.StructType):
        return pa.struct([(field.name, _to_arrow_type(field.dataType)) for field in kind.fields])
    return to_arrow_type(kind)


_FAILURE, _MENTIONS = _to_arrow_type(schemas.FAILURE), _to_arrow_type(schemas.MENTIONS)
_ANNOTATIONS = {field.name: _to_arrow_type(field.dataType) for field in schemas.ANNOTATIONS}


def build_rows(
    documents: pa.RecordBatch, recognized: Recognition, seconds: Mapping[str, float], *, annotations: bool
) -> pa.RecordBatch:
    """Return a batch with one row for each recognized document, in the order of the documents.

    Args:
        documents: batch with the columns doc_id, text_hash, chars, and optionally `passthrough` and `ner`. They are copied.
        recognized: results for these documents, in the same order.
        seconds: dict from names in schemas.TIMES to the seconds spent on all documents; a missing name counts as 0. The
            first row gets these totals, and the other rows get 0.
        annotations: whether the result must have both columns of schemas.ANNOTATIONS, `ner` and `ner_chunk`. They are taken
            from `recognized`. But if `documents` has a column `ner`, this column is copied instead.
    """
    timing = np.zeros((len(schemas.TIMES), documents.num_rows))
    timing[:, :1] = np.array([seconds.get(name, 0.0) for name in schemas.TIMES])[:, None]
    return _build_batch(
        documents,
        {
            "sentences": recognized.sentences,
            "tokens": recognized.tokens,
            "split_sentences": recognized.split_sentences,
            "mentions": recognized.mentions,
            **{f"{name}_seconds": pa.array(timing[row], pa.float64()) for row, name in enumerate(schemas.TIMES)},
            "failure": pa.nulls(documents.num_rows, _FAILURE),
            **recognized.annotations,
        },
        annotations=annotations,
    )


def build_failure_row(document: pa.RecordBatch, code: str, detail: str, *, annotations: bool) -> pa.RecordBatch:
    """Return a batch with one row, for a document that could not be recognized: it has a `failure` and no mentions.

    The numbers of sentences and tokens and all seconds are 0.

    Args:
        document: batch of one row with the columns doc_id, text_hash, chars, and optionally `passthrough` and `ner`. They
            are copied.
        code: the reason as a reject code, such as `tagger_crashed`.
        detail: details of the reason, without document text.
        annotations: whether the result must have both columns of schemas.ANNOTATIONS, `ner` and `ner_chunk`. They
            contain empty lists. But if `document` has a column `ner`, this column is copied instead.
    """
    zero = pa.array([0], pa.int32())
    no_seconds = pa.array([0.0], pa.float64())
    columns = {
        "sentences": zero,
        "tokens": zero,
        "split_sentences": zero,
        "mentions": pa.array([[]], _MENTIONS),
        **{f"{name}_seconds": no_seconds for name in schemas.TIMES},
        "failure": pa.array([{"code": code, "detail": detail}], _FAILURE),
        **{name: pa.array([[]], kind) for name, kind in _ANNOTATIONS.items()},
    }
    return _build_batch(document, columns, annotations=annotations)


def add_cpu_seconds(results: pa.RecordBatch, seconds: float) -> pa.RecordBatch:
    """Return `results` with `seconds` added to the column cpu_seconds of the first row; unchanged if there are no rows."""
    if not results.num_rows:
        return results
    columns, at = results.columns, results.schema.get_field_index("cpu_seconds")
    spent = columns[at].to_numpy(zero_copy_only=False).copy()
    spent[0] += seconds
    columns[at] = pa.array(spent, pa.float64())
    return pa.RecordBatch.from_arrays(columns, schema=results.schema)


def read_failed_ids(results: pa.RecordBatch) -> list[str]:
    """Return the doc_ids of the rows that have a `failure`, because their documents could not be recognized."""
    if results.column("failure").null_count == results.num_rows:
        return []
    return list(results.column("doc_id").filter(results.column("failure").is_valid()).to_pylist())


def _build_batch(documents: pa.RecordBatch, columns: dict[str, pa.Array], *, annotations: bool) -> pa.RecordBatch:
    """Return a batch with the computed `columns` and with columns that are copied from the documents.

    doc_id, text_hash and chars are copied, and so are `passthrough` and `ner` if the documents have them. With
    `annotations`, the batch also gets `ner` and `ner_chunk` from `columns`, but a copied `ner` is not replaced.
    """
    # Spark assigns columns by position, in this order: schemas.RECOGNIZED, passthrough, schemas.ANNOTATIONS.
    copied = [name for name in documents.schema.names if name in ("passthrough", "ner")]
    added = [name for name in _ANNOTATIONS if annotations and name not in copied]
    names = [*(field.name for field in schemas.RECOGNIZED), *copied, *added]
    all_columns = {**columns, **{name: documents.column(name) for name in ("doc_id", "text_hash", "chars", *copied)}}
    return pa.RecordBatch.from_arrays([all_columns[name] for name in names], names=names)
