"""Start Spark's JVM with Spark's properties in a private file, and with an archive of Java classes for a faster start.

Properties are not on the command line, because all users of a machine can read command lines. The archive is a file of
loaded classes (class data sharing). Java ignores an archive of a different JVM or of a different class path.
https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.find_spark_home import _find_spark_home

from entitymill.spark.files_on_this_machine import create_scratch_directory

log = logging.getLogger(__name__)
_ARGUMENTS = "PYSPARK_SUBMIT_ARGS"
"""Environment variable from which PySpark reads the arguments for spark-submit."""
_FILE = "--properties-file"
_JAVA_OPTIONS = ("spark.driver.defaultJavaOptions", "spark.driver.extraJavaOptions")
_JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "SPARK_SUBMIT_OPTS", _ARGUMENTS)
"""Environment variables that may hold options for Spark's JVM."""
_AGENT = re.compile(r"-(javaagent|agentlib|agentpath):|-XX:(\+FlightRecorder|StartFlightRecording)")
_ARCHIVE_NAME, _ARCHIVE_ENDING = "entitymill-classes-", ".jsa"
_SILENT = ("-Xlog:cds=off", "-Xlog:cds+dynamic=off")
"""JVM options that suppress warnings about an unsuitable archive, and about classes that cannot be archived."""
_END_SECONDS = 120


def launch_jvm(properties: Mapping[str, str]) -> None:
    """Start the JVM for this process's SparkContext, unless it is already running.

    `properties` are Spark properties. They override the properties in the file that PYSPARK_SUBMIT_ARGS names or, if it
    names none, in spark-defaults.conf. PySpark would pass each property as `--conf` on the command line. Instead, this
    function writes them to a file that only this user can read, and deletes the file when the JVM has started.
    """
    before = os.environ.get(_ARGUMENTS)
    arguments, base = _split_properties_file(shlex.split(before or "pyspark-shell"))
    # If this process is killed before it has deleted the directory, the next run on this machine deletes it.
    directory = create_scratch_directory("entitymill-spark-")
    try:
        written = dict(properties)
        for key in _JAVA_OPTIONS:
            if key in written:
                written[key] = _hide_system_properties(written[key], directory / f"{key}.arguments")
        lines = [base.read_text(encoding="utf8") if base.is_file() else "", ""]
        lines += [f"{_escape(key)}={_escape(value)}" for key, value in written.items()]
        file = directory / "spark.properties"
        _write_private(file, "\n".join([*lines, ""]))
        os.environ[_ARGUMENTS] = shlex.join([_FILE, str(file), *arguments])
        SparkContext._ensure_initialized()
    finally:
        if before is not None:
            os.environ[_ARGUMENTS] = before
        else:
            os.environ.pop(_ARGUMENTS, None)
        shutil.rmtree(directory, ignore_errors=True)


def read_file_properties() -> dict[str, str]:
    """Return the properties in the file that PYSPARK_SUBMIT_ARGS names or, if it names none, in spark-defaults.conf."""
    _, file = _split_properties_file(shlex.split(os.environ.get(_ARGUMENTS) or "pyspark-shell"))
    return parse_properties(file.read_text(encoding="utf8")) if file.is_file() else {}


def parse_properties(text: str) -> dict[str, str]:
    """Return the properties in the text of a file such as spark-defaults.conf, as a dict.

    White space, `=` or `:` separates a key from its value. Lines without a value and comments are ignored.
    """
    lines = (line.strip() for line in text.splitlines())
    pairs = (re.split(r"\s*[=:]\s*|\s+", line, maxsplit=1) for line in lines if line and not line.startswith(("#", "!")))
    return {key: value.strip() for key, value in (pair for pair in pairs if len(pair) > 1)}


def _split_properties_file(arguments: list[str]) -> tuple[list[str], Path]:
    """Return spark-submit's arguments without `--properties-file`, and the path of the file that this option names.

    Without this option, the path is that of spark-defaults.conf, which may not exist.
    """
    conf = os.environ.get("SPARK_CONF_DIR") or str(Path(_find_spark_home()) / "conf")  # type: ignore[no-untyped-call]
    others, file = [], Path(conf) / "spark-defaults.conf"
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name == _FILE:
            file = Path(value if equals else next(remaining, ""))
        else:
            others.append(argument)
    return others, file


def _hide_system_properties(options: str, file: Path) -> str:
    """Move the `-D` options in `options`, a string of Java options, to a new private file; return the new string of options.

    The new string begins with `@` and the path of `file`, which makes Java read the options in it. Without `-D` options, no
    file is written, and `options` is returned. Options that begin with `-Dspark` are not moved, so that Spark can report
    that they are not allowed.
    """
    everything = shlex.split(options)
    moved = [option for option in everything if option.startswith("-D") and not option.startswith("-Dspark")]
    if not moved:
        return options
    quoted = (re.sub(r'([\\"])', r"\\\1", option) for option in moved)
    _write_private(file, "".join(f'"{option}"\n' for option in quoted))
    return shlex.join([f"@{file}", *(option for option in everything if option not in moved)])


