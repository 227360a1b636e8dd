"""A cased vocabulary for an uncased encoder, at no loss: each piece gets a Title and an UPPER twin.

A twin's embedding is its lower-case piece's plus one vector per casing, learned in training and folded into the table
at export. So the encoder starts exactly as it was pre-trained, and what it learns about capitals holds for every word.
The result is a plain cased WordPiece vocabulary: nothing at run time knows of this file.
"""

from __future__ import annotations

LOWER, TITLE, UPPER = 0, 1, 2
UPPER_BELOW = 10_000
"""Only pieces with an id below this get an UPPER twin (ids go by frequency); rarer words in capitals split."""


def cased_vocabulary(uncased: list[str]) -> tuple[list[str], list[int], list[int]]:
    """Pieces of the cased vocabulary, each with the id of its uncased piece and its casing."""
    pieces, base, casing = list(uncased), list(range(len(uncased))), [LOWER] * len(uncased)
    seen = set(uncased)

    def add(piece: str, uncased_id: int, case: int) -> None:
        if piece not in seen:
            seen.add(piece)
            pieces.append(piece)
            base.append(uncased_id)
            casing.append(case)

    for i, piece in enumerate(uncased):
        word = piece.removeprefix("##")
        if not word.isalpha() or piece.startswith("["):
            continue
        inner = piece.startswith("##")
        if not inner:
            add(word[0].upper() + word[1:], i, TITLE)
        # An inner piece of one letter must have its twin, or a word in mixed case would be unknown.
        if (inner or len(word) > 1) and (i < UPPER_BELOW or len(word) <= 2):
            add(("##" if inner else "") + word.upper(), i, UPPER)
    return pieces, base, casing
