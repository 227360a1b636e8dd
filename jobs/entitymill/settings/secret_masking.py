"""Secrets in settings: not shown where they were set, and refused in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from entitymill.errors import SettingsError

MASK = "***"
_HIDDEN = re.compile(
    r"secret|password|passwd|token|credential|access\.?key|(account|private|encryption)\.key|\bsas\.", re.IGNORECASE
)
_SECRET = re.compile(
    r"secret|password|passwd|access[._]?key|account\.key|private\.key$|session\.token|sas\.token|\bsas\.", re.IGNORECASE
)
_WHENCE = re.compile(
    r"(provider|provider\.path|\.file|\.endpoint)$|provider\.type|keyprovider|secretKeyRef\.|\.kubernetes\.\w+\.secrets\.",
    re.IGNORECASE,
)
"""Keys that only say where a secret comes from."""
_WORDS = r"(?:password|passwd|secret|token|api_?key|access_?key|sig|signature)"
_IN_VALUES = (
    re.compile(r"(://[^/@:\s]*:)[^/\s]+(@)"),
    re.compile(r"(https?://)[^/@:\s]+(@)", re.IGNORECASE),  # elsewhere it may be a container: abfss://texts@lake
    re.compile(rf"([?&;][\w.]*{_WORDS}=)[^&;\s]+()", re.IGNORECASE),
    re.compile(rf"(-D[\w.]*{_WORDS}=)\S+()", re.IGNORECASE),
)
"""A password or token in an address, in its query, or in options for Java; between the groups."""


def mask(value: Any, key: str = "") -> Any:
    """Plain data without its secrets: values of keys that tell of one, and what addresses and options hold."""
    if isinstance(value, dict):
        return {k: mask(v, k) for k, v in value.items()}
    if isinstance(value, str):
        if _HIDDEN.search(key):
            return MASK
        for secret in _IN_VALUES:
            value = secret.sub(rf"\1{MASK}\2", value)
    return value


def refuse_secrets(layer: Any, path: Path, key: str = "") -> None:
    """A file of settings is committed and copied; a secret in it is soon everybody's.

    Args:
        layer: the file's content, or what is under a key of it.
        path: of the file.
        key: of the layer; empty for the whole.

    Raises:
        SettingsError: the file holds one; the message names its key alone.
    """
    if isinstance(layer, dict):
        for name, value in layer.items():
            refuse_secrets(value, path, f"{key}.{name}" if key else str(name))
        return
    named = _SECRET.search(key) is not None and _WHENCE.search(key) is None
    if isinstance(layer, str) and (named or any(secret.search(layer) for secret in _IN_VALUES)):
        raise SettingsError(
            f"--config {path}: {key} holds a secret; take it out, and set it in the environment or name a credentials "
            "provider (docs/cluster.md)."
        )