def _escape(text: str) -> str:
    """Return a key or value, escaped for a properties file of Java (`java.util.Properties`)."""
    named = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", " ": "\\ "}
    escaped = (named.get(letter) or (f"\\{letter}" if letter in "=:#!" else letter) for letter in text)
    return "".join(escaped)


def _write_private(file: Path, text: str) -> None:
    """Write a new file that only this user can read; raise FileExistsError if the file exists."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf8") as opened:
        opened.write(text)


def choose_class_archive_options(jars: Sequence[str], *, make: bool) -> list[str]:
    """Return Java options for using or writing an archive of loaded classes; an empty list if neither is possible.

    If there is an archive for this Java and these jars, the JVM uses it. Otherwise, if `make` is true, the JVM writes an
    archive when it ends: this function registers an exit handler, which stops Spark and then stores the archive.

    Args:
        jars: paths of one or more jars in addition to Spark's own; the archive is stored in the directory of the first jar.
        make: whether to make an archive if there is none and the directory is writable.
    """
    directory, name = Path(jars[0]).parent, f"{_ARCHIVE_NAME}{_hash_class_path(jars)}"
    for archive in directory.glob(f"{name}-*{_ARCHIVE_ENDING}"):
        with suppress(FileNotFoundError):  # another process has just replaced it
            # An incomplete archive, whose size differs from the one in its name, would crash Java.
            if archive.name == f"{name}-{archive.stat().st_size}{_ARCHIVE_ENDING}":
                return [f"-XX:SharedArchiveFile={archive}", *_SILENT]
    if not make or not os.access(directory, os.W_OK):
        return []
    new_archive = create_scratch_directory(_ARCHIVE_NAME) / name
    atexit.register(_stop_jvm_and_store_archive, new_archive, directory)
    return [f"-XX:ArchiveClassesAtExit={new_archive}", *_SILENT]


def loads_agent(properties: Mapping[str, str]) -> bool:
    """Return whether Spark's JVM will load an agent (such as a monitoring tool) or Java's flight recorder.

    If so, the caller must not use an archive of classes: Java 17 crashes if an agent looks at a class from the archive.
    `properties` are the session's Spark properties. The function itself reads spark-defaults.conf and environment variables.
    """
    known = {**read_file_properties(), **properties}
    options = [*(known.get(key, "") for key in _JAVA_OPTIONS), *(os.environ.get(name, "") for name in _JAVA_VARIABLES)]
    return any(_AGENT.search(option) for option in options)


def _hash_class_path(jars: Sequence[str]) -> str:
    """Return a digest of the paths, sizes and modification times of the `java` program, Spark's own jars and `jars`."""
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else Path(shutil.which("java") or "")
    spark = Path(_find_spark_home()) / "jars"  # type: ignore[no-untyped-call]
    files = [java.resolve(), *sorted(spark.glob("*.jar")), *map(Path, jars)]
    described = [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files if file.exists()]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]


def _stop_jvm_and_store_archive(new_archive: Path, directory: Path) -> None:
    """Stop Spark's JVM, so that it writes the file `new_archive`; move it to `directory`, and delete older archives there.

    If this process did not start the JVM, do nothing. If the archive cannot be stored, log the error and raise nothing.
    """
    gateway: Any = SparkContext._gateway
    process = getattr(gateway, "proc", None)
    if process is None:
        return
    log.info("writing an archive of the loaded Java classes, so that Spark starts faster next time")
    copy = directory / f".{new_archive.name}.{os.getpid()}"
    try:
        with suppress(Exception):  # the JVM may have ended
            context = SparkContext._active_spark_context
            if context is not None:
                context.stop()
            gateway.shutdown()
        process.stdin.close()
        process.wait(_END_SECONDS)
        archive = directory / f"{new_archive.name}-{new_archive.stat().st_size}{_ARCHIVE_ENDING}"
        older = list(directory.glob(f"{_ARCHIVE_NAME}*{_ARCHIVE_ENDING}"))
        shutil.move(new_archive, copy)
        copy.replace(archive)  # a new file: another JVM may still use the content of an old file with this name
        for other in older:
            if other != archive:
                other.unlink(missing_ok=True)
    except (OSError, subprocess.TimeoutExpired):
        log.exception("the archive of the loaded Java classes could not be written; Spark starts without it next time")
        copy.unlink(missing_ok=True)
