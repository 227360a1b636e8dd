"""Measure the tagger without the rest of the job, on the job's tokens in memory, in one process per core."""

from __future__ import annotations

import os
import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

import machine
import numpy as np
import pyarrow as pa

from entitymill.recognition import offsets, tokens
from entitymill.recognition.sentences import Detector
from entitymill.recognition.tagger import Execution, Precision, bundle
from entitymill.recognition.tagger.inference import Tagger

PARTS_PER_CORE = 8
WINDOW = 64
"""Documents that are tokenized at once."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of consecutive sentences.

    lengths: [sentences] number of tokens.
    begins: [tokens] offset in the document.
    """

    tokens: list[str]
    lengths: np.ndarray
    begins: np.ndarray

    def split(self, count: int) -> list[Tokens]:
        """Return parts of similar size, each of consecutive sentences."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        cuts = np.linspace(0, len(self.lengths), count + 1).astype(int)
        found = []
        for a, b in pairwise(cuts):
            within = slice(starts[a], starts[b])
            found.append(Tokens(self.tokens[within], self.lengths[a:b], self.begins[within]))
        return found


def tokenize(documents: list[str], detector: Detector) -> Tokens:
    """Return the tokens of documents, as the job passes them to its tagger."""
    found: list[str] = []
    lengths, begins = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for at in range(0, len(documents), WINDOW):
        whole = offsets.read_texts(pa.array(documents[at : at + WINDOW]))
        segments = tokens.tokenize(whole, detector.find_breaks(whole))
        begins.append(segments.token_begin - whole.edges[whole.find_texts(segments.token_begin)])
        found += whole.extract_substrings(segments.token_begin, segments.token_end)
        lengths.append(segments.sentence_tokens)
    return Tokens(found, np.concatenate(lengths), np.concatenate(begins))


_tagger: Tagger | None = None
_parts: list[Tokens] = []


def _load(directory: Path, precision: Precision, parts: Path) -> None:
    global _tagger  # noqa: PLW0603  - of a process of the pool
    manifest, files = bundle.read_directory(directory)
    _tagger = Tagger.load(files, manifest, Execution(precision))
    _parts.extend(pickle.loads(parts.read_bytes()))  # noqa: S301  - this program's own


def _tag(number: int) -> float:
    assert _tagger is not None
    part = _parts[number]
    began = time.process_time()
    _tagger.tag(part.tokens, part.lengths, part.begins)
    return time.process_time() - began


class BareTaggers:
    """Processes with a model and the tokens in memory."""

    def __init__(self, model: Path, precision: Precision, given: Tokens, scratch: Path) -> None:
        cores = os.cpu_count() or 1
        self._count = PARTS_PER_CORE * cores
        parts = scratch / "parts"
        parts.write_bytes(pickle.dumps(given.split(self._count)))
        self._pool = ProcessPoolExecutor(cores, get_context("spawn"), _load, (model, precision, parts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()

    def warm_up(self) -> None:
        """Make every process load its model and tag something."""
        list(self._pool.map(_tag, [0] * (os.cpu_count() or 1)))

    def run(self) -> machine.Spent:
        """Tag everything and return the time; CPU time is that of tagging only."""
        wall = time.perf_counter()
        cpu = sum(self._pool.map(_tag, range(self._count)))
        return machine.Spent(time.perf_counter() - wall, cpu)
