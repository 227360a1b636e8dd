"""The encoding of Spark NLP 5.5.3's DistilBertForTokenClassification, for proof and for migration.

It keeps the pieces of a token's first word only ("well-known" is tagged as "well"), strips accents even where the model is
cased, and tags nothing behind piece 127 of a sentence. Written from the behaviour of DistilBertClassification,
BasicTokenizer and WordpieceEncoder, which it reproduces tag for tag (tests/integration/test_parity.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from entitymill.recognition.offsets import utf16_length
from entitymill.recognition.tagger.encoding import BERT_PIECES, WordCache, find_special_id
from entitymill.recognition.tagger.model_rows import SPECIAL_PIECES, Rows, find_truncated_sentences

MAX_WORD = 200
"""UTF-16 units; a longer word is [UNK]."""
_TRIMMED = "".join(map(chr, range(0x21)))  # what java.lang.String.trim takes off
_WHITE = frozenset(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f")
_NOT_WHITE = frozenset("\u00a0\u2007\u202f")  # separators that java.lang.Character.isWhitespace leaves out
_COMBINING = re.compile("[\u0300-\u036f]+")
_ASCII_PUNCTUATION = frozenset(map(chr, [*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127)]))
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF))


class SparkNlpRows(WordCache):
    """See the module."""

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, lowercase: bool) -> None:
        """`max_length` is the saved model's maxSentenceLength, `lowercase` the opposite of its caseSensitive."""
        super().__init__(2)
        self.cls_id, self.sep_id, self.pad_id, self._unknown = (find_special_id(tokenizer, piece) for piece in BERT_PIECES)
        self.max_length = max_length
        self._vocabulary = tokenizer.get_vocab()
        self._lowercase = lowercase

    def make_rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """See `rows.RowMaker`; a sentence that nothing is left of has no row."""
        pieces, piece_starts = self._encode_tokens(tokens)
        ids, offsets = pieces[:, 0], pieces[:, 1]
        first, end = piece_starts[starts[:-1]], piece_starts[starts[1:]]
        capacity = self.max_length - SPECIAL_PIECES
        # One piece more than goes in is read off: Spark NLP gives it the scores at [SEP].
        rank = np.arange(len(ids)) - np.repeat(first, end - first)
        read = rank < capacity + 1
        sentence = np.repeat(np.arange(len(first)), end - first)
        begin = np.repeat(begins, np.diff(piece_starts)) + offsets
        token, starts_token = _token_at(sentence, begin, np.repeat(np.arange(len(first)), np.diff(starts)), begins)
        chosen = np.flatnonzero(read & starts_token)
        filled = np.flatnonzero(end > first)
        tagged = np.searchsorted(sentence[chosen], filled, side="left")
        return Rows(
            ids,
            first[filled],
            np.minimum(end, first + capacity)[filled],
            token[chosen],
            rank[chosen] + 1,
            np.append(tagged, len(chosen)),
            find_truncated_sentences(token[chosen], starts),
        )

    def _encode(self, words: list[str]) -> list[list[tuple[int, int]]]:
        """(id, begin in its token in UTF-16 units) of each piece."""
        first = ("" if word == " " else first_word(word, lowercase=self._lowercase) for word in words)
        return [wordpieces(word, self._vocabulary, self._unknown) if word else [] for word in first]


def _token_at(
    sentence: NDArray[np.int64], begin: NDArray[np.int64], of: NDArray[np.int64], begins: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each piece the token of its sentence that starts where the piece does, and whether there is one.

    Spark NLP matches pieces to tokens by offset alone, and normalization can make a word longer than its token, so that an
    inner piece may fall on the start of another token and tag it.
    """
    reach = 1 + int(max(begin.max(initial=0), begins.max(initial=0)))
    keys, wanted = of * reach + begins, sentence * reach + begin
    found = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
    return found, keys[found] == wanted if len(keys) else np.zeros(len(wanted), np.bool_)


def first_word(token: str, *, lowercase: bool) -> str:
    """What Spark NLP's BasicTokenizer makes of a token's beginning: its first word or punctuation mark, normalized."""
    text = token.lower() if lowercase else token
    at = 0
    while at < len(text):
        while at < len(text) and _white(text[at]) and not _punctuation(text[at]):
            at += 1
        end = at
        while end < len(text) and not (_dropped(text[end]) or _alone(text[end]) or _white(text[end])):
            end += 1
        word = _normalized(text[at:end], lowercase=lowercase)
        if not word and end < len(text) and _alone(text[end]):
            word = _normalized(text[end], lowercase=lowercase)
        if word:
            return word
        at = end + 1
    return ""


def wordpieces(word: str, vocabulary: dict[str, int], unknown: int) -> list[tuple[int, int]]:
    """(id, begin in UTF-16 units) of a word's pieces, longest match first; one unknown piece if any part matches none."""
    if utf16_length(word) > MAX_WORD:
        return [(unknown, 0)]
    pieces = []
    begin = 0
    while begin < len(word):
        prefix = "##" if begin else ""
        for end in range(len(word), begin, -1):
            piece = vocabulary.get(prefix + word[begin:end])
            if piece is not None:
                break
        else:
            return [(unknown, 0)]
        pieces.append((piece, utf16_length(word[:begin])))
        begin = end
    return pieces


def _normalized(text: str, *, lowercase: bool) -> str:
    plain = _COMBINING.sub("", unicodedata.normalize("NFD", text.strip(_TRIMMED)))
    kept = "".join(character for character in plain if not _dropped(character))
    return kept.lower() if lowercase else kept


def _white(character: str) -> bool:
    if character in _WHITE:
        return True
    return unicodedata.category(character) in ("Zs", "Zl", "Zp") and character not in _NOT_WHITE


def _dropped(character: str) -> bool:
    control = character not in "\t\n\r" and (ord(character) <= 0x1F or 0x7F <= ord(character) <= 0x9F)
    return control or character in "\0\ufffd"


def _alone(character: str) -> bool:
    """Whether a character is a word of its own."""
    return _punctuation(character) or any(low <= ord(character) <= high for low, high in _CJK)


def _punctuation(character: str) -> bool:
    # Spark NLP looks at UTF-16 units: beyond the first plane it sees surrogates, which are no punctuation.
    named = ord(character) <= 0xFFFF and "PUNCTUATION" in unicodedata.name(character, "")
    return character in _ASCII_PUNCTUATION or named
