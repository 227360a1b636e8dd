"""The code blocks of this repository's pages, so that what a page says is what the tests run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block(page: str, mark: str) -> str:
    """The one block of a page that holds a mark."""
    text = (ROOT / page).read_text(encoding="utf8")
    found = [match[2] for match in _BLOCK.finditer(text) if mark in match[2]]
    assert len(found) == 1, f"{mark}: in {len(found)} blocks of {page}"
    return found[0]
