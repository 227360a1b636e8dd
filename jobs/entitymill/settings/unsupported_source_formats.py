"""Detect sources in CSV or JSON, which are not supported, and say how to convert them to Parquet."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_KINDS = {"csv": "CSV", "tsv": "CSV", "json": "JSON", "jsonl": "JSON", "ndjson": "JSON"}
_PACKED = re.compile(r"\.(gz|bz2|zst|xz|zip)$")


def detect_text_format(name: str) -> str | None:
    """Return `CSV` or `JSON` if `name`, a format or a file name such as a.csv.gz, stands for one of them; otherwise None."""
    return _KINDS.get(_get_suffix(name))


def describe_conversion(kind: str, path: str) -> str:
    """Return the end of a message: how to convert the file `path` to Parquet. `kind` is `CSV` or `JSON`."""
    # Without these options, pandas would turn columns of digits into numbers, and texts such as NA into missing values.
    read, exactly = "read_csv", "dtype=str, keep_default_na=False"
    if kind == "JSON":
        read, exactly = "read_json", f"lines={_get_suffix(path) != 'json'}, dtype=False"
    name = PurePosixPath(path).name.split(".")[0] or "texts"
    return (
        f"convert it to Parquet in Python with pandas.{read}({path!r}, {exactly}).to_parquet('{name}.parquet'), "
        "and set source.path to that file and source.format=parquet; for large files see docs/troubleshooting.md."
    )


def _get_suffix(name: str) -> str:
    """Return the suffix of a file name in lower case, without that of a compression: `json` for a.JSON.gz and for json."""
    return _PACKED.sub("", name.rstrip("/").lower()).rpartition(".")[2]
