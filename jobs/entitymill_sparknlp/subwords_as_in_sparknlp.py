"""Split tokens into pieces (subwords) as Spark NLP 5.5.3 does, so that users who migrate from it can get the same tags.

Spark NLP uses only the pieces of a token's first word: "well-known" is tagged as "well". It strips accents even if the model
is cased. By default, it tags nothing after piece 127 of a sentence. This module does not call Spark NLP, but
reimplements its classes DistilBertClassification, BasicTokenizer and WordpieceEncoder; tests/spark_nlp/test_parity.py
compares the tags.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from entitymill.recognition.offsets import utf16_length
from entitymill.recognition.tagger.tokens_to_model_input import (
    BERT_PIECES,
    SPECIAL_PIECES,
    Rows,
    WordCache,
    find_special_id,
    find_truncated_sentences,
)

MAX_WORD = 200
"""Maximum length of a word in UTF-16 code units; a longer word becomes [UNK]."""
_TRIMMED = "".join(map(chr, range(0x21)))  # what java.lang.String.trim removes
_WHITE = frozenset(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f")
_NOT_WHITE = frozenset("\u00a0\u2007\u202f")  # not white space for java.lang.Character.isWhitespace
_COMBINING = re.compile("[\u0300-\u036f]+")
_ASCII_PUNCTUATION = frozenset(map(chr, [*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127)]))
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF))


class SparkNlpRows(WordCache):
    """Converts sentences to input rows of the model as Spark NLP does, for the setting `recognition.encoding: sparknlp`."""

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, lowercase: bool) -> None:
        """Take only the vocabulary, with the ids of special pieces such as [CLS], from a bundle's tokenizer.

        `max_length`, Spark NLP's parameter maxSentenceLength, is the maximum number of pieces (subwords) in an input row,
        including [CLS] and [SEP]. `lowercase` is the opposite of Spark NLP's parameter caseSensitive.
        """
        super().__init__(2)
        self.cls_id, self.sep_id, self.pad_id, self._unknown = (find_special_id(tokenizer, piece) for piece in BERT_PIECES)
        self.max_length = max_length
        self._vocabulary = tokenizer.get_vocab()
        self._lowercase = lowercase

    def make_rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """Return one input row for each sentence; a sentence without pieces (subwords) has no row.

        A row has at most `max_length` pieces, including [CLS] and [SEP]; further pieces of the sentence are cut off. A token
        without pieces, or whose first piece is cut off, gets no tag. There is one exception, as in Spark NLP: if a token
        begins exactly where its sentence is cut off, the scores of [SEP] decide the token's tag.

        `tokens` has the tokens of all sentences; sentence i is tokens[starts[i]:starts[i + 1]]. `begins` has the offset of
        each token in its document, in UTF-16 code units.
        """
        pieces, piece_starts = self._encode_tokens(tokens)
        ids, offsets = pieces[:, 0], pieces[:, 1]
        first, end = piece_starts[starts[:-1]], piece_starts[starts[1:]]
        capacity = self.max_length - SPECIAL_PIECES
        # The first piece that does not fit into the row also gets a tag: Spark NLP gives it the scores of [SEP].
        rank = np.arange(len(ids)) - np.repeat(first, end - first)
        read = rank < capacity + 1
        sentence = np.repeat(np.arange(len(first)), end - first)
        begin = np.repeat(begins, np.diff(piece_starts)) + offsets
        token, starts_token = _match_tokens(sentence, begin, np.repeat(np.arange(len(first)), np.diff(starts)), begins)
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
        """Return, for each token in `words`, the pieces of its first word: each piece's id, and its offset in the word.

        The list of a token without a word is empty.
        """
        first = ("" if word == " " else extract_first_word(word, lowercase=self._lowercase) for word in words)
        return [split_word(word, self._vocabulary, self._unknown) if word else [] for word in first]


def _match_tokens(
    piece_sentences: NDArray[np.int64],
    piece_begins: NDArray[np.int64],
    token_sentences: NDArray[np.int64],
    token_begins: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find, for each piece (subword), the token of the same sentence that begins at the same offset.

    Spark NLP matches pieces to tokens only by offset. Normalization can make a word longer than its token. So an inner piece
    of one token may begin where another token begins. The piece then decides the tag of that other token.

    Args:
        piece_sentences, token_sentences: index of the sentence of each piece and token, shapes [pieces] and [tokens].
        piece_begins, token_begins: where each begins in the document, in UTF-16 code units, same shapes.

    Returns:
        Two arrays of shape [pieces]: the index of each piece's token (arbitrary if the piece has no token), and whether the
            piece has a token.
    """
    if not len(token_begins):
        return np.zeros(len(piece_begins), np.int64), np.zeros(len(piece_begins), np.bool_)
    # The keys are ordered by sentence first, and then by offset.
    size = 1 + int(max(piece_begins.max(initial=0), token_begins.max(initial=0)))
    token_keys, piece_keys = token_sentences * size + token_begins, piece_sentences * size + piece_begins
    match = np.minimum(np.searchsorted(token_keys, piece_keys), len(token_keys) - 1)
    return match, token_keys[match] == piece_keys


