"""Support sessions of Spark Connect, which have no access to the JVM: detect them, and read files with DataFrames.

Files on this program's own disk, such as a model, are read directly. All other files are read with Spark's format
`binaryFile`, which can also list a directory without reading the files.
https://spark.apache.org/docs/latest/sql-data-sources-binaryFile.html
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill.errors import SettingsError
from entitymill.settings.sections import OutputSettings
from entitymill.spark.files_on_this_machine import FILE, exists_here, to_local_path
from entitymill.spark.sql_text import escape_pattern

log = logging.getLogger(__name__)
_MANY_ROWS = 1_000_000
_CACHE_SECONDS = 60.0
_counted_cores: dict[str, tuple[float, int]] = {}
"""Dict from a session id to (value of `time.monotonic()` when the cores were counted, number of cores)."""


def is_remote(spark: SparkSession) -> bool:
    """Return whether a session uses Spark Connect, which offers only SQL and DataFrames, without access to the JVM."""
    return type(spark).__module__.startswith("pyspark.sql.connect.")


def keeps_caches(spark: SparkSession) -> bool:
    """Return whether a session never loses cached rows: True only in local mode, since a cluster can lose executors."""
    return not is_remote(spark) and re.match(r"local(\[|$)", spark.conf.get("spark.master", "") or "") is not None


def check_output_supported(spark: SparkSession, output: OutputSettings) -> None:
    """Raise SettingsError if a session uses Spark Connect, and `output` has a path or includes the `annotations` table.

    Spark Connect can write neither a directory nor annotations, only the other tables in a catalog.
    """
    if not is_remote(spark):
        return
    if output.path is not None:
        raise SettingsError("output.path: Spark Connect can write only tables of a catalog; set output.schema instead.")
    if output.annotations:
        raise SettingsError("output.annotations: Spark Connect cannot write annotations; set `output.annotations: false`.")


def try_persist(frame: DataFrame, level: StorageLevel) -> bool:
    """Mark a DataFrame to be cached when it is first computed; return True, or False if the session refuses to cache rows.

    Only some sessions of Spark Connect refuse, such as those on Databricks' serverless compute.
    """
    try:
        frame.persist(level)
    except PySparkException as error:
        if not is_remote(frame.sparkSession):
            raise
        log.debug("the session does not cache rows: %s", str(error).partition("\n")[0])
        return False
    return True


def cache_on_disk(frame: DataFrame, cached: ExitStack) -> DataFrame:
    """Mark a DataFrame to be cached on disk from its first use until the stack `cached` is closed, and return it.

    If the session does not cache rows, each use of the DataFrame computes it again.
    """
    if try_persist(frame, StorageLevel.DISK_ONLY):
        cached.callback(frame.unpersist)
    return frame


def count_cores(spark: SparkSession) -> int:
    """Return how many tasks Spark's executors can run at once.

    If no executor has registered yet, return Spark's default parallelism. With Spark Connect, return the number of
    partitions into which Spark splits a large range; counting them takes a Spark job, so the number is cached for a minute.
    """
    if not is_remote(spark):
        return _count_executor_cores(spark) or spark.sparkContext.defaultParallelism
    session, now = get_session_id(spark), time.monotonic()
    counted = _counted_cores.get(session)
    if counted is None or now - counted[0] > _CACHE_SECONDS:
        counted = (now, spark.range(_MANY_ROWS).select(F.spark_partition_id()).distinct().count())
        _counted_cores[session] = counted
    return counted[1]


def _count_executor_cores(spark: SparkSession) -> int:
    """Return how many tasks the active executors of a classic session can run at once.

    Return 0 if no executor has registered, or if this version of Spark offers these numbers in another place.
    """
    context: Any = spark.sparkContext
    with contextlib.suppress(Exception):  # each Spark version may keep its counters elsewhere
        executors = context._jsc.sc().statusStore().executorList(True)
        cores = sum(int(executors.apply(at).totalCores()) for at in range(executors.size()))
        return cores // max(1, int(context.getConf().get("spark.task.cpus", "1")))
    return 0


def get_session_id(spark: SparkSession) -> str:
    """Return the id of a Spark Connect session or, for any other session, the id of its Spark application."""
    return str(spark.session_id) if is_remote(spark) else str(spark.sparkContext.applicationId)  # type: ignore[attr-defined]


def exists(spark: SparkSession, path: str) -> bool:
    """Return whether a path exists; False for an empty directory that is not on this program's own disk.

    Raise OSError if Spark cannot access the path.
    """
    if exists_here(to_local_path(path)):
        return True
    try:
        return bool(_list_remote_files(spark, path).take(1))
    except PySparkException as error:
        if "PATH_NOT_FOUND" in str(error):
            return False
        raise OSError(str(error).splitlines()[0]) from error


def list_files(spark: SparkSession, path: str) -> Iterator[tuple[str, int, int]]:
    """Yield (path, size in bytes, modification time in ms since 1970) of every file below a directory, sorted by path.

    Raise OSError if the directory cannot be listed.
    """
    here = to_local_path(path)
    if exists_here(here):
        yield from sorted(list_local_files(here))
        return
    try:
        rows = _list_remote_files(spark, path).collect()
    except PySparkException as error:
        raise OSError(str(error).splitlines()[0]) from error
    yield from sorted((row["path"], row["length"], row["modified"]) for row in rows)


def list_names(spark: SparkSession, pattern: str) -> list[str]:
    """Return the sorted names of the files that match `pattern`, a path with wildcards in its last part.

    The last part may also be a choice of several patterns, such as {_SUCCESS,part-*}. On this program's own disk, the result
    includes names of matching directories. On other storage, it includes no directories, but also matching files in
    subdirectories. There, raise OSError if the directory is missing or unreadable.
    """
    directory, _, last = pattern.rpartition("/")
    choices = last[1:-1].split(",") if last.startswith("{") and last.endswith("}") else [last]
    if exists_here(to_local_path(directory)):
        return sorted({path.name for choice in choices for path in to_local_path(directory).glob(choice)})
    names = [address.rpartition("/")[2] for address, *_ in list_files(spark, directory)]
    return sorted({name for choice in choices for name in fnmatch.filter(names, choice)})


def list_local_files(top: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (path, size in bytes, modification time in ms since 1970) of every file below a directory of this machine.

    If `top` is a file, yield only this file. Hadoop's checksums (.crc) are skipped. The order is arbitrary. Raise OSError if
    the directory cannot be listed. Hadoop's client is not used: it would start a process, `ls`, for each file, and would
    fail if another run removed a file in the meantime.
    """
    if not top.is_dir():
        yield _describe_local_file(top)
        return
    for directory, _, found in os.walk(top, onerror=_raise_unless_missing, followlinks=True):
        for name in found:
            if not name.endswith(".crc"):  # Hadoop's client does not list them either
                with contextlib.suppress(FileNotFoundError):
                    yield _describe_local_file(Path(directory, name))


