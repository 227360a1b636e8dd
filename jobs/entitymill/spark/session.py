"""Open or start the Spark session for a job, check it, and send this package and other files to the executors.

The module also makes PySpark's frequent look-ups of Java classes faster.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.java_gateway import JavaClass, JavaMember
from pyspark import SparkContext
from pyspark.sql import SparkSession

from entitymill.errors import SessionError
from entitymill.settings.sections import SparkSettings
from entitymill.spark import installation, spark_connect
from entitymill.spark.files_on_this_machine import choose_local_directory, create_scratch_directory, find_in_clone
from entitymill.spark.jvm_launch import (
    choose_class_archive_options,
    launch_jvm,
    loads_agent,
    parse_properties,
    read_file_properties,
)

DEFAULTS = "conf/spark-defaults.conf"
ADAPTIVE = "spark.sql.adaptive.enabled"
_PACKAGE = Path(__file__).parents[1]
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
"""Java options that make the JVM use only its fast compiler. Full optimization takes longer than a small run, but halves the
time of a large run."""
_REMOTE = "SPARK_REMOTE"
"""Environment variable from which Spark reads the URL of a Spark Connect server."""
_sending = threading.Lock()
_sent: dict[tuple[str, str], Path] = {}
"""Dict from (session id, file name) to the local path of a file that was sent to the session's executors."""
HADOOP_PATH = "org.apache.hadoop.fs.Path"
_USED_BY_PYSPARK = ("functions", "SparkSession", "SparkSession$", "PythonUtils")
"""Names that PySpark looks up in `SparkContext._jvm` at each call of a function, cast or conversion."""


def open_session(
    settings: SparkSettings,
    name: str,
    *,
    sparknlp: bool = False,
    spark: SparkSession | None = None,
    brief: Callable[[], bool] = lambda: False,
) -> SparkSession:
    """Return the first available session: `spark`, the active session, the session of spark-submit, or else a new one.

    The session is checked, and this package is sent to its executors.

    Args:
        settings, name: settings and application name of a new session; used only if this program starts Spark itself.
        sparknlp: whether Spark NLP is required, for engine `sparknlp`.
        spark: the caller's session; None to find or start one.
        brief: function that returns whether the run is so small that Java should compile fast instead of optimizing; called
            only if this program starts Spark itself.

    Raises:
        SessionError: Spark cannot start, or the session lacks something that `check_session` requires.
    """
    spark = spark or find_session()
    if spark is None:
        # spark-submit sets PYSPARK_GATEWAY_PORT.
        exists = on_databricks() or any(name in os.environ for name in ("PYSPARK_GATEWAY_PORT", _REMOTE))
        with _preserve_sigint():
            spark = SparkSession.builder.getOrCreate() if exists else _start_session(settings, name, brief=brief())
    check_session(spark, sparknlp=sparknlp)
    if not spark_connect.is_remote(spark):
        remember_classes(spark)
    ship_package(spark)
    return spark


def find_session() -> SparkSession | None:
    """Return the active session or, if none is active in this thread, the session of this process; None without either."""
    found = SparkSession.getActiveSession()
    if found is None and SparkContext._active_spark_context is not None:
        with _preserve_sigint():
            found = SparkSession.builder.getOrCreate()
    return found


@contextmanager
def _preserve_sigint() -> Iterator[None]:
    """After the block, restore the handler of Ctrl-C (SIGINT), which PySpark may have replaced in the block.

    PySpark's own handler would raise errors in the middle of Java calls.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def on_databricks() -> bool:
    """Return whether this process runs on a Databricks cluster, which provides Delta and a session."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def _start_session(settings: SparkSettings, name: str, *, brief: bool) -> SparkSession:
    """Start Spark's JVM, and return a new session with the application name `name`.

    This also sets environment variables of this process that are not set yet, such as PYSPARK_PYTHON. `brief` says whether
    the run is so small that Java should compile fast instead of optimizing. Raise SessionError if Java is missing, if a
    directory listed in the setting `spark.jars` contains no jar, or if Spark cannot start.
    """
    no_java = installation.explain_missing_java()
    if no_java:
        raise SessionError(no_java)
    jars = _find_jars(settings)
    # The workers must use the same interpreter, not the first python3 on the path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # By default, TensorFlow, which Spark NLP's sentence detector uses, would log the processor's instruction sets.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    builder = SparkSession.builder.appName(name).master(settings.master)
    local = _build_session_properties(settings, jars, brief=brief)
    properties = {**_read_defaults(), **local, "spark.jars": ",".join(jars), **settings.conf}
    if settings.master.startswith("local"):  # on a cluster, the property would reach executors on other machines
        properties |= choose_local_directory({**read_file_properties(), **properties})
    for key, value in properties.items():
        builder = builder.config(key, value)
    try:
        launch_jvm({"spark.app.name": name, "spark.master": settings.master, **properties})
        return builder.getOrCreate()
    except Exception as error:
        raise SessionError(
            f"spark.master: Spark cannot start with {settings.master}: {type(error).__name__}; see the log."
        ) from error


