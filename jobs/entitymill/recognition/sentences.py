"""Find sentences with a saved SentenceDetectorDLModel, with Spark NLP's rules, or with the package sentencex.

Spark NLP itself is not needed: its SentenceDetectorDLModel and its rules are re-implemented in this package.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import sentencex
from numpy.typing import NDArray

from entitymill.errors import ModelError, is_rust_panic
from entitymill.recognition import sentences_dl_saved, sentences_rules
from entitymill.recognition.offsets import Texts
from entitymill.recognition.sentences_dl import DeepDetector
from entitymill.recognition.sentences_rules import RuleDetector

DetectorKind = Literal["dl", "rules", "sentencex"]
"""Kinds of sentence detectors. dl: a saved SentenceDetectorDLModel of Spark NLP. rules: the rules of Spark NLP's
SentenceDetector. sentencex: the package sentencex."""
LANGUAGE = "en"
_PASSAGE_CHARACTERS = 2000
"""Maximum number of characters in a passage, the part of a text that sentencex gets at once. The time that sentencex takes
grows with the square of the number of quotation marks in a passage."""
_CONTEXT_CHARACTERS = 500
"""Maximum number of characters by which a passage overlaps the previous one, if that one ends in a long sentence."""


def choose_detector_kind(kind: DetectorKind | None, model: object) -> DetectorKind:
    """Return the kind of sentence detector to use: `kind` or, if it is None, a default that depends on `model`.

    `model` is the path of a saved SentenceDetectorDLModel, or None. The default is dl if `model` is set, and sentencex if
    `model` is None.
    """
    return kind if kind is not None else ("sentencex" if model is None else "dl")


class Detector(Protocol):
    """The interface of a sentence detector."""

    def find_breaks(self, texts: Texts) -> NDArray[np.int64]:
        """Return the positions at which sentences begin or end: int64, sorted, shape [breaks].

        A position is an index into the concatenation of all texts, in UTF-16 code units. A detector may return
        only the beginnings or only the ends, and may omit the beginnings and ends of texts. A position may be repeated.
        """


class SentencexDetector:
    """A sentence detector that uses the English rules of the package sentencex, which is written in Rust.

    sentencex panics (crashes) on some white-space characters outside ASCII, such as a no-break space before an initial. So
    all white space outside ASCII is replaced with blanks. If sentencex still panics on a text, the sentences of that text
    are found with Spark NLP's rules.
    """

    def find_breaks(self, texts: Texts) -> NDArray[np.int64]:
        """Return the positions where sentences begin (see `Detector.find_breaks`)."""
        edges = texts.to_code_points(texts.edges).tolist()
        text = texts.replace_wide_blanks().text
        begins = [first + begin for first, last in itertools.pairwise(edges) for begin in _find_begins(text[first:last])]
        return texts.to_positions(np.array(begins, np.int64))


def _find_begins(text: str) -> list[int]:
    """Return the offsets, in code points, at which sentencex begins sentences in a text.

    If sentencex panics (crashes), return the offsets at which Spark NLP's rules begin and end sentences.
    """
    try:
        return list(_find_begins_by_passage(text))
    except BaseException as error:
        if not is_rust_panic(error):
            raise
        return [edge for span in sentences_rules.find_sentences(text) for edge in span]


def _find_begins_by_passage(text: str) -> Iterator[int]:
    """Yield the offsets, in code points, at which sentences begin; `text` is passed to sentencex in parts, called passages.

    A passage may end inside its last sentence. If that sentence begins in the second half of the passage, the next passage
    begins with the same sentence. Otherwise, the next passage begins a few words before this passage's end, so that
    sentencex sees whether the long sentence ends exactly there.
    """
    at, searched = 0, 0  # the next passage begins at `at`; all sentences that begin before `searched` are found
    while searched < len(text):
        end = _find_passage_end(text, at)
        boundaries = sentencex.get_sentence_boundaries(LANGUAGE, text[at:end])
        begins = [begin for sentence in boundaries if (begin := at + sentence["start_index"]) >= searched]
        repeats_last = end < len(text) and bool(begins) and begins[-1] > at + _PASSAGE_CHARACTERS // 2
        if repeats_last:
            yield from begins[:-1]
            at = searched = begins[-1]
        else:
            yield from begins
            at, searched = _find_last_blank(text, end - _CONTEXT_CHARACTERS, end - _CONTEXT_CHARACTERS // 2), end


def _find_passage_end(text: str, at: int) -> int:
    """Return the offset at which the passage that begins at the offset `at` ends.

    A passage has at most _PASSAGE_CHARACTERS characters. The last passage ends with the text. Every other passage ends at
    the last blank in its second half, if there is one.
    """
    end = at + _PASSAGE_CHARACTERS
    return len(text) if end >= len(text) else _find_last_blank(text, at + _PASSAGE_CHARACTERS // 2, end)


def _find_last_blank(text: str, begin: int, end: int) -> int:
    """Return the offset of the last blank in text[begin:end], or `end` if it has none."""
    blank = text.rfind(" ", begin, end)
    return end if blank < 0 else blank


def open_detector(kind: DetectorKind, files: dict[str, Path], where: str = "") -> Detector:
    """Return a sentence detector of the given kind; only the kind dl reads files.

    Args:
        files: for the kind dl, a dict from METADATA and NETWORK (constants of `sentences_dl_saved`) to the local paths of a
            saved SentenceDetectorDLModel's two files, as `find_detector_files` returns it. Ignored for rules and sentencex.
        where: path or URI of the saved model's directory, for error messages.

    Raises:
        ModelError: the kind is dl, and the saved model is missing, damaged, or not a supported SentenceDetectorDLModel.
    """
    if kind == "rules":
        return RuleDetector()
    if kind == "sentencex":
        return SentencexDetector()
    return DeepDetector(
        sentences_dl_saved.read_detector(files[sentences_dl_saved.METADATA], files[sentences_dl_saved.NETWORK], where)
    )


def find_detector_files(directory: Path) -> dict[str, Path]:
    """Return the local paths of a saved SentenceDetectorDLModel's two files, for the argument `files` of `open_detector`.

    Raise a ModelError if `directory` lacks one of the two, or has several files metadata/part-*. The files are not read.
    """
    parts = sorted((directory / sentences_dl_saved.METADATA).glob("part-*"))
    network = directory / sentences_dl_saved.NETWORK
    if len(parts) != 1 or not network.is_file():
        raise ModelError(
            f"{directory} is not a saved SentenceDetectorDLModel: specify the directory of such a model "
            "(detector_model=… or --detector-model …), or use the detector `sentencex`, which needs no model."
        )
    return {sentences_dl_saved.METADATA: parts[0], sentences_dl_saved.NETWORK: network}