def _describe_local_file(path: Path) -> tuple[str, int, int]:
    """Return (path, size in bytes, modification time in ms since 1970) of a file."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns // 1_000_000


def _raise_unless_missing(error: OSError) -> None:
    """Raise an error of `os.walk`, unless it says that a directory no longer exists."""
    if not isinstance(error, FileNotFoundError):
        raise error


def fetch(spark: SparkSession, path: str, into: Path) -> None:
    """Copy the file `path` to the local path `into`; raise OSError if the file is missing or cannot be read."""
    here = to_local_path(path)
    if exists_here(here):
        shutil.copyfile(here, into)
        return
    try:
        into.write_bytes(
            spark.read.format("binaryFile").load(escape_pattern(path)).select("content").collect()[0]["content"]
        )
    except (PySparkException, IndexError) as error:
        raise OSError(str(error).splitlines()[0]) from error


def qualify(path: str) -> str:
    """Return the `file:` URI of a path that exists on this program's own disk; return any other path unchanged.

    So the result may lack a scheme; the Spark Connect server adds the scheme itself when it reads the path.
    """
    return f"{FILE}{Path(path).resolve()}" if exists_here(path) else path


def _list_remote_files(spark: SparkSession, path: str) -> DataFrame:
    """Return a DataFrame of the files below a directory: `path`, `length` in bytes, and `modified` in ms since 1970."""
    found = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(escape_pattern(path))
    return found.select("path", "length", F.unix_millis("modificationTime").alias("modified"))
