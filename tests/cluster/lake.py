"""Fill or read the test's object store from inside a host: `python -m tests.cluster.lake fill|read ENDPOINT ...`."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.delta_reader import read_delta

from .servers import BUCKET, KEY, SECRET, fill


def read(endpoint: str, table: str) -> pa.Table:
    """Return a Delta table, read with delta-rs and not with Spark."""
    options = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ENDPOINT_URL": f"http://{endpoint}",
    }
    return read_delta(f"s3://{BUCKET}/{table}", options)


if __name__ == "__main__":
    action, endpoint, *rest = sys.argv[1:]
    if action == "fill":
        fill(endpoint, Path(rest[0]))
    else:
        pq.write_table(read(endpoint, rest[0]), rest[1])
