"""Read Delta tables with another program: delta-rs, whose own query engine supports deletion vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
"""Arrow's view types, which it cannot sort, and the types to which they are cast."""


def read_delta(path: str | Path, options: Mapping[str, str] | None = None, version: int | None = None) -> pa.Table:
    """Return all rows of a table's version, or of its latest one."""
    table = DeltaTable(str(path), version=version, storage_options=dict(options) if options else None)
    rows = pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())
    return rows.cast(pa.schema([field.with_type(PLAIN.get(field.type, field.type)) for field in rows.schema]))
