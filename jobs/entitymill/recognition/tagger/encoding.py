"""Tokens to pieces: each distinct word is encoded once, then gathered.

WordPiece looks at one word at a time, so encoding the distinct words and gathering gives exactly what encoding the
sentence gives, at the cost of the vocabulary of the text and not of its length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from entitymill.errors import ModelError

CACHED_WORDS = 200_000
"""Distinct words kept by one worker, some 50 MB; past it the cache starts anew."""
CACHED_CHARACTERS = 20_000_000
"""The same of their characters, since a word may be as long as its text."""
BERT_PIECES = ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
"""What BERT and DistilBERT call begin, end, padding and unknown."""
ROBERTA_PIECES = ("<s>", "</s>", "<pad>", "<unk>")
"""The same of RoBERTa and XLM-RoBERTa."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of a list of tokens.

    ids: [pieces] int32, the piece ids of all tokens, one after the other.
    starts: [tokens + 1] int64; token i has ids[starts[i]:starts[i + 1]], at least one.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]


class WordCache(ABC):
    """Distinct words, each encoded once."""

    def __init__(self, *shape: int) -> None:
        """`shape` is that of what one piece of a word becomes; () is a number."""
        self._shape = shape
        self._forget()

    @abstractmethod
    def _encode(self, words: list[str]) -> Sequence[Sequence[object]]:
        """The pieces of each word."""

    def _forget(self) -> None:
        self._known: dict[str, int] = {}
        self._characters = 0
        self._values = np.zeros((0, *self._shape), np.int32)
        self._starts = np.zeros(1, np.int64)

    def _gathered(self, tokens: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The pieces of all tokens, [pieces, *shape], and where each token's start, [tokens + 1]."""
        new = [word for word in dict.fromkeys(tokens) if word not in self._known]
        longer = sum(map(len, new))
        if len(self._known) + len(new) > CACHED_WORDS or self._characters + longer > CACHED_CHARACTERS:
            self._forget()
            new = list(dict.fromkeys(tokens))
            longer = sum(map(len, new))
        self._characters += longer
        if new:
            self._learn(new)
        words = np.fromiter((self._known[token] for token in tokens), np.int64, len(tokens))
        return gather(self._values, self._starts, words)

    def _learn(self, words: list[str]) -> None:
        encoded = self._encode(words)
        for word in words:
            self._known[word] = len(self._known)
        counts = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._starts = np.concatenate([self._starts, self._starts[-1] + np.cumsum(counts)])
        flat = np.array([piece for pieces in encoded for piece in pieces], np.int32).reshape(-1, *self._shape)
        self._values = np.concatenate([self._values, flat])


class Encoder(WordCache):
    """Encodes tokens with a bundle's tokenizer."""

    def __init__(self, tokenizer: Tokenizer, max_pieces: int) -> None:
        """A token of more than `max_pieces` pieces keeps its first ones: its tag is read off the first."""
        super().__init__()
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._max_pieces = max_pieces
        roberta = tokenizer.token_to_id("[CLS]") is None and tokenizer.token_to_id("<s>") is not None
        special = ROBERTA_PIECES if roberta else BERT_PIECES
        self.cls_id, self.sep_id, self.pad_id, self._unk_id = (special_id(tokenizer, piece) for piece in special)

    def encode(self, tokens: Sequence[str]) -> Pieces:
        """Pieces of every token; one that the model's normalization leaves nothing of becomes [UNK]."""
        return Pieces(*self._gathered(tokens))

    def _encode(self, words: list[str]) -> list[list[int]]:
        return [
            encoding.ids[: self._max_pieces] or [self._unk_id]
            for encoding in self._tokenizer.encode_batch(words, add_special_tokens=False)
        ]


def gather(
    values: NDArray[np.int32], starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows of a ragged array, as a ragged array: row i is values[starts[i]:starts[i + 1]]."""
    counts = starts[rows + 1] - starts[rows]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    shift = np.repeat(starts[rows] - ends[:-1], counts)
    return values[np.arange(ends[-1]) + shift], ends


def special_id(tokenizer: Tokenizer, piece: str) -> int:
    """Id of a special piece.

    Raises:
        ModelError: the vocabulary has none.
    """
    found = tokenizer.token_to_id(piece)
    if found is None:
        raise ModelError(f"The model's vocabulary has no {piece}: it is not one of BERT's kinds, nor of RoBERTa's.")
    return int(found)


def wordpiece_tokenizer(vocabulary: Path, *, lowercase: bool) -> Tokenizer:
    """The tokenizer that a bare vocab.txt means: BERT's normalization and WordPiece."""
    pieces = vocabulary.read_text(encoding="utf8").rstrip("\n").split("\n")
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
