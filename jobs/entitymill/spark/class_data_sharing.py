"""Make and use an archive of the Java classes that Spark loads, so that Spark's JVM starts faster.

Java calls this class data sharing. The archive is stored in the directory of the first jar in addition to Spark's own jars.
Java ignores an archive that was made by another JVM or for another class path.
https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.find_spark_home import _find_spark_home

from entitymill.spark.private_directories import create_scratch_directory

log = logging.getLogger(__name__)
_NAME, _ENDING = "entitymill-classes-", ".jsa"
_SILENT = ("-Xlog:cds=off", "-Xlog:cds+dynamic=off")
"""JVM options that switch off warnings about an unsuitable archive, and about classes that cannot be archived."""
_END_SECONDS = 120


def choose_options(jars: Sequence[str], *, make: bool) -> list[str]:
    """Return the JVM options for class data sharing; an empty list if there is no archive and none is to be made.

    If there is an archive for this Java and these jars, the options make the JVM use it. Otherwise, with `make`, they make
    the JVM write an archive when it ends, and this function registers an exit handler that stops Spark and stores the
    archive.

    Args:
        jars: paths of the jars in addition to Spark's own; the archive is stored in the directory of the first one.
        make: whether to make an archive if there is none and the directory is writable.
    """
    directory, name = Path(jars[0]).parent, f"{_NAME}{_hash_class_path(jars)}"
    for archive in directory.glob(f"{name}-*{_ENDING}"):
        with suppress(FileNotFoundError):  # another process has just replaced it
            if archive.name == f"{name}-{archive.stat().st_size}{_ENDING}":  # Java crashes if an archive is incomplete
                return [f"-XX:SharedArchiveFile={archive}", *_SILENT]
    if not make or not os.access(directory, os.W_OK):
        return []
    made = create_scratch_directory(_NAME) / name
    atexit.register(_store_archive, made, directory)
    return [f"-XX:ArchiveClassesAtExit={made}", *_SILENT]


def _hash_class_path(jars: Sequence[str]) -> str:
    """Return a digest of the paths, sizes and modification times of the `java` program, Spark's own jars and `jars`."""
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else Path(shutil.which("java") or "")
    spark = Path(_find_spark_home()) / "jars"  # type: ignore[no-untyped-call]
    files = [java.resolve(), *sorted(spark.glob("*.jar")), *map(Path, jars)]
    described = [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files if file.exists()]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]


def _store_archive(made: Path, directory: Path) -> None:
    """Stop Spark's JVM, which then writes the archive `made`; move it to `directory`, and delete older archives there."""
    gateway: Any = SparkContext._gateway
    process = getattr(gateway, "proc", None)
    if process is None:
        return
    log.info("writing an archive of Java's classes, so that Spark starts faster next time")
    copy = directory / f".{made.name}.{os.getpid()}"
    try:
        with suppress(Exception):  # the JVM may have ended
            context = SparkContext._active_spark_context
            if context is not None:
                context.stop()
            gateway.shutdown()
        process.stdin.close()
        process.wait(_END_SECONDS)
        archive = directory / f"{made.name}-{made.stat().st_size}{_ENDING}"
        older = list(directory.glob(f"{_NAME}*{_ENDING}"))
        shutil.move(made, copy)
        copy.replace(archive)  # replaces an old file without changing its content, which another JVM may have mapped
        for other in older:
            if other != archive:
                other.unlink(missing_ok=True)
    except (OSError, subprocess.TimeoutExpired):
        log.exception("the archive of Java's classes could not be written; Spark starts without it next time")
        copy.unlink(missing_ok=True)
