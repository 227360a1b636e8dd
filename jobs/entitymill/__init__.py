"""Text tables in, entity tables out: sentence, token and entity recognition as a Spark job.

In the order in which a document meets them: `source`, `recognition` (run by `engines`), `tables`. `extraction` is one run,
`settings` all that can be set. From Python: `load` a model and call it on texts, or `extract` a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entitymill.texts import Mention, TextTagger, extract, load

__version__ = "0.2.0.dev0"
__all__ = ["Mention", "TextTagger", "extract", "load"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: a worker, or `entitymill --help`, needs none of what these bring.
    if name in __all__:
        from entitymill import texts  # noqa: PLC0415

        return getattr(texts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
