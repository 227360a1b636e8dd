"""Text tables in, entity tables out: sentence, token and entity recognition as a Spark job.

In the order in which a document meets them: `source`, `recognition` (run by `engines`), `tables`, `reporting`. `run` is one
run, `commands` what can be asked for, `settings` all that can be set, `platform` what it stands on, `models` prepares them.
From Python: `load` a model and call it on texts, or `extract` a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entitymill.errors import (
    DriftError,
    EntityMillError,
    ModelError,
    OutputError,
    RejectedError,
    SessionError,
    SettingsError,
    SourceError,
    StorageError,
    WorkerError,
)

if TYPE_CHECKING:
    from entitymill.python_api import Mention, TextTagger, extract, load

__version__ = "0.2.0.dev0"
__all__ = [
    "DriftError",
    "EntityMillError",
    "Mention",
    "ModelError",
    "OutputError",
    "RejectedError",
    "SessionError",
    "SettingsError",
    "SourceError",
    "StorageError",
    "TextTagger",
    "WorkerError",
    "extract",
    "load",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: a worker, or `entitymill --help`, needs none of what these bring.
    if name in __all__:
        from entitymill import python_api  # noqa: PLC0415

        return getattr(python_api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
