"""What must be there, in which versions, and what to do where it is not."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path

from entitymill.errors import SessionError, SettingsError

DELTA = {"3.5": ("3.3.3", "jars"), "4.0": ("4.0.1", "jars-spark4")}
"""Of Spark -> of Delta, and the make target that fetches it into the directory of its name."""
SPARK_NLP_SCALA = "2.12"
_SPARK = (
    "install it with `pip install 'entitymill[spark]'` (Spark 3.5; for Spark 4.0 entitymill[spark4]), or submit to a Spark "
    "that is there with spark-submit"
)
PREPARE = "packages for preparing models: `pip install nncf safetensors deltalake`, or in the repository `make prepare`"
_PACKAGES = {
    "pyspark": ("PySpark", _SPARK),
    "py4j": ("PySpark", _SPARK),
    "delta": ("delta-spark", _SPARK),
    "sparknlp": ("Spark NLP", "install it with `pip install 'entitymill[sparknlp]'`"),
}
"""Module -> what people call it, and how to get it."""
EXTRAS = {"report": ("jinja2", "matplotlib"), "metrics": ("prometheus_client",), "lineage": ("openlineage",)}
"""Extra of this package -> the modules that it brings."""
MODELS = "models"
"""Directory of the models that the repository carries, as settings name them."""


def check_spark(version: str) -> None:
    """Refuse a Spark that this program was never run on.

    Raises:
        SessionError: this one.
    """
    if _release(version) not in DELTA:
        raise SessionError(f"Spark {version} is not supported: this program runs on Spark {' and '.join(DELTA)}.")


def check_delta(jar: str | None, spark: str, scala: str) -> None:
    """Delta is built for one Scala; with another it fails with NoSuchMethodError, anywhere.

    Args:
        jar: that Delta's classes are in, or what its platform calls it; none where they are nowhere.
        spark: its version, one that `check_spark` lets pass.
        scala: version that Spark was built for.

    Raises:
        SessionError: there is none, or it does not fit.
    """
    version, target = DELTA[_release(spark)]
    fitting = f"io.delta:delta-spark_{_release(scala)}:{version}"
    local = f"local runs: `entitymill fetch-jars` or `make {target}`, and spark.jars=build/{target}"
    if jar is None:
        raise SessionError(f"Delta is not on Spark's class path: add {fitting} with --jars or --packages ({local}).")
    named = re.search(r"delta-spark_([\d.]+)-([\d.]+)\.jar", jar)
    if named and (named[1] != _release(scala) or named[2].split(".")[0] != version.split(".")[0]):
        raise SessionError(f"{named[0]} does not fit Spark {spark} for Scala {_release(scala)}: use {fitting} ({local}).")


def check_sparknlp(scala: str, *, classes: bool, package: bool) -> None:
    """Engine `sparknlp` needs Spark NLP twice, its jars and its Python package, and on a Scala it is built for.

    Args:
        scala: version that Spark was built for.
        classes: whether its classes are on Spark's class path.
        package: whether its Python package is installed.

    Raises:
        SessionError: either is missing, or cannot run there.
    """
    if _release(scala) != SPARK_NLP_SCALA:
        raise SessionError(
            f"recognition.engine: sparknlp runs on Spark 3.5 for Scala {SPARK_NLP_SCALA}, this Spark is for Scala "
            f"{_release(scala)}; use engine openvino."
        )
    missing = [what for what, there in (("jars", classes), ("Python package", package)) if not there]
    if missing:
        raise SessionError(
            f"recognition.engine: sparknlp needs Spark NLP, whose {' and '.join(missing)} cannot be found: the jars "
            "come with `make jars-sparknlp` and spark.jars=build/jars,build/jars-sparknlp, or with --packages "
            "com.johnsnowlabs.nlp:spark-nlp_2.12:5.5.3; the Python package is the extra entitymill[sparknlp]."
        )


def _release(version: str) -> str:
    """The first two numbers."""
    return ".".join(version.split(".")[:2])


def require(asked_by: str, extra: str) -> None:
    """Find out, before any work, whether what a setting or a command asks for can be done.

    Args:
        asked_by: setting or command, for the message.
        extra: of EXTRAS.

    Raises:
        SettingsError: one is missing.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(f"{asked_by}: {', '.join(missing)} is not installed: pip install 'entitymill[{extra}]'.")


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Of a module that could not be imported; none if it is none of a package's."""
    module = (error.name or "").partition(".")[0]
    if not module or module == "entitymill":
        return None
    name, way = _PACKAGES.get(module, (module, "install this program anew with all that it needs: `pip install entitymill`"))
    return f"{name} is not installed: {way}."


def missing_java() -> str | None:
    """What to do where Spark finds no Java; none where there is one."""
    home = os.environ.get("JAVA_HOME")
    if home:
        there = (Path(home) / "bin" / "java").is_file()
        return None if there else f"JAVA_HOME is {home}, where no Java is: set it to a JDK 17, or take it away."
    if shutil.which("java"):
        return None
    return "Spark needs Java, which is not on the path: install a JDK 17 (openjdk-17-jre-headless), or set JAVA_HOME to one."


def missing_model(path: str) -> str | None:
    """What to do where a model that the repository carries is not there; none of other paths."""
    if Path(path).parts[:1] != (MODELS,):
        return None
    return f"copy the directory {MODELS} of the repository, or of build/package, to where you start, or name a model's path"
