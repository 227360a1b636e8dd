"""Load the extension packages, such as entitymill_reports, by name, when a setting or a command needs one.

The package entitymill never imports an extension directly, so that it runs without any extension; a test enforces that.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from entitymill.errors import SettingsError

MODELS, REPORTS, SPARKNLP = "entitymill_models", "entitymill_reports", "entitymill_sparknlp"
PACKAGES = (MODELS, REPORTS, SPARKNLP)
"""Names of the packages that extend the core."""


def load(module: str, needed_by: str) -> ModuleType:
    """Import a module of an extension, and return it.

    Args:
        module: full name of the module, such as entitymill_reports.observer.
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
