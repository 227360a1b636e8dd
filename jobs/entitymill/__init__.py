"""Find the named entities of a text table, and write them to entity tables, in a Spark job.

The package `source` reads the texts, `workers` calls `recognition` to find the entities, `tables` writes them, and
`terminal` prints a summary. `run` controls one run of the job, `commands` contains the commands of the command line,
`settings` defines all settings, and `spark` opens the Spark session. Python programs call `load` to find mentions (places
where a text names an entity) in texts, `mentions` or `udf` to find them in a DataFrame, and `extract` to run the job.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from entitymill.errors import (
    DriftError,
    EntityMillError,
    LimitError,
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
    from entitymill.dataframe_functions import mentions, udf
    from entitymill.python_api import Mention, TextTagger, extract, load

__version__ = "0.2.0.dev0"
__all__ = [
    "DriftError", "EntityMillError", "LimitError", "Mention", "ModelError", "OutputError", "RejectedError", "SessionError",
    "SettingsError", "SourceError", "StorageError", "TextTagger", "WorkerError", "extract", "load", "mentions", "udf",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Return the public object `name`, such as `load`, and import its module when the name is first used.

    So workers and `entitymill --help` need not import pyarrow and PySpark. Raise AttributeError if no public object has this
    name.
    """
    if name in __all__:
        module = import_module("entitymill.dataframe_functions" if name in ("mentions", "udf") else "entitymill.python_api")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
