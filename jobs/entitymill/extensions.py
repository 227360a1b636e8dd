"""The extensions of the core, looked up by name when a setting or a command asks for one.

The core never imports them by itself: it runs without any of them. A test enforces it.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from entitymill.errors import SettingsError

MODELS, REPORTS, SPARKNLP = "entitymill_models", "entitymill_reports", "entitymill_sparknlp"
PACKAGES = (MODELS, REPORTS, SPARKNLP)


def load(module: str, asked_by: str) -> ModuleType:
    """Import a module of an extension.

    Args:
        module: its full name, such as entitymill_reports.observer.
        asked_by: setting or command, for the message.

    Raises:
        SettingsError: the extension is not part of this installation.
        ModuleNotFoundError: the extension is there, but a library that it needs is not.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise SettingsError(
            f"{asked_by} needs the package {package}, which lies next to entitymill in the repository and in its wheel; "
            "copy it there."
        ) from error
