"""Start Spark's JVM with its properties in a private file: every user of a machine can read a command line."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pyspark import SparkContext
from pyspark.find_spark_home import _find_spark_home

_ARGUMENTS = "PYSPARK_SUBMIT_ARGS"
"""PySpark's own variable: the arguments it starts spark-submit with."""
_FILE = "--properties-file"
_JAVA_OPTIONS = ("spark.driver.defaultJavaOptions", "spark.driver.extraJavaOptions")


def launch_jvm(properties: Mapping[str, str]) -> None:
    """Start the JVM that this process's SparkContext will run in; do nothing where it runs already.

    PySpark would put each property on the command line as `--conf`. Here they are in a file that only this user may read
    and that is removed as soon as the JVM has read it. Properties of spark-defaults.conf, or of a properties file that
    PYSPARK_SUBMIT_ARGS names, still hold where `properties` says nothing else.
    """
    before = os.environ.get(_ARGUMENTS)
    arguments, base = _without_properties_file(shlex.split(before or "pyspark-shell"))
    with tempfile.TemporaryDirectory(prefix="entitymill-spark-") as directory:
        written = dict(properties)
        for key in _JAVA_OPTIONS:
            if key in written:
                written[key] = _hide_system_properties(written[key], Path(directory) / f"{key}.arguments")
        lines = [base.read_text(encoding="utf8") if base.is_file() else "", ""]
        lines += [f"{_escape(key)}={_escape(value)}" for key, value in written.items()]
        file = Path(directory) / "spark.properties"
        _write_private(file, "\n".join([*lines, ""]))
        os.environ[_ARGUMENTS] = shlex.join([_FILE, str(file), *arguments])
        try:
            SparkContext._ensure_initialized()
        finally:
            if before is None:
                del os.environ[_ARGUMENTS]
            else:
                os.environ[_ARGUMENTS] = before


def file_properties() -> dict[str, str]:
    """Return the properties of the file that spark-submit would read: PYSPARK_SUBMIT_ARGS names it, or it is Spark's own."""
    _, file = _without_properties_file(shlex.split(os.environ.get(_ARGUMENTS) or "pyspark-shell"))
    return parse_properties(file.read_text(encoding="utf8")) if file.is_file() else {}


def parse_properties(text: str) -> dict[str, str]:
    """Return the properties of a file such as spark-defaults.conf: a key, white space or `=`, and a value in each line."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (re.split(r"\s*[=:]\s*|\s+", line, maxsplit=1) for line in lines if line and not line.startswith(("#", "!")))
    return {key: value.strip() for key, value in (pair for pair in pairs if len(pair) > 1)}


def _without_properties_file(arguments: list[str]) -> tuple[list[str], Path]:
    """Take the properties file out of spark-submit's arguments; without one it is Spark's default."""
    conf = os.environ.get("SPARK_CONF_DIR") or str(Path(_find_spark_home()) / "conf")  # type: ignore[no-untyped-call]
    kept, file = [], Path(conf) / "spark-defaults.conf"
    given = iter(arguments)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name == _FILE:
            file = Path(value if equals else next(given, ""))
        else:
            kept.append(argument)
    return kept, file


def _hide_system_properties(options: str, file: Path) -> str:
    """Move the `-D` options of a JVM into an argument file, which its launcher reads; return what takes their place.

    Those that begin with `-Dspark` stay, so that Spark says that they are not allowed.
    """
    everything = shlex.split(options)
    hidden = [option for option in everything if option.startswith("-D") and not option.startswith("-Dspark")]
    if not hidden:
        return options
    quoted = (re.sub(r'([\\"])', r"\\\1", option) for option in hidden)
    _write_private(file, "".join(f'"{option}"\n' for option in quoted))
    return shlex.join([f"@{file}", *(option for option in everything if option not in hidden)])


def _escape(text: str) -> str:
    """A key or value as java.util.Properties reads it back."""
    named = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", " ": "\\ "}
    escaped = (named.get(one) or (f"\\{one}" if one in "=:#!" else one) for one in text)
    return "".join(escaped)


def _write_private(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf8") as opened:
        opened.write(text)
