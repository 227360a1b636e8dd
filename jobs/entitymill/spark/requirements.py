"""What must be there, in which versions, and what to do where it is not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

from entitymill.errors import SessionError, SettingsError

DELTA = {"3.5": ("3.3.3", "jars"), "4.0": ("4.0.1", "jars-spark4")}
"""Of Spark -> of Delta, and the make target that fetches it into the directory of its name."""
SPARK_NLP_SCALA = "2.12"
COMMANDS = {
    "spark": "install",
    "spark4": "install-spark4",
    "connect": "install-spark4",
    "report": "extras",
    "metrics": "extras",
    "lineage": "extras",
    "sparknlp": "extras",
    "prepare": "prepare",
}
"""Extra of this package, or what preparing models needs -> the make target that installs it in a repository."""
_ROOT = Path(__file__).parents[3]
_REPOSITORY = _ROOT if (_ROOT / "Makefile").is_file() and (_ROOT / "pyproject.toml").is_file() else None
"""The clone that this package runs from; none where it was installed from a wheel."""


def install_command(extra: str = "") -> str:
    """Return the command that adds an extra to this very installation.

    It never names this package to a package index: none has it, and whoever took the name there would run code.

    Args:
        extra: of COMMANDS; empty: what every run needs.
    """
    if _REPOSITORY is not None:
        target = COMMANDS.get(extra, "install")
        return f"make {target}" if Path.cwd() == _REPOSITORY else f"make -C {shlex.quote(str(_REPOSITORY))} {target}"
    if extra == "prepare":  # no extra of the wheel; these names are taken by their projects
        return "pip install nncf safetensors deltalake"
    wheel = _find_wheel_file() or "/path/to/entitymill-VERSION-py3-none-any.whl"
    # Quoted always: a shell would take the brackets for a pattern.
    return f"pip install '{wheel}[{extra}]'" if extra else f"pip install '{wheel}'"


def _find_wheel_file() -> str | None:
    """The wheel that this package was installed from, where pip noted it and it is still there."""
    try:
        noted = importlib.metadata.distribution("entitymill").read_text("direct_url.json")
        address = urlparse(json.loads(noted or "{}").get("url", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    path = unquote(address.path)
    there = address.scheme == "file" and path.endswith(".whl") and "'" not in path and Path(path).is_file()
    return path if there else None


def _spark_advice() -> str:
    return (
        f"install it with `{install_command('spark')}` (Spark 3.5; for Spark 4.0 `{install_command('spark4')}`), or submit "
        "to a Spark that is there with spark-submit"
    )


PREPARE = f"packages for preparing models: `{install_command('prepare')}`"
_PACKAGES = {"pyspark": "PySpark", "py4j": "PySpark", "delta": "delta-spark", "sparknlp": "Spark NLP"}
"""Module -> what people call it."""
EXTRAS = {"report": ("jinja2", "matplotlib"), "metrics": ("prometheus_client",), "lineage": ("openlineage",)}
"""Extra of this package -> the modules that it brings."""
MODELS = "models"
"""Directory of the models that the repository carries, as settings name them."""


def check_spark(version: str) -> None:
    """Refuse a Spark that this program was never run on.

    Raises:
        SessionError: this one.
    """
    if _major_minor(version) not in DELTA:
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
    version, target = DELTA[_major_minor(spark)]
    fitting = f"io.delta:delta-spark_{_major_minor(scala)}:{version}"
    local = f"local runs: `entitymill fetch-jars` or `make {target}`, and spark.jars=build/{target}"
    if jar is None:
        raise SessionError(f"Delta is not on Spark's class path: add {fitting} with --jars or --packages ({local}).")
    named = re.search(r"delta-spark_([\d.]+)-([\d.]+)\.jar", jar)
    if named and (named[1] != _major_minor(scala) or named[2].split(".")[0] != version.split(".")[0]):
        raise SessionError(
            f"{named[0]} does not fit Spark {spark} for Scala {_major_minor(scala)}: use {fitting} ({local})."
        )


def check_sparknlp(scala: str, *, classes: bool, package: bool) -> None:
    """Engine `sparknlp` needs Spark NLP twice, its jars and its Python package, and on a Scala it is built for.

    Args:
        scala: version that Spark was built for.
        classes: whether its classes are on Spark's class path.
        package: whether its Python package is installed.

    Raises:
        SessionError: either is missing, or cannot run there.
    """
    if _major_minor(scala) != SPARK_NLP_SCALA:
        raise SessionError(
            f"recognition.engine: sparknlp runs on Spark 3.5 for Scala {SPARK_NLP_SCALA}, this Spark is for Scala "
            f"{_major_minor(scala)}; use engine openvino."
        )
    missing = [what for what, there in (("jars", classes), ("Python package", package)) if not there]
    if missing:
        raise SessionError(
            f"recognition.engine: sparknlp needs Spark NLP, whose {' and '.join(missing)} cannot be found: the jars "
            "come with `make jars-sparknlp` and spark.jars=build/jars,build/jars-sparknlp, or with --packages "
            f"com.johnsnowlabs.nlp:spark-nlp_2.12:5.5.3; the Python package with `{install_command('sparknlp')}`."
        )


def _major_minor(version: str) -> str:
    """The first two numbers."""
    return ".".join(version.split(".")[:2])


def require_extra(asked_by: str, extra: str) -> None:
    """Find out, before any work, whether what a setting or a command asks for can be done.

    Args:
        asked_by: setting or command, for the message.
        extra: of EXTRAS.

    Raises:
        SettingsError: one is missing.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise SettingsError(
            f"{asked_by} needs {' and '.join(missing)}, which {are} not installed: run `{install_command(extra)}`."
        )


def explain_missing_package(error: ModuleNotFoundError) -> str | None:
    """Of a module that could not be imported; none if it is none of a package's."""
    module = (error.name or "").partition(".")[0]
    if not module or module == "entitymill":
        return None
    name = _PACKAGES.get(module, module)
    if module == "sparknlp":
        return f"{name} is not installed: install it with `{install_command('sparknlp')}`."
    if module in _PACKAGES:
        return f"{name} is not installed: {_spark_advice()}."
    return f"{name} is not installed: install everything that this program needs with `{install_command()}`."


def explain_missing_java() -> str | None:
    """What to do where Spark finds no Java; none where there is one."""
    home = os.environ.get("JAVA_HOME")
    if home:
        there = (Path(home) / "bin" / "java").is_file()
        return None if there else f"JAVA_HOME is {home}, where no Java is: set it to a JDK 17, or take it away."
    if shutil.which("java"):
        return None
    return "Spark needs Java, which is not on the path: install a JDK 17 (openjdk-17-jre-headless), or set JAVA_HOME to one."


def explain_missing_model(path: str) -> str | None:
    """What to do where a model that the repository carries is not there; none of other paths."""
    if Path(path).parts[:1] != (MODELS,):
        return None
    return f"copy the directory {MODELS} of the repository, or of build/package, to where you start, or name a model's path"
