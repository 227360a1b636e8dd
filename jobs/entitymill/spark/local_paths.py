"""Tell paths on this machine's disk from those that Spark looks up elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from entitymill.spark.jvm_launch import read_file_properties

FILE = "file:"
"""Scheme of URIs of files on a machine's own disk."""
_CLUSTERS = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION")
"""If one of these environment variables is set, a path without a scheme may be on the file system of a cluster."""
_DEFAULT_FILE_SYSTEM = "fs.defaultFS"
"""End of the properties that set the file system of paths without a scheme."""
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*:")


def is_certainly_local(path: str, conf: Mapping[str, str]) -> bool:
    """Return whether Spark would certainly look up a path on this machine's disk; False for every path with a scheme.

    Args:
        conf: Spark properties from the settings; those in spark-defaults.conf are also considered.
    """
    if _SCHEME.match(path) or any(name in os.environ for name in _CLUSTERS):
        return False
    return not any(key.endswith(_DEFAULT_FILE_SYSTEM) for key in (*conf, *read_file_properties()))


def to_local_path(address: str) -> Path:
    """Return the path of a `file:` URI, or of an address without a scheme."""
    return Path("/" + address.removeprefix(FILE).lstrip("/")) if address.startswith(FILE) else Path(address)
