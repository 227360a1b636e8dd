"""The SparkSession: one of its own under plain `python`, otherwise the one that is there; and files sent to executors."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from entitymill import extensions
from entitymill.errors import SessionError
from entitymill.settings.sections import SparkSettings
from entitymill.spark import requirements, spark_connect
from entitymill.spark.jvm_launch import file_properties, launch_jvm, parse_properties
from entitymill.spark.private_directories import scratch_directory, spark_local_directory

DEFAULTS = "conf/spark-defaults.conf"
ADAPTIVE = "spark.sql.adaptive.enabled"
_PACKAGE = Path(__file__).parents[1]
QUICK_START = "-XX:TieredStopAtLevel=1"
"""To Java: its first compiler alone. Compiling Spark well costs more than a small run, and halves a large one's time."""
_REMOTE = "SPARK_REMOTE"
"""Spark's own: the address of a Spark Connect server."""
_sent: dict[tuple[str, str], Path] = {}
"""(session, name) -> the file that its executors fetch."""


def open_session(
    settings: SparkSettings,
    name: str,
    *,
    sparknlp: bool = False,
    spark: SparkSession | None = None,
    brief: Callable[[], bool] = lambda: False,
) -> SparkSession:
    """The given or the active session, or one started by spark-submit's settings, or a local one; fit for this program.

    Args:
        settings: used only where this program starts Spark itself.
        name: of the application.
        sparknlp: whether it is for engine `sparknlp`, which nothing else needs Spark NLP for.
        spark: the session, where the caller has one.
        brief: tells whether it has little to do; asked where this program starts Spark itself.

    Raises:
        SessionError: Spark cannot start, or lacks Delta, or Spark NLP where that is asked for.
    """
    spark = spark or SparkSession.getActiveSession()
    if spark is None:
        # A session may be there without being active in this thread; spark-submit sets the first variable.
        told = any(name in os.environ for name in ("PYSPARK_GATEWAY_PORT", _REMOTE))
        there = told or on_databricks() or SparkContext._active_spark_context is not None
        with _preserve_sigint():
            spark = SparkSession.builder.getOrCreate() if there else _start_session(settings, name, brief=brief())
    check_session(spark, sparknlp=sparknlp)
    ship_package(spark)
    return spark


@contextmanager
def _preserve_sigint() -> Iterator[None]:
    """PySpark takes Ctrl-C for itself, and raises in the middle of its own call of Java's."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def override_conf(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Give properties of a session other values, as long as the context lasts."""
    before = {key: spark.conf.get(key, None) for key in values}
    try:
        for key, value in values.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)


def on_databricks() -> bool:
    """Whether this is a Databricks cluster, which has Delta built in and a session of its own."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def _start_session(settings: SparkSettings, name: str, *, brief: bool) -> SparkSession:
    no_java = requirements.explain_missing_java()
    if no_java:
        raise SessionError(no_java)
    jars = _find_jars(settings)
    # The workers must be this very interpreter, not whichever python3 is first on the path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # TensorFlow, in Spark NLP's sentence detector, tells of its instruction sets otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    builder = SparkSession.builder.appName(name).master(settings.master)
    local = _local_options(settings.master, brief=brief)
    properties = {**_read_defaults(), **local, "spark.jars": ",".join(jars), **settings.conf}
    properties |= spark_local_directory({**file_properties(), **properties})
    for key, value in properties.items():
        builder = builder.config(key, value)
    try:
        launch_jvm({"spark.app.name": name, "spark.master": settings.master, **properties})
        return builder.getOrCreate()
    except Exception as error:
        raise SessionError(f"spark.master: Spark cannot start with {settings.master}: {type(error).__name__}.") from error


def _find_jars(settings: SparkSettings) -> list[str]:
    jars = []
    for directory in settings.jars.split(","):
        found = sorted(str(jar.resolve()) for jar in Path(directory.strip()).glob("*.jar"))
        if not found:
            raise SessionError(
                f"spark.jars: no jar in {directory}: run `entitymill fetch-jars --to {directory}` (in the repository `make "
                "jars`, for s3a also `make jars-s3`, for engine sparknlp `make jars-sparknlp`), or name where they are."
            )
        jars += found
    return jars


def _read_defaults() -> dict[str, str]:
    """Read the package's own spark-defaults.conf as spark-submit would."""
    path = _PACKAGE / DEFAULTS
    # In a zip there is none.
    return parse_properties(path.read_text(encoding="utf8")) if path.is_file() else {}