def extract_first_word(token: str, *, lowercase: bool) -> str:
    """Return a token's first word, punctuation mark or CJK ideograph, normalized by `_normalize`; "" if there is none."""
    text = token.lower() if lowercase else token
    at = 0
    while at < len(text):
        while at < len(text) and _is_java_whitespace(text[at]) and not _is_punctuation(text[at]):
            at += 1
        end = at
        while end < len(text) and not (
            _is_dropped(text[end]) or _is_separate_word(text[end]) or _is_java_whitespace(text[end])
        ):
            end += 1
        word = _normalize(text[at:end], lowercase=lowercase)
        if not word and end < len(text) and _is_separate_word(text[end]):
            word = _normalize(text[end], lowercase=lowercase)
        if word:
            return word
        at = end + 1
    return ""


def split_word(word: str, vocabulary: dict[str, int], unknown: int) -> list[tuple[int, int]]:
    """Split a word into pieces (subwords), longest match first; return each piece's id and its offset in the word.

    Offsets count UTF-16 code units. `vocabulary` is a dict from pieces to ids. If the word is longer than MAX_WORD, or a
    part of it matches no piece, the whole word becomes one piece [UNK], with the id `unknown`.
    """
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


def _normalize(text: str, *, lowercase: bool) -> str:
    """Remove accents and control characters as Spark NLP's BasicTokenizer does; with `lowercase`, convert to lower case.

    The result is decomposed (Unicode form NFD).
    """
    plain = _COMBINING.sub("", unicodedata.normalize("NFD", text.strip(_TRIMMED)))
    kept = "".join(character for character in plain if not _is_dropped(character))
    return kept.lower() if lowercase else kept


def _is_java_whitespace(character: str) -> bool:
    """Return whether Java's method Character.isWhitespace returns true for a character."""
    if character in _WHITE:
        return True
    return unicodedata.category(character) in ("Zs", "Zl", "Zp") and character not in _NOT_WHITE


def _is_dropped(character: str) -> bool:
    """Return whether a character ends a word and is removed: U+FFFD, or a control character other than tab, LF and CR."""
    control = character not in "\t\n\r" and (ord(character) <= 0x1F or 0x7F <= ord(character) <= 0x9F)
    return control or character in "\0\ufffd"


def _is_separate_word(character: str) -> bool:
    """Return whether a character is always a separate word: punctuation or a CJK ideograph."""
    return _is_punctuation(character) or any(low <= ord(character) <= high for low, high in _CJK)


def _is_punctuation(character: str) -> bool:
    """Return whether Spark NLP treats a character as punctuation, which includes ASCII symbols such as $ and +."""
    # Spark NLP examines UTF-16 code units. For a character above U+FFFF, these are surrogates, which are not punctuation.
    named = ord(character) <= 0xFFFF and "PUNCTUATION" in unicodedata.name(character, "")
    return character in _ASCII_PUNCTUATION or named
