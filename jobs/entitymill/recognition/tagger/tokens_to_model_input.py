"""Split tokens into pieces, put them into rows for the model, and determine which piece decides the tag of each token.

Pieces are subwords in the model's vocabulary. The network predicts the tag of every piece; its prediction for one piece of a
token decides the token's tag. A sentence becomes one row. A sentence longer than the model's limit becomes several
overlapping windows, each of which is one row. Afterwards, `sequence_packing` puts several of these rows into one input row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from entitymill.errors import ModelError

MAX_CACHED_WORDS = 200_000
"""Maximum number of distinct words in a cache (about 50 MB). A cache that would grow larger is cleared first."""
MAX_CACHED_CHARACTERS = 20_000_000
"""Maximum total number of characters of the words in a cache, needed because a word may be as long as its text."""
# The pieces for begin, end, padding and unknown words: of BERT and DistilBERT, and of RoBERTa and XLM-RoBERTa.
BERT_PIECES = ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
ROBERTA_PIECES = ("<s>", "</s>", "<pad>", "<unk>")
SPECIAL_PIECES = 2
"""Number of special pieces in a row: [CLS] before the other pieces, and [SEP] after them."""
CONTEXT_SHARE = 8
"""A window (part of a long sentence) decides only the tags of tokens with enough context on either side: about
1/CONTEXT_SHARE of the window's pieces. No context is needed on a side where the sentence begins or ends."""


@dataclass(frozen=True)
class Pieces:
    """The pieces (subwords) of a list of tokens.

    ids: int32, shape [pieces]; the piece ids of all tokens, concatenated.
    starts: int64, shape [tokens + 1]; token i has ids[starts[i]:starts[i + 1]], at least one id.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]


class WordCache(ABC):
    """A cache of the encoded form of words, such as the ids of their pieces; a subclass says how a word is encoded.

    A word is the text of a token. Its encoded form is the same in every sentence, so it is computed only for words that are
    not in the cache. This is faster than encoding sentences, because texts have far fewer distinct words than tokens.
    """

    def __init__(self, *shape: int) -> None:
        """Create an empty cache. It stores an array of shape `shape` for every piece, or one number if `shape` is empty."""
        self._shape = shape
        self._clear()

    @abstractmethod
    def _encode(self, words: list[str]) -> Sequence[Sequence[object]]:
        """Return, for each word, a list of the values to store, one for each of its pieces; abstract, for subclasses."""

    def _clear(self) -> None:
        """Remove all words from the cache."""
        self._word_numbers: dict[str, int] = {}
        self._characters = 0
        self._values = np.zeros((0, *self._shape), np.int32)
        self._starts = np.zeros(1, np.int64)

    def _encode_tokens(self, tokens: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the stored values of all tokens' pieces, concatenated, and the index at which each token's values start.

        Shapes: [pieces, *shape] and [tokens + 1]. Add new words to the cache; clear it first if it would become too large.
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
        """Encode words that are distinct and not in the cache, and add the words to the cache."""
        encoded = self._encode(words)
        for word in words:
            self._word_numbers[word] = len(self._word_numbers)
        counts = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._starts = np.concatenate([self._starts, self._starts[-1] + np.cumsum(counts)])
        flat = np.array([piece for pieces in encoded for piece in pieces], np.int32).reshape(-1, *self._shape)
        self._values = np.concatenate([self._values, flat])


class Encoder(WordCache):
    """A cache that encodes tokens with a bundle's tokenizer; it stores the id of each piece."""

    def __init__(self, tokenizer: Tokenizer, max_pieces: int) -> None:
        """Create an encoder for a tokenizer, and switch off the tokenizer's truncation and padding.

        The special pieces are ROBERTA_PIECES if the tokenizer's vocabulary has <s> but not [CLS], and BERT_PIECES if not.
        Raise a ModelError if the vocabulary lacks one of them. `encode` keeps only the first `max_pieces` pieces of a token.
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
        """Return at most `max_pieces` pieces for each token; [UNK] for a token of which normalization leaves nothing."""
        return Pieces(*self._encode_tokens(tokens))

    def _clear(self) -> None:
        """Remove all words from the cache."""
        super()._clear()
        self.truncated.clear()

    def _encode(self, words: list[str]) -> list[list[int]]:
        """Return the ids of each word's first `max_pieces` pieces, or of [UNK]; add longer words to `truncated`."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(words, add_special_tokens=False)]
        self.truncated.update(word for word, ids in zip(words, encoded, strict=True) if len(ids) > self._max_pieces)
        return [ids[: self._max_pieces] or [self._unk_id] for ids in encoded]


