"""What is not installed, or not there, where this program was installed alone; and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from entitymill.errors import SettingsError

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
MODELS = "models"
"""Directory of the models that the repository carries, as settings name them."""


def require(asked_by: str, extra: str, *modules: str) -> None:
    """Find out, before any work, whether what a setting or a command asks for can be done.

    Args:
        asked_by: setting or command, for the message.
        extra: of this package that brings the modules.
        modules: that are needed.

    Raises:
        SettingsError: one is missing.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(f"{asked_by}: {', '.join(missing)} is not installed: pip install 'entitymill[{extra}]'.")


def package(error: ModuleNotFoundError) -> str | None:
    """Of a module that could not be imported; none if it is none of a package's."""
    module = (error.name or "").partition(".")[0]
    if not module or module == "entitymill":
        return None
    name, way = _PACKAGES.get(module, (module, "install this program anew with all that it needs: `pip install entitymill`"))
    return f"{name} is not installed: {way}."


def java() -> str | None:
    """What to do where Spark finds no Java; none where there is one."""
    home = os.environ.get("JAVA_HOME")
    if home:
        there = (Path(home) / "bin" / "java").is_file()
        return None if there else f"JAVA_HOME is {home}, where no Java is: set it to a JDK 17, or take it away."
    if shutil.which("java"):
        return None
    return "Spark needs Java, which is not on the path: install a JDK 17 (openjdk-17-jre-headless), or set JAVA_HOME to one."


def model(path: str) -> str | None:
    """What to do where a model that the repository carries is not there; none of other paths."""
    if Path(path).parts[:1] != (MODELS,):
        return None
    return f"copy the directory {MODELS} of the repository, or of build/package, to where you start, or name a model's path"
