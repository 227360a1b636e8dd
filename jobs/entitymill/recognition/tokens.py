"""Split sentences into tokens as Spark NLP 5.5.3's Tokenizer does with its default rules.

A word ends at ASCII white space or at `offsets.NUMERIC_SEPARATOR`. All punctuation (one of .,;:!?*-()"') at the beginning
of a word is one token, and so is all punctuation at its end. A word of only punctuation is one token. White space outside
ASCII does not end a word. But unless `recognition.encoding` is sparknlp, the recognizer replaces such white space with
blanks before it calls this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitymill.recognition.offsets import AFFIX, GRAPHIC, SPACE, Texts


@dataclass(frozen=True)
class Segments:
    """The sentences and tokens of several texts, in order.

    A position is an index into the concatenation of all texts, in UTF-16 code units.

    token_begin, token_end: int64, shape [tokens]; positions where each token begins and ends (exclusive).
    sentence_of: int64, shape [tokens]; index of each token's sentence.
    sentence_begin, sentence_end: int64, shape [sentences]; where a sentence's first token begins, and its last token ends.
    sentence_starts: int64, shape [texts + 1]; text t has sentences sentence_starts[t]..sentence_starts[t + 1] - 1.
    """

    token_begin: NDArray[np.int64]
    token_end: NDArray[np.int64]
    sentence_of: NDArray[np.int64]
    sentence_begin: NDArray[np.int64]
    sentence_end: NDArray[np.int64]
    sentence_starts: NDArray[np.int64]

    @property
    def sentence_tokens(self) -> NDArray[np.int64]:
        """Return the number of tokens of each sentence, shape [sentences]; each number is at least 1."""
        return np.bincount(self.sentence_of, minlength=len(self.sentence_begin))


def tokenize(texts: Texts, begins: NDArray[np.int64]) -> Segments:
    """Return the sentences and tokens of texts, given the positions that a sentence detector has found.

    A position is an index into the concatenation of all texts, in UTF-16 code units. Sentences without a token are omitted.
    So are sentences of only control characters, unless the sentence is a complete text of at least two code units.

    Args:
        begins: positions where sentences begin or end. The beginnings of texts may be missing: a sentence also begins there.
    """
    breaks = np.union1d(texts.edges[:-1], begins)
    begin, end = _find_words(texts, breaks)
    begin, end = _split_off_affixes(texts, begin, end)
    sentence = np.searchsorted(breaks, begin, side="right") - 1
    classes = texts.classes
    if (((classes & SPACE) == 0) & ((classes & GRAPHIC) == 0)).any():
        begin, end, sentence = _drop_invisible_sentences(texts, breaks, begin, end, sentence)
    return group_by_sentence(texts, begin, end, sentence)


def group_by_sentence(
    texts: Texts, begin: NDArray[np.int64], end: NDArray[np.int64], sentence: NDArray[np.int64]
) -> Segments:
    """Build `Segments` from the positions of tokens, and the number of each token's sentence.

    A position is an index into the concatenation of all texts, in UTF-16 code units.

    Args:
        begin: position where each token begins, ascending, shape [tokens].
        end: position where each token ends (exclusive), shape [tokens].
        sentence: for each token, a number that differs between adjacent sentences, shape [tokens].
    """
    new = np.ones(len(sentence), np.bool_)
    new[1:] = sentence[1:] != sentence[:-1]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(sentence)) - 1 if len(first) else first
    starts = np.searchsorted(begin[first], texts.edges)
    return Segments(begin, end, np.cumsum(new) - 1, begin[first], end[last], starts)


def _find_words(texts: Texts, breaks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return two arrays: the positions where each word begins, and where each word ends (exclusive), shape [words].

    A word is a sequence of characters without white space. A word also ends at each position in `breaks`, where sentences
    begin or end.
    """
    solid = (texts.classes & SPACE) == 0
    size = len(solid)
    before, after = np.zeros(size + 1, np.bool_), np.zeros(size + 1, np.bool_)
    before[1:] = solid
    before[breaks] = False
    after[:-1] = solid
    after[breaks] = False
    return np.flatnonzero(solid & ~before[:-1]), np.flatnonzero(solid & ~after[1:]) + 1


def _split_off_affixes(
    texts: Texts, begin: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split punctuation off both ends of words, and return the positions where each token begins and ends (exclusive).

    `begin` and `end` are the positions where each word begins and ends (exclusive), shape [words].
    """
    affix = (texts.classes & AFFIX) != 0
    affected = np.flatnonzero(affix[begin] | affix[end - 1])
    if not len(affected):
        return begin, end
    size = len(affix)
    cores = np.flatnonzero(((texts.classes & SPACE) == 0) & ~affix)
    padded = np.concatenate([[-1], cores, [size]])
    inner = padded[np.searchsorted(cores, begin[affected]) + 1]
    outer = padded[np.searchsorted(cores, end[affected])] + 1
    has_core = inner < end[affected]
    inner, outer = inner[has_core], outer[has_core]
    left, right = begin[affected][has_core], end[affected][has_core]
    starts, stops = np.zeros(size + 1, np.bool_), np.zeros(size + 1, np.bool_)
    starts[begin] = True
    starts[inner] = True
    starts[outer[outer < right]] = True
    stops[end] = True
    stops[outer] = True
    stops[inner[inner > left]] = True
    return np.flatnonzero(starts), np.flatnonzero(stops)


def _drop_invisible_sentences(
    texts: Texts, breaks: NDArray[np.int64], begin: NDArray[np.int64], end: NDArray[np.int64], sentence: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return `begin`, `end` and `sentence` without the tokens of sentences that consist only of control characters.

    Like Spark NLP, keep these tokens if the sentence is a complete text of at least two UTF-16 code units.

    Args:
        breaks: positions where sentences begin or end, ascending.
        begin, end: position where each token begins and ends (exclusive), shape [tokens].
        sentence: index in `breaks` of the last position at or before each token; it identifies the sentence. Shape [tokens].
    """
    # Spark NLP drops a sentence if Java's String.trim leaves nothing of it. But if SentenceDetectorDLModel finds no sentence
    # in a text of two or more code units, Spark NLP treats the text as one sentence.
    edges = texts.edges
    graphic = np.concatenate([[0], np.cumsum((texts.classes & GRAPHIC) != 0)])
    stops = np.append(breaks[1:], len(texts.classes))
    row = np.minimum(texts.find_texts(breaks), len(texts) - 1)
    is_text = (breaks == edges[row]) & (stops == edges[row + 1]) & (stops - breaks > 1)
    keep = ((graphic[stops] > graphic[breaks]) | is_text)[sentence]
    return begin[keep], end[keep], sentence[keep]
