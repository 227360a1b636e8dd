"""Check that Java and supported versions of Spark and Delta are installed, or say how to install them; import extensions.

An extension is a package such as entitymill_reports. The package entitymill imports an extension only when a setting or a
command needs it. So it runs without any extension; a test enforces that.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote, urlparse

from entitymill.errors import SessionError, SettingsError
from entitymill.settings import Settings
from entitymill.spark.files_on_this_machine import exists_here, find_in_clone

SPARK_NLP_SCALA = "2.12"
MAKE_TARGETS = {
    "spark": "install", "spark4": "install-spark4", "spark41": "install-spark41", "connect": "install-spark4",
    "report": "extras", "metrics": "extras", "lineage": "extras", "sparknlp": "extras", "prepare": "prepare",
}  # fmt: skip
"""Dict from a pip extra of this package to the make target that installs it in a clone. `prepare` is not an extra: it stands
for the packages that prepare models."""
_ROOT = Path(__file__).parents[3]
_REPOSITORY = _ROOT if (_ROOT / "Makefile").is_file() and (_ROOT / "pyproject.toml").is_file() else None
"""Directory of the clone from which this package runs; None if the package was installed from a wheel."""
_PACKAGES = {"pyspark": "PySpark", "py4j": "PySpark", "delta": "delta-spark", "sparknlp": "Spark NLP"}
"""Dict from a module to the name that messages use for its package."""
EXTRAS = {"report": ("deltalake", "jinja2", "matplotlib"), "metrics": ("prometheus_client",), "lineage": ("openlineage",)}
"""Dict from each pip extra that `require_extra` can check to the modules that it installs."""
_MODELS_DIRECTORY = "models"
"""Directory of the repository that contains its models, as in the setting model.path=models/demo."""
MODELS, REPORTS, SPARKNLP = "entitymill_models", "entitymill_reports", "entitymill_sparknlp"
EXTENSIONS = (MODELS, REPORTS, SPARKNLP)
"""Names of the extensions."""


class DeltaRelease(NamedTuple):
    """The release of Delta that this program uses with one release of Spark (see DELTA).

    version: version of Delta.
    artifact: name of the jar in a Maven repository, without the versions of Scala and Delta.
    scala: version of Scala for which the PySpark package is built.
    version_prefix: first part of every Delta version that works with this release of Spark: with `4.0.`, all 4.0.x work.
    target: make target that fetches Delta's jars, and name of the directory in build/ into which it puts them.
    sha256, storage_sha256: digests, in hexadecimal, of the jars `artifact` and delta-storage of this version.
    """

    version: str
    artifact: str
    scala: str
    version_prefix: str
    target: str
    sha256: str
    storage_sha256: str


DELTA = {
    "3.5": DeltaRelease(
        version="3.3.3",
        artifact="delta-spark",
        scala="2.12",
        version_prefix="3.3.",
        target="jars",
        sha256="4912bf902a1c453aba3bd838ff212dedd357155212f9bb37a6b47d97f2827ebc",
        storage_sha256="45ad193053fd30cebe6d9ab1889873cde39b223a0f210e00ebee8b6642476901",
    ),
    "4.0": DeltaRelease(
        version="4.0.1",
        artifact="delta-spark",
        scala="2.13",
        version_prefix="4.0.",
        target="jars-spark4",
        sha256="a1e76860b19fe1e6b205a4ea7a9099a2f9575d39bb71d49b3e679b299d0efb91",
        storage_sha256="ecc42c5aaa51c423312d9e4e48aa4a12b34740bf2c37de0e8f279277ec3d12e4",
    ),
    "4.1": DeltaRelease(
        version="4.3.1",
        artifact="delta-spark_4.1",
        scala="2.13",
        version_prefix="4.3.",
        target="jars-spark41",
        sha256="ebf35a4383f0a653c3ee3c7882c0edcac2f846be31ac61af4b96ccfaaf36c171",
        storage_sha256="577c12c7e371be4c041714fb48e88ad86e3c3512beea2bdaffbe7a4debf79718",
    ),
}
"""Dict from each supported release of Spark (its first two numbers) to the release of Delta for it."""


def install_command(extra: str = "") -> str:
    """Return the shell command that installs a pip extra (a key of MAKE_TARGETS) or, for "", what every run needs.

    In a clone, the command is `make`; otherwise, it is `pip install` with the path of the wheel. The command never makes pip
    search PyPI for Entity Mill, because anyone may register that name.
    """
    if _REPOSITORY is not None:
        target = MAKE_TARGETS.get(extra, "install")
        with contextlib.suppress(OSError):  # the working directory may have been deleted
            if Path.cwd() == _REPOSITORY:
                return f"make {target}"
        return f"make -C {shlex.quote(str(_REPOSITORY))} {target}"
    if extra == "prepare":  # not an extra of the wheel; pip finds these packages on PyPI
        return "pip install nncf safetensors scipy deltalake"
    wheel = _find_wheel_file() or "/path/to/entitymill-VERSION-py3-none-any.whl"
    # Quoted, since a shell would treat the brackets as a pattern.
    return f"pip install '{wheel}[{extra}]'" if extra else f"pip install '{wheel}'"


def _find_wheel_file() -> str | None:
    """Return the path of the wheel from which pip installed this package; None if the wheel is gone or unknown."""
    try:
        recorded = importlib.metadata.distribution("entitymill").read_text("direct_url.json")
        address = urlparse(json.loads(recorded or "{}").get("url", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    path = unquote(address.path)
    exists = address.scheme == "file" and path.endswith(".whl") and "'" not in path and Path(path).is_file()
    return path if exists else None


PREPARE = f"packages for preparing models: `{install_command('prepare')}`"
"""Part of a message: how to install the packages that prepare models."""


def check_spark(version: str) -> None:
    """Raise SessionError if this program does not support a version of Spark, such as `3.5.7`."""
    if _major_minor(version) not in DELTA:
        *others, newest = DELTA
        raise SessionError(f"Spark {version} is not supported: this program runs on Spark {', '.join(others)} and {newest}.")


def check_delta(jar: str | None, spark: str, scala: str) -> None:
    """Raise SessionError if Delta is missing, or is not built for these versions of Spark and Scala.

    Without this check, a jar for a different Scala version could make any call of Delta raise NoSuchMethodError. The
    versions are read from the jar's file name; a jar whose name does not show them is accepted.

    Args:
        jar: location of Delta's classes, which usually names a jar; None if Delta is not on Spark's class path.
        spark: version of Spark; the caller must have checked it with `check_spark`.
        scala: version of Scala for which this Spark is built.
    """
    delta = DELTA[_major_minor(spark)]
    advised = f"io.delta:{delta.artifact}_{_major_minor(scala)}:{delta.version}"
    fetch = f"`entitymill fetch-jars --spark {_major_minor(spark)} --to build/{delta.target}` or `make {delta.target}`"
    local = f"local runs: {fetch}, then set spark.jars=build/{delta.target}"
    if jar is None:
        raise SessionError(f"Delta is not on Spark's class path: add {advised} with --jars or --packages ({local}).")
    named = re.search(r"delta-spark_(?:[\d.]+_)?([\d.]+)-([\d.]+)\.jar", jar)
    if named and (named[1] != _major_minor(scala) or not named[2].startswith(delta.version_prefix)):
        raise SessionError(
            f"{named[0]} does not fit Spark {spark} for Scala {_major_minor(scala)}: use {advised} ({local})."
        )


def check_sparknlp(scala: str, *, classes: bool, package: bool) -> None:
    """Raise SessionError unless engine `sparknlp` can run: it needs Spark NLP's jars, its Python package, and Scala 2.12.

    `scala` is Spark's version of Scala. `classes` and `package` say whether the jars and the Python package were found.
    """
    if _major_minor(scala) != SPARK_NLP_SCALA:
        raise SessionError(
            f"`recognition.engine: sparknlp` needs Spark 3.5 for Scala {SPARK_NLP_SCALA}, but this Spark is for Scala "
            f"{_major_minor(scala)}: set `recognition.engine: openvino`."
        )
    missing = [what for what, found in (("jars", classes), ("Python package", package)) if not found]
    if missing:
        raise SessionError(
            f"`recognition.engine: sparknlp` needs Spark NLP, whose {' and '.join(missing)} cannot be found: the jars "
            "come with `make jars-sparknlp` and spark.jars=build/jars,build/jars-sparknlp, or with --packages "
            f"com.johnsnowlabs.nlp:spark-nlp_2.12:5.5.3; the Python package with `{install_command('sparknlp')}`."
        )


def _major_minor(version: str) -> str:
    """Return the first two numbers of a version, such as `3.5`."""
    return ".".join(version.split(".")[:2])


def require_extra(asked_by: str, extra: str) -> None:
    """Raise SettingsError if a package of a pip extra (a key of EXTRAS) is not installed.

    Call this before any work starts. `asked_by` is the setting or command that needs the extra, for the message.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise SettingsError(
            f"{asked_by} needs {' and '.join(missing)}, which {are} not installed: run `{install_command(extra)}`."
        )