def gather_rows(
    values: NDArray[np.int32], starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return `rows` of a ragged array as a new one (values and starts); row i of each is values[starts[i]:starts[i + 1]]."""
    counts = starts[rows + 1] - starts[rows]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    shift = np.repeat(starts[rows] - ends[:-1], counts)
    return values[np.arange(ends[-1]) + shift], ends


def find_special_id(tokenizer: Tokenizer, piece: str) -> int:
    """Return the id of a special piece, such as [CLS]; raise a ModelError if the vocabulary does not contain it."""
    number = tokenizer.token_to_id(piece)
    if number is None:
        raise ModelError(f"The model's vocabulary has no {piece}, so it is not of BERT or RoBERTa: use another model.")
    return int(number)


def build_wordpiece_tokenizer(vocabulary: Path, *, lowercase: bool) -> Tokenizer:
    """Return BERT's tokenizer (normalization and WordPiece) for a vocab.txt, for a bundle that has no tokenizer.json."""
    pieces = vocabulary.read_text(encoding="utf8").rstrip("\n").split("\n")
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@dataclass(frozen=True)
class Rows:
    """Rows for the model; each has the pieces (subwords) of a sentence, or of one window of a long sentence.

    ids: int32, shape [pieces]; the piece ids of all sentences, without [CLS] and [SEP], which the tagger adds later.
    begin, end: int64, shape [rows]; row r contains the pieces ids[begin[r]:end[r]].
    tokens: int64, shape [tagged]; the tokens that get a tag, row by row, as indices into `tokens` of `RowMaker.make_rows`.
    positions: int64, shape [tagged]; position in the row (0 is [CLS]) of the piece that decides the token's tag.
    starts: int64, shape [rows + 1]; row r decides the tags of tokens[starts[r]:starts[r + 1]].
    split: indices of the sentences longer than the model's limit; encoding sparknlp truncates these sentences.
    """

    ids: NDArray[np.int32]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    split: NDArray[np.int64]


class RowMaker(Protocol):
    """The interface of the classes that turn sentences into rows for the model; `recognition.encoding` selects the class.

    cls_id, sep_id, pad_id: piece ids of [CLS], [SEP] and [PAD].
    max_length: maximum number of pieces in a row, including [CLS] and [SEP].
    """

    cls_id: int
    sep_id: int
    pad_id: int
    max_length: int

    def make_rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """Return the rows of sentences (interface only); depending on the class, a sentence has one or more rows, or none.

        Args:
            tokens: the tokens of all sentences, concatenated.
            starts: where the tokens of each sentence start, shape [sentences + 1]; no sentence may be empty.
            begins: offset of each token in its document, in UTF-16 code units, shape [tokens].
        """


class CompleteRows:
    """A `RowMaker` for `recognition.encoding: complete`, which splits a long sentence into several overlapping rows.

    Every token (word) gets a tag. If one token has more pieces (subwords) than fit in a row, its last pieces are dropped.
    """

    def __init__(self, encoder: Encoder, max_length: int) -> None:
        """Set the size of a row in pieces; `encoder` must return at most `max_length - SPECIAL_PIECES` pieces of a token."""
        self._encoder = encoder
        self.max_length = max_length
        self.cls_id, self.sep_id, self.pad_id = encoder.cls_id, encoder.sep_id, encoder.pad_id

    def make_rows(self, tokens: Sequence[str], starts: NDArray[np.int64], begins: NDArray[np.int64]) -> Rows:
        """Return the rows of sentences (as `RowMaker.make_rows`); a token's first piece decides its tag. Ignore `begins`."""
        del begins
        pieces = self._encoder.encode(tokens)
        windows = plan_windows(pieces.starts, starts, self.max_length - SPECIAL_PIECES)
        begin = pieces.starts[windows.begin]
        tagged = np.concatenate([windows.own_begin, windows.own_end[-1:]])
        positions = pieces.starts[:-1] - np.repeat(begin, np.diff(tagged)) + 1
        all_tokens = np.arange(len(tokens))
        split = np.union1d(windows.split_sentences, self._find_sentences_with_cut_words(tokens, starts, pieces.starts))
        return Rows(pieces.ids, begin, pieces.starts[windows.end], all_tokens, positions, tagged, split)

    def _find_sentences_with_cut_words(
        self, tokens: Sequence[str], starts: NDArray[np.int64], piece_starts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the index of the sentence of each token with more pieces than fit in a row; an index may be repeated."""
        full = np.flatnonzero(np.diff(piece_starts) >= self.max_length - SPECIAL_PIECES)
        cut = [token for token in full.tolist() if tokens[token] in self._encoder.truncated]
        return np.searchsorted(starts, np.array(cut, np.int64), side="right") - 1


def find_truncated_sentences(tagged: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the truncated sentences: their last token is not in `tagged`, the indices of the tagged tokens.

    `starts` says where the tokens of each sentence start, shape [sentences + 1]; no sentence may be empty.
    """
    has_tag = np.zeros(int(starts[-1]), np.bool_)
    has_tag[tagged] = True
    return np.flatnonzero(~has_tag[starts[1:] - 1])


@dataclass(frozen=True)
class Windows:
    """Rows for the model, each of which has consecutive tokens of one sentence; int64 arrays of shape [rows].

    begin: index, across all sentences, of the row's first token.
    end: index, across all sentences, of the token after the row's last token.
    own_begin, own_end: index of the first token whose tag this row decides, and of the token after the last such token.
        The rows of a sentence overlap, but exactly one row decides the tag of each token.
    split_sentences: shape [sentences with more than one row]; indices of these sentences.
    """

    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    own_begin: NDArray[np.int64]
    own_end: NDArray[np.int64]
    split_sentences: NDArray[np.int64]


def plan_windows(piece_starts: NDArray[np.int64], sentence_starts: NDArray[np.int64], capacity: int) -> Windows:
    """Return rows of at most `capacity` pieces (subwords) for sentences; a longer sentence gets several overlapping rows.

    Args:
        piece_starts: where the pieces of each token start, shape [tokens + 1]; a token must have at most `capacity` pieces.
        sentence_starts: where the tokens of each sentence start, shape [sentences + 1]; no sentence may be empty.
        capacity: maximum number of pieces in a row, without special pieces.
    """
    begin, end = sentence_starts[:-1], sentence_starts[1:]
    long = np.flatnonzero(piece_starts[end] - piece_starts[begin] > capacity)
    if not len(long):
        return Windows(begin, end, begin, end, long)
    rows = np.stack([begin, end, begin, end], axis=1)
    keep = np.delete(rows, long, axis=0)
    cut = [_plan_sentence_windows(piece_starts, int(begin[i]), int(end[i]), capacity) for i in long]
    merged = np.concatenate([keep, *cut])
    merged = merged[np.argsort(merged[:, 2], kind="stable")]
    return Windows(merged[:, 0], merged[:, 1], merged[:, 2], merged[:, 3], long)


def _plan_sentence_windows(
    piece_starts: NDArray[np.int64], sentence_begin: int, sentence_end: int, capacity: int
) -> NDArray[np.int64]:
    """Return the rows of one long sentence: overlapping windows, each with as many tokens as fit into `capacity` pieces.

    An overlap has about `capacity` / 4 pieces; the last may be larger. Columns: begin, end, own_begin, own_end of `Windows`.
    """
    context = capacity // CONTEXT_SHARE
    spans: list[tuple[int, int]] = []
    start = sentence_begin
    while True:
        end = int(np.searchsorted(piece_starts, piece_starts[start] + capacity, side="right")) - 1
        if end >= sentence_end:
            # The last window starts as early as possible, so that it is also full.
            start = int(np.searchsorted(piece_starts, piece_starts[sentence_end] - capacity, side="left"))
            spans.append((max(start, sentence_begin), sentence_end))
            break
        spans.append((start, end))
        overlap = int(np.searchsorted(piece_starts, piece_starts[end] - 2 * context, side="left"))
        start = min(max(overlap, start + 1), end)
    # The first half of an overlap belongs to the first window, so tokens in its middle have equal context in both windows.
    middles = [(second_begin + first_end) // 2 for (_, first_end), (second_begin, _) in pairwise(spans)]
    edges = [sentence_begin, *middles, sentence_end]
    return np.array([(a, b, edges[i], edges[i + 1]) for i, (a, b) in enumerate(spans)], np.int64)