def _find_jars(settings: SparkSettings) -> list[str]:
    """Return the absolute paths of all jars in the directories that the setting `spark.jars` lists.

    Raise SessionError if a directory contains no jar.
    """
    jars = []
    for directory in settings.jars.split(","):
        found = sorted(str(jar.resolve()) for jar in Path(find_in_clone(directory.strip())).glob("*.jar"))
        if not found:
            raise SessionError(installation.describe_missing_jars(directory))
        jars += found
    return jars


def _read_defaults() -> dict[str, str]:
    """Return the properties in this package's own spark-defaults.conf; an empty dict if the package runs from a zip."""
    path = _PACKAGE / DEFAULTS
    return parse_properties(path.read_text(encoding="utf8")) if path.is_file() else {}


def _build_session_properties(settings: SparkSettings, jars: list[str], *, brief: bool) -> dict[str, str]:
    """Return properties of a new session: the log configuration and, if the master is local, properties for one machine.

    The properties for one machine set the archive of loaded Java classes (see `jvm_launch`), the loopback address, small
    numbers of tasks and, if `brief`, QUICK_START. With a local master, this function also sets the environment variable
    SPARK_LOCAL_IP. `jars` are the paths of the jars in addition to Spark's own.
    """
    local = settings.master.startswith("local")
    logging = _PACKAGE / "conf" / "log4j2.properties"
    java = [f"-Dlog4j2.configurationFile={logging.as_uri()}"] if logging.is_file() else []
    java += [QUICK_START] if local and brief else []
    if local and settings.class_archive != "off" and not loads_agent(settings.conf):
        java += map(shlex.quote, choose_class_archive_options(jars, make=settings.class_archive == "make"))
    options = {"spark.driver.extraJavaOptions": " ".join(java)} if java else {}
    if local:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        options["spark.driver.host"] = "127.0.0.1"
        # Spark's defaults are for clusters. On one machine, a large number of small tasks would only take longer.
        options["spark.sql.shuffle.partitions"] = "16"
        options["spark.databricks.delta.snapshotPartitions"] = "2"
    return options


def check_session(spark: SparkSession, *, sparknlp: bool = False) -> None:
    """Raise SessionError if a session lacks what a run needs, because Spark's own later errors would be unclear.

    These things are checked: Spark's version; Delta's jar, its version, and the two properties with which Spark loads Delta;
    and, with `sparknlp`, Spark NLP's jars and Python package, and Scala's version. With Spark Connect, only Spark's version
    is checked, and Spark NLP is refused. On Databricks, Delta is not checked.
    """
    installation.check_spark(spark.version)
    if spark_connect.is_remote(spark):
        if sparknlp:
            raise SessionError(
                "`recognition.engine: sparknlp` does not work through Spark Connect: set `recognition.engine: openvino`."
            )
        return
    scala = str(get_class(spark, "scala.util.Properties").versionNumberString())
    if not on_databricks():  # Databricks has its own Delta, in other jars
        installation.check_delta(_find_class(spark, "io.delta.tables.DeltaTable"), spark.version, scala)
    if sparknlp:
        installation.check_sparknlp(
            scala,
            classes=has_class(spark, "com.johnsnowlabs.nlp.DocumentAssembler"),
            package=importlib.util.find_spec("sparknlp") is not None,
        )
    if on_databricks():
        return
    if "DeltaSparkSessionExtension" not in (spark.conf.get("spark.sql.extensions", "") or ""):
        raise SessionError(
            f"spark.sql.extensions lacks io.delta.sql.DeltaSparkSessionExtension: submit with --properties-file {DEFAULTS}."
        )
    if not spark.conf.get("spark.sql.catalog.spark_catalog", ""):  # the value may be another catalog that knows Delta
        raise SessionError(
            "spark.sql.catalog.spark_catalog is not set to org.apache.spark.sql.delta.catalog.DeltaCatalog: submit with "
            f"--properties-file {DEFAULTS}."
        )