def explain_missing_package(error: ModuleNotFoundError) -> str | None:
    """Return a message that says how to install the module that `error` names.

    Return None if `error` names no module, or a module of entitymill itself.
    """
    module = (error.name or "").partition(".")[0]
    if not module or module == "entitymill":
        return None
    name = _PACKAGES.get(module, module)
    if module == "sparknlp":
        return f"{name} is not installed: install it with `{install_command('sparknlp')}`."
    if module in _PACKAGES:
        return (
            f"{name} is not installed: install it with `{install_command('spark')}` (Spark 3.5; for Spark 4.0 "
            f"`{install_command('spark4')}`, for 4.1 `{install_command('spark41')}`), or use spark-submit of an "
            "installed Spark."
        )
    return f"{name} is not installed: install everything that this program needs with `{install_command()}`."


def explain_missing_java() -> str | None:
    """Return a message that says how to install Java or set JAVA_HOME; None if Spark can find Java."""
    home = os.environ.get("JAVA_HOME")
    if home:
        if (Path(home) / "bin" / "java").is_file():
            return None
        return f"JAVA_HOME is {home}, but that directory contains no Java: set JAVA_HOME to a JDK 17, or unset it."
    if shutil.which("java"):
        return None
    return "Spark needs Java, which is not on the PATH: install a JDK 17 (openjdk-17-jre-headless), or set JAVA_HOME to one."


