"""Read Delta tables without Spark: with delta-rs, whose query engine supports deletion vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
"""View types of Arrow, which PyArrow cannot sort -> the types to which `read_delta` casts them."""


def read_delta(path: str | Path, options: Mapping[str, str] | None = None, version: int | None = None) -> pa.Table:
    """Return all rows of one version of a table, by default of the latest version."""
    table = DeltaTable(str(path), version=version, storage_options=dict(options) if options else None)
    rows = pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())
    return rows.cast(pa.schema([field.with_type(PLAIN.get(field.type, field.type)) for field in rows.schema]))
