"""Write paragraphs of Wikipedia, as text without labels, to a file: `python wikipedia.py OUT.jsonl`.

Needs gensim, which is in none of this repository's environments. The wheel contains a function that removes markup and, for
its own tests, a hundred articles of the English Wikipedia of April 2016 (CC BY-SA).
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
"""Minimum number of characters of a paragraph; shorter lines are headings, rows of tables or parts of lists."""
NO_TEXT = ("|", "!", "{", "}", "=", "<", "*", "#", ":", ";")


def paragraphs(dump: Path) -> Iterator[str]:
    """Yield each paragraph of running text in a dump of Wikipedia, without markup."""
    with bz2.open(dump) as opened:
        for _, markup, _ in extract_pages(opened, ["0"]):
            for line in filter_wiki(markup).split("\n"):
                words = " ".join(line.replace("'''", "").replace("''", "").replace("()", "").split())
                if len(words) >= SHORTEST and not words.startswith(NO_TEXT):
                    yield words


def main() -> None:
    """Write the paragraphs, one JSON object with the key `text` per line."""
    with Path(sys.argv[1]).open("w", encoding="utf8") as out:
        out.writelines(json.dumps({"text": text}) + "\n" for text in paragraphs(Path(gensim.__file__).parent / DUMP))


if __name__ == "__main__":
    main()
