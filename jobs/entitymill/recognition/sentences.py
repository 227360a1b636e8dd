"""Where sentences begin: by a saved SentenceDetectorDLModel, by Spark NLP's rules, or by the package sentencex."""

from __future__ import annotations

import itertools
import re
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

Kind = Literal["dl", "rules", "sentencex"]
LANGUAGE = "en"
_SHOWN = 2000
"""Characters that sentencex is shown at once: its time grows with the square of the quotation marks in them."""
_WIDE_BLANKS = re.compile("[" + "".join(chr(code) for code in range(0x80, 0x3001) if chr(code).isspace()) + "]")


class Detector(Protocol):
    """Finds sentences."""

    def breaks(self, texts: Texts) -> NDArray[np.int64]:
        """[breaks] int64, sorted: units of the whole where a sentence begins or the one before has ended.

        A text's own beginning need not be among them.
        """


class SentencexDetector:
    """The package sentencex: rules by language, in Rust.

    It sees two thousand characters of a text at a time. It breaks off on some white space of more than one byte (a no-break
    space before an initial), so it is shown a blank in the place of each. Where it breaks off all the same, the text's
    sentences are those of the rules.
    """

    def breaks(self, texts: Texts) -> NDArray[np.int64]:
        """See `Detector`."""
        edges = texts.code_points(texts.edges).tolist()
        text = texts.text if texts.text.isascii() else _WIDE_BLANKS.sub(" ", texts.text)
        found = [first + begin for first, last in itertools.pairwise(edges) for begin in _sentencex_begins(text[first:last])]
        return texts.units_at(np.array(found, np.int64))


def _sentencex_begins(text: str) -> list[int]:
    try:
        return list(_begins_in_windows(text))
    except BaseException as error:
        if not is_rust_panic(error):
            raise
        return [edge for span in sentences_rules.sentences(text) for edge in span]


def _begins_in_windows(text: str) -> Iterator[int]:
    """Where sentences begin, a page at a time; the next page begins with the last sentence of the one before.

    A sentence longer than half a page is read on where its page ends, so that every page is new for half at least.
    """
    at, begins_here = 0, True
    while at < len(text):
        end = _end_of_window(text, at)
        shown = sentencex.get_sentence_boundaries(LANGUAGE, text[at:end])
        found = [at + sentence["start_index"] for sentence in shown]
        new = found if begins_here else [begin for begin in found if begin > at]
        resumes = end < len(text) and bool(new) and new[-1] > at + _SHOWN // 2
        yield from new[:-1] if resumes else new
        at, begins_here = (new[-1], True) if resumes else (end, False)


def _end_of_window(text: str, at: int) -> int:
    end = at + _SHOWN
    if end >= len(text):
        return len(text)
    blank = text.rfind(" ", at + _SHOWN // 2, end)
    return end if blank < 0 else blank


def open_detector(kind: Kind, files: dict[str, Path], where: str = "") -> Detector:
    """A sentence detector.

    Args:
        kind: which.
        files: for dl: part of the saved model (saved_detector.METADATA, .NETWORK) -> where it lies on this machine.
        where: its address, for messages.

    Raises:
        ModelError: the model is missing, damaged, or of another architecture.
    """
    if kind == "rules":
        return RuleDetector()
    if kind == "sentencex":
        return SentencexDetector()
    return DeepDetector(
        sentences_dl_saved.read(files[sentences_dl_saved.METADATA], files[sentences_dl_saved.NETWORK], where)
    )


def saved_files(directory: Path) -> dict[str, Path]:
    """The files of a saved detector in a local directory.

    Raises:
        ModelError: it is not one.
    """
    parts = sorted((directory / sentences_dl_saved.METADATA).glob("part-*"))
    network = directory / sentences_dl_saved.NETWORK
    if len(parts) != 1 or not network.is_file():
        raise ModelError(
            f"The sentence detector's model: {directory} is not a saved SentenceDetectorDLModel; name the directory of one "
            "(detector_model, --detector-model), or take the detector sentencex, which needs none."
        )
    return {sentences_dl_saved.METADATA: parts[0], sentences_dl_saved.NETWORK: network}
