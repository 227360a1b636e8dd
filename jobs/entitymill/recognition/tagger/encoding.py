"""Split tokens into pieces (subwords in the model's vocabulary), and encode each distinct word only once.

WordPiece encodes each word independently. So encoding the distinct words and looking up their pieces gives the same result
as encoding complete sentences. It is faster, because a text has far fewer distinct words than words.
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

MAX_CACHED_WORDS = 200_000
"""Maximum number of distinct words in a cache (about 50 MB). A cache that would grow larger is cleared first."""
MAX_CACHED_CHARACTERS = 20_000_000
"""Maximum total number of characters of the words in a cache, needed because a word may be as long as its text."""
BERT_PIECES = ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
"""The pieces for begin, end, padding and unknown words in BERT and DistilBERT."""
ROBERTA_PIECES = ("<s>", "</s>", "<pad>", "<unk>")
"""The pieces for begin, end, padding and unknown words in RoBERTa and XLM-RoBERTa."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of a list of tokens.

    ids: int32, shape [pieces]; the piece ids of all tokens, concatenated.
    starts: int64, shape [tokens + 1]; token i has ids[starts[i]:starts[i + 1]], at least one id.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]


class WordCache(ABC):
    """A cache in which each distinct word is encoded only once; a subclass says how words are encoded."""

    def __init__(self, *shape: int) -> None:
        """Create an empty cache; the value of a piece is an array of shape `shape` or, without `shape`, a number."""
        self._shape = shape
        self._clear()

    @abstractmethod
    def _encode(self, words: list[str]) -> Sequence[Sequence[object]]:
        """Return a list for each word, with the values of the word's pieces."""

    def _clear(self) -> None:
        """Remove all words from the cache."""
        self._word_numbers: dict[str, int] = {}
        self._characters = 0
        self._values = np.zeros((0, *self._shape), np.int32)
        self._starts = np.zeros(1, np.int64)

    def _encode_tokens(self, tokens: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the values of all tokens' pieces, and the index at which each token's values start.

        The shapes are [pieces, *shape] and [tokens + 1]. Words that are not in the cache are encoded and added to it.
        """
        new = [word for word in dict.fromkeys(tokens) if word not in self._word_numbers]
        added = sum(map(len, new))
        if len(self._word_numbers) + len(new) > MAX_CACHED_WORDS or self._characters + added > MAX_CACHED_CHARACTERS:
            self._clear()
            new = list(dict.fromkeys(tokens))
            added = sum(map(len, new))
        self._characters += added
        if new:
            self._add_words(new)
        words = np.fromiter((self._word_numbers[token] for token in tokens), np.int64, len(tokens))
        return gather_rows(self._values, self._starts, words)

    def _add_words(self, words: list[str]) -> None:
        """Encode distinct words that are not in the cache, and add them to it."""
        encoded = self._encode(words)
        for word in words:
            self._word_numbers[word] = len(self._word_numbers)
        counts = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._starts = np.concatenate([self._starts, self._starts[-1] + np.cumsum(counts)])
        flat = np.array([piece for pieces in encoded for piece in pieces], np.int32).reshape(-1, *self._shape)
        self._values = np.concatenate([self._values, flat])


class Encoder(WordCache):
    """A cache that encodes tokens with a bundle's tokenizer; the value of a piece is its id."""

    def __init__(self, tokenizer: Tokenizer, max_pieces: int) -> None:
        """Keep a tokenizer, switch off its own truncation and padding, and look up the ids of its special pieces.

        The special pieces are those of RoBERTa if the vocabulary has <s> but not [CLS], otherwise those of BERT.

        Args:
            max_pieces: maximum number of pieces of a token. Further pieces are dropped, since only a token's first piece
                decides its tag.

        Raises:
            ModelError: the vocabulary lacks a special piece.
        """
        self.truncated: set[str] = set()
        """Words in the cache that have more than `max_pieces` pieces."""
        super().__init__()
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._max_pieces = max_pieces
        roberta = tokenizer.token_to_id("[CLS]") is None and tokenizer.token_to_id("<s>") is not None
        special = ROBERTA_PIECES if roberta else BERT_PIECES
        self.cls_id, self.sep_id, self.pad_id, self._unk_id = (find_special_id(tokenizer, piece) for piece in special)

    def encode(self, tokens: Sequence[str]) -> Pieces:
        """Return the pieces of every token, at most `max_pieces` for each.

        A token that is empty after normalization becomes [UNK].
        """
        return Pieces(*self._encode_tokens(tokens))

    def _clear(self) -> None:
        super()._clear()
        self.truncated.clear()

    def _encode(self, words: list[str]) -> list[list[int]]:
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(words, add_special_tokens=False)]
        self.truncated.update(word for word, ids in zip(words, encoded, strict=True) if len(ids) > self._max_pieces)
        return [ids[: self._max_pieces] or [self._unk_id] for ids in encoded]


def gather_rows(
    values: NDArray[np.int32], starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return (values, starts) of the selected `rows` of a ragged array, whose row i is values[starts[i]:starts[i + 1]]."""
    counts = starts[rows + 1] - starts[rows]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    shift = np.repeat(starts[rows] - ends[:-1], counts)
    return values[np.arange(ends[-1]) + shift], ends


def find_special_id(tokenizer: Tokenizer, piece: str) -> int:
    """Return the id of a special piece, such as [CLS].

    Raises:
        ModelError: the vocabulary does not contain the piece.
    """
    number = tokenizer.token_to_id(piece)
    if number is None:
        raise ModelError(f"The model's vocabulary has no {piece}; only the vocabularies of BERT and RoBERTa are supported.")
    return int(number)


def build_wordpiece_tokenizer(vocabulary: Path, *, lowercase: bool) -> Tokenizer:
    """Build a tokenizer from a vocab.txt, for a bundle without tokenizer.json: BERT's normalization and WordPiece."""
    pieces = vocabulary.read_text(encoding="utf8").rstrip("\n").split("\n")
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
