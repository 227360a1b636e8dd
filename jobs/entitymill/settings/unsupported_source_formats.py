"""Detect sources in CSV or JSON, which are not supported, and say how to convert them to Parquet."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_KINDS = {"csv": "CSV", "tsv": "CSV", "json": "JSON", "jsonl": "JSON", "ndjson": "JSON"}
_PACKED = re.compile(r"\.(gz|bz2|zst|xz|zip)$")


def detect_text_format(name: str) -> str | None:
    """Return `CSV` or `JSON` if `name`, a format or a file name such as a.csv.gz, stands for one of them; otherwise None."""
    plain = _PACKED.sub("", name.rstrip("/").lower())
    return _KINDS.get(plain.rpartition(".")[2])


def describe_conversion(kind: str, path: str) -> str:
    """Return the end of a message: how to convert the file `path` to Parquet. `kind` is `CSV` or `JSON`."""
    # Without these options, pandas would turn columns of digits into numbers, and texts such as NA into missing values.
    read, exactly = "read_csv", "dtype=str, keep_default_na=False"
    if kind == "JSON":
        is_array = _PACKED.sub("", path.rstrip("/").lower()).endswith(".json")
        read, exactly = "read_json", f"lines={not is_array}, dtype=False"
    name = PurePosixPath(path).name.split(".")[0] or "texts"
    return (
        f"convert it to Parquet in Python with pandas.{read}({path!r}, {exactly}).to_parquet('{name}.parquet'), "
        "and set source.path to that file and source.format=parquet; for large files see docs/troubleshooting.md."
    )