def has_class(spark: SparkSession, name: str) -> bool:
    """Return whether a class is on the driver's class path, without loading the class, which could load native libraries."""
    return _find_class(spark, name) is not None


def _find_class(spark: SparkSession, name: str) -> str | None:
    """Return the URL of a class, with the path of its jar; None if the class is not on the driver's class path."""
    loader = get_class(spark, "org.apache.spark.util.Utils").getContextOrSparkClassLoader()
    found = loader.getResource(name.replace(".", "/") + ".class")
    return None if found is None else str(found.toString())


def ship_package(spark: SparkSession) -> None:
    """Send this package and its extensions to the executors as a zip, so that they run the same code as the driver.

    If the session already has the same code, or if this package itself runs from a zip, send nothing.
    """
    if not _PACKAGE.is_dir():  # already inside a zip or a wheel that Spark distributes
        return
    packages = [_PACKAGE, *(_PACKAGE.with_name(name) for name in installation.EXTENSIONS)]
    sources = sorted(source for package in packages for source in package.rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    archive = create_scratch_directory("entitymill-code-") / f"entitymill-{digest}.zip"
    # Files from reproducible archives have dates in 1970, which a zip cannot store.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as zipped:
        for source in sources:
            zipped.write(source, source.relative_to(_PACKAGE.parent))
    send_file(spark, archive, code=True)


def send_file(spark: SparkSession, file: Path, *, code: bool = False) -> None:
    """Send a file to the executors; if another file with this name was already sent in this session, delete `file` instead.

    The caller must derive the name from the content, because Spark rejects a second file with the same name. `file` must be
    in a directory from `create_scratch_directory`. With `code`, `file` is a zip of Python modules, which workers can import.
    """
    key = (spark_connect.get_session_id(spark), file.name)
    with _sending:
        if key in _sent:
            if _sent[key] != file:
                file.unlink(missing_ok=True)  # otherwise each run in a notebook would leave a copy of the model
            return
        if spark_connect.is_remote(spark):
            spark.addArtifacts(str(file), pyfile=code, file=not code)
        else:
            (spark.sparkContext.addPyFile if code else spark.sparkContext.addFile)(str(file))
        _sent[key] = file


class RememberedClass(JavaClass):  # type: ignore[misc]  # py4j has no types
    """A py4j proxy of a Java class; in contrast to py4j's own proxy, it looks up each static method only once."""

    def __getattr__(self, name: str) -> Any:
        """Return a static member of the Java class; keep a method in this proxy, so that Java is asked for it only once."""
        member = super().__getattr__(name)
        if isinstance(member, JavaMember):
            setattr(self, name, member)
        return member


def get_class(spark: SparkSession, name: str) -> Any:
    """Return a py4j proxy of the Java class `name` (its full name); using the proxy fails if the class does not exist."""
    return JavaClass(name, _get_client(spark))


def remember_classes(spark: SparkSession) -> None:
    """Speed up PySpark: look up the Java classes in _USED_BY_PYSPARK once, instead of at each use.

    The proxies of the classes become attributes of `SparkContext._jvm`, where PySpark finds them.
    """
    view: Any = spark.sparkContext._jvm
    for name in _USED_BY_PYSPARK:
        if name in vars(view):
            continue
        found: Any = getattr(view, name, None)
        if type(found) is JavaClass:
            setattr(view, name, RememberedClass(found._fqn, _get_client(spark)))


def _get_client(spark: SparkSession) -> Any:
    """Return py4j's client for the JVM of a session."""
    gateway: Any = spark.sparkContext._gateway
    return gateway._gateway_client
