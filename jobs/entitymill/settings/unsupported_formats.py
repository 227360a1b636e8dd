"""CSV and JSON, which are not read: what is such a file, and how a table is made of it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_KINDS = {"csv": "CSV", "tsv": "CSV", "json": "JSON", "jsonl": "JSON", "ndjson": "JSON"}
_PACKED = re.compile(r"\.(gz|bz2|zst|xz|zip)$")


def text_format(name: str) -> str | None:
    """CSV or JSON, of a file by the end of its name, or of a format by its name; none of others."""
    plain = _PACKED.sub("", name.rstrip("/").lower())
    return _KINDS.get(plain.rpartition(".")[2])


def conversion_advice(found: str, path: str) -> str:
    """How a table is made of a file, to be read after what it is.

    Args:
        found: CSV or JSON.
        path: of the file, or what stands in its place.
    """
    # Of a column of digits, and of a text such as NA, pandas would make something else.
    read, exactly = "read_csv", "dtype=str, keep_default_na=False"
    if found == "JSON":
        read, exactly = "read_json", f"lines={not path.lower().endswith('.json')}, dtype=False"
    name = PurePosixPath(path).name.split(".")[0] or "texts"
    return (
        f"make a Parquet file of it, in Python with pandas.{read}({path!r}, {exactly}).to_parquet('{name}.parquet'), "
        "and name that with source.format=parquet; docs/troubleshooting.md has a way for large ones."
    )
