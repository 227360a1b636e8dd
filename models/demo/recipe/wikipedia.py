"""Paragraphs of Wikipedia as text without labels: `python wikipedia.py OUT.jsonl`.

Needs gensim, which is in none of this repository's environments: its wheel carries a hundred articles of the English
Wikipedia of April 2016 (CC BY-SA) for its own tests, and a filter of their markup.
"""

from __future__ import annotations

import bz2
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import gensim
from gensim.corpora.wikicorpus import extract_pages, filter_wiki

DUMP = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHORTEST = 80
"""Characters of a paragraph; what is shorter is a heading, a row of a table or part of a list."""
NO_TEXT = ("|", "!", "{", "}", "=", "<", "*", "#", ":", ";")


def paragraphs(dump: Path) -> Iterator[str]:
    """Yield each paragraph of running text."""
    with bz2.open(dump) as opened:
        for _, markup, _ in extract_pages(opened, ["0"]):
            for line in filter_wiki(markup).split("\n"):
                words = " ".join(line.replace("'''", "").replace("''", "").replace("()", "").split())
                if len(words) >= SHORTEST and not words.startswith(NO_TEXT):
                    yield words


def main() -> None:
    """Write one JSON object with a `text` for each paragraph."""
    with Path(sys.argv[1]).open("w", encoding="utf8") as out:
        out.writelines(json.dumps({"text": text}) + "\n" for text in paragraphs(Path(gensim.__file__).parent / DUMP))


if __name__ == "__main__":
    main()
