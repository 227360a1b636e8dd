"""Make a cased vocabulary for an uncased encoder without any loss: each piece gets a Title and an UPPER variant.

Pieces are subwords. The embedding of a variant is the embedding of its lower-case piece, plus a vector for its casing. These
vectors are learned in training and added to the table at export. So the encoder starts exactly as it was pre-trained, and
what it learns about capitals applies to every word. The result is a plain cased WordPiece vocabulary, so nothing at run time
depends on this file.
"""

from __future__ import annotations

LOWER, TITLE, UPPER = 0, 1, 2
UPPER_BELOW = 10_000
"""Only pieces with an id below this get an UPPER variant (frequent pieces have low ids); rarer words in capitals split."""


def cased_vocabulary(uncased: list[str]) -> tuple[list[str], list[int], list[int]]:
    """Return the pieces of the cased vocabulary and, for each piece, the id of its uncased form and its casing."""
    pieces, base, casing = list(uncased), list(range(len(uncased))), [LOWER] * len(uncased)
    seen = set(uncased)

    def add_if_new(piece: str, uncased_id: int, case: int) -> None:
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
            add_if_new(word[0].upper() + word[1:], i, TITLE)
        # An inner piece of one letter must have this variant, or a word in mixed case would be unknown.
        if (inner or len(word) > 1) and (i < UPPER_BELOW or len(word) <= 2):
            add_if_new(("##" if inner else "") + word.upper(), i, UPPER)
    return pieces, base, casing