def explain_missing_model(path: str) -> str | None:
    """Return the end of an error message, which says how to get the missing model `path`; None if it is not in `models/`."""
    if Path(path).parts[:1] != (_MODELS_DIRECTORY,):
        return None
    return (
        f"copy the directory {_MODELS_DIRECTORY} of the Entity Mill repository, or of its build/package, to the working "
        "directory, or specify another model"
    )


def describe_missing_jars(directory: str) -> str:
    """Return the error message for a directory, listed in `spark.jars`, that has no jar; it says how to get the jars."""
    return (
        f"spark.jars: {directory} contains no jar: run `entitymill fetch-jars --to {directory}` (in the repository `make "
        "jars`, for s3a also `make jars-s3`, for engine sparknlp `make jars-sparknlp`), or set another directory."
    )


def check_installation(settings: Settings) -> None:
    """Check, before a run starts Spark, that PySpark, Java, Delta's jars and the model are installed.

    If two or more are missing, raise a SessionError that names all of them. If only one is missing, raise nothing: the code
    that needs it raises an error later. Check nothing if spark-submit, a cluster or the like provides Spark.
    """
    if _is_spark_provided(settings.spark.master):
        return
    directories = [directory.strip() for directory in settings.spark.jars.split(",")]
    missing = [] if importlib.util.find_spec("pyspark") else [explain_missing_package(ModuleNotFoundError(name="pyspark"))]
    missing.append(explain_missing_java())
    missing += [describe_missing_jars(one) for one in directories if not any(Path(find_in_clone(one)).glob("*.jar"))]
    model = settings.model.path
    if settings.recognition.engine == "openvino" and not exists_here(find_in_clone(model)):
        advice = explain_missing_model(model)
        missing.append(f"model.path: there is nothing at {model}: {advice}." if advice else None)
    found = [one for one in missing if one]
    if len(found) > 1:
        raise SessionError("\n".join([f"This installation lacks {len(found)} things:", *found]))


def _is_spark_provided(master: str) -> bool:
    """Return whether this program need not start Spark: spark-submit, a cluster, Databricks or Spark Connect provides it."""
    provided = {"PYSPARK_GATEWAY_PORT", "DATABRICKS_RUNTIME_VERSION", "SPARK_REMOTE"}
    return not master.startswith("local") or bool(provided & set(os.environ))


def import_extension(module: str, needed_by: str) -> ModuleType:
    """Import a module of an extension, such as entitymill_reports.reports_of_a_run, and return it.

    Args:
        module: full name of the module; its first part is the extension's package.
        needed_by: the setting or command that needs the module, for the message.

    Raises:
        SettingsError: the extension is not installed.
        ModuleNotFoundError: the extension is installed, but a library that it needs is not.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise SettingsError(
            f"{needed_by} needs the package {package}, which is not installed: copy it from the repository or the "
            "wheel to the directory in which the package entitymill is installed."
        ) from error
