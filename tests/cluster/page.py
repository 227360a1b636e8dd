"""The command blocks of docs/cluster.md, so that what the page says is what the tests run."""

from __future__ import annotations

import re

from .servers import ROOT

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block(mark: str) -> str:
    """The one block that holds a mark."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf8")
    found = [match[2] for match in _BLOCK.finditer(text) if mark in match[2]]
    assert len(found) == 1, f"{mark}: in {len(found)} blocks of docs/cluster.md"
    return found[0]
