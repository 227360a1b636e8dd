"""Read code blocks from this repository's pages, so that tests run exactly what the pages say."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_code_block(page: str, mark: str) -> str:
    """Return the only code block of a page that contains `mark`."""
    text = (ROOT / page).read_text(encoding="utf8")
    found = [match[2] for match in _BLOCK.finditer(text) if mark in match[2]]
    assert len(found) == 1, f"{mark}: in {len(found)} blocks of {page}"
    return found[0]
