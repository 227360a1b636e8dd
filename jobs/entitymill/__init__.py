"""Text tables in, entity tables out: sentence, token and entity recognition as a Spark job.

Packages in the order in which a document passes through them: `source`, `recognition` (called by `workers`), `tables` and
`terminal`. `run` controls one run, `commands` is the command line, `settings` contains all settings, `spark` the session.
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
    # Imported on first use, because workers and `entitymill --help` need none of the packages that these load.
    if name in __all__:
        from entitymill import python_api  # noqa: PLC0415

        return getattr(python_api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
