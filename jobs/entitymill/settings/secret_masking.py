"""Secrets in settings: not shown where they were set, and refused in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from entitymill.errors import SettingsError

MASK = "***"
_HIDDEN = re.compile(r"secret|password|passwd|token|credential|access\.?key|account\.key|sas\.", re.IGNORECASE)
_SECRET = re.compile(r"secret|password|passwd|access[._]?key|account\.key|session\.token|sas\.token", re.IGNORECASE)
_WHENCE = re.compile(
    r"(provider|provider\.path|\.file|\.endpoint)$|provider\.type|keyprovider|secretKeyRef\.|\.kubernetes\.\w+\.secrets\.",
    re.IGNORECASE,
)
"""Keys that only say where a secret comes from."""
_URL_PASSWORD = re.compile(r"(://[^/@:\s]+):[^/@\s]+@")


def mask(value: Any, key: str = "") -> Any:
    """Plain data without its secrets: values of keys that tell of one, and passwords in addresses."""
    if isinstance(value, dict):
        return {k: mask(v, k) for k, v in value.items()}
    if isinstance(value, str):
        return MASK if _HIDDEN.search(key) else _URL_PASSWORD.sub(rf"\1:{MASK}@", value)
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
    if isinstance(layer, str) and (named or _URL_PASSWORD.search(layer)):
        raise SettingsError(
            f"--config {path}: {key} holds a secret; take it out, and set it in the environment or name a credentials "
            "provider (docs/cluster.md)."
        )
