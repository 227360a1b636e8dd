"""Files on their way to the executors: Spark fetches each once per executor, and each is sent once per application."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

from entitymill.platform import spark_connect

_sent: dict[tuple[str, str], Path] = {}
"""(session, name) -> the file that its executors fetch."""


def scratch(prefix: str) -> Path:
    """A directory that lasts as long as this process: Spark's file server reads from it."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def send(spark: SparkSession, file: Path, *, code: bool = False) -> None:
    """Distribute a file under its name, which must tell its content: Spark refuses a second file of one name.

    Args:
        spark: the session.
        file: in a `scratch` directory.
        code: whether it is a zip of Python modules, to be put on the workers' path.
    """
    key = (spark_connect.session_id(spark), file.name)
    if key in _sent:
        if _sent[key] != file:
            file.unlink(missing_ok=True)  # of a notebook's many runs, each would leave its copy of the model
        return
    if spark_connect.remote(spark):
        spark.addArtifacts(str(file), pyfile=code, file=not code)
    else:
        (spark.sparkContext.addPyFile if code else spark.sparkContext.addFile)(str(file))
    _sent[key] = file