def _local_options(master: str, *, brief: bool) -> dict[str, str]:
    """What a local Spark needs beside the defaults: the loopback address, small tasks, and a quiet log."""
    logging = _PACKAGE / "conf" / "log4j2.properties"
    java = [f"-Dlog4j2.configurationFile={logging.as_uri()}"] if logging.is_file() else []
    java += [QUICK_START] if master.startswith("local") and brief else []
    options = {"spark.driver.extraJavaOptions": " ".join(java)} if java else {}
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        options["spark.driver.host"] = "127.0.0.1"
        # Sized for a cluster by default; here each task of next to nothing costs more than its work.
        options["spark.sql.shuffle.partitions"] = "16"
        options["spark.databricks.delta.snapshotPartitions"] = "2"
    return options


def check_session(spark: SparkSession, *, sparknlp: bool = False) -> None:
    """Find out now, and say clearly, what would fail in the middle of a run.

    Raises:
        SessionError: the Spark version or Delta, or Spark NLP where that is asked for, is missing or does not fit.
    """
    requirements.check_spark(spark.version)
    if spark_connect.is_remote(spark):
        if sparknlp:
            raise SessionError("recognition.engine: sparknlp does not run through Spark Connect; use engine openvino.")
        return
    virtual_machine: Any = spark.sparkContext._jvm
    scala = str(virtual_machine.scala.util.Properties.versionNumberString())
    if not on_databricks():  # which has its own, under other names
        requirements.check_delta(_find_class(spark, "io.delta.tables.DeltaTable"), spark.version, scala)
    if sparknlp:
        requirements.check_sparknlp(
            scala,
            classes=has_class(spark, "com.johnsnowlabs.nlp.DocumentAssembler"),
            package=importlib.util.find_spec("sparknlp") is not None,
        )
    extensions = spark.conf.get("spark.sql.extensions", "") or ""
    if "DeltaSparkSessionExtension" not in extensions and not on_databricks():
        raise SessionError(
            f"spark.sql.extensions lacks io.delta.sql.DeltaSparkSessionExtension: submit with --properties-file {DEFAULTS}."
        )


def has_class(spark: SparkSession, name: str) -> bool:
    """Whether the driver's class path holds a class; it is not loaded, since loading may start native libraries."""
    return _find_class(spark, name) is not None


def _find_class(spark: SparkSession, name: str) -> str | None:
    """Where the driver's class path has a class."""
    virtual_machine: Any = spark.sparkContext._jvm
    loader = virtual_machine.org.apache.spark.util.Utils.getContextOrSparkClassLoader()
    found = loader.getResource(name.replace(".", "/") + ".class")
    return None if found is None else str(found.toString())


def ship_package(spark: SparkSession) -> None:
    """Send this package and its extensions to the executors, so that they run the driver's very code."""
    if not _PACKAGE.is_dir():  # already inside a zip or a wheel that Spark distributes
        return
    packages = [_PACKAGE, *(_PACKAGE.with_name(name) for name in extensions.PACKAGES)]
    sources = sorted(source for package in packages for source in package.rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    archive = scratch_directory("entitymill-code-") / f"entitymill-{digest}.zip"
    # Reproducible archives date their files to 1970, of which a zip knows nothing.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as zipped:
        for source in sources:
            zipped.write(source, source.relative_to(_PACKAGE.parent))
    send_file(spark, archive, code=True)


def send_file(spark: SparkSession, file: Path, *, code: bool = False) -> None:
    """Distribute a file under its name, which must tell its content: Spark refuses a second file of one name.

    Args:
        file: in a `scratch_directory`.
        code: whether it is a zip of Python modules, to be put on the workers' path.
    """
    key = (spark_connect.session_id(spark), file.name)
    if key in _sent:
        if _sent[key] != file:
            file.unlink(missing_ok=True)  # of a notebook's many runs, each would leave its copy of the model
        return
    if spark_connect.is_remote(spark):
        spark.addArtifacts(str(file), pyfile=code, file=not code)
    else:
        (spark.sparkContext.addPyFile if code else spark.sparkContext.addFile)(str(file))
    _sent[key] = file
