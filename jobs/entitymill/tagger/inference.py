"""The tagger: tokens of whole sentences in, a tag and its probability for every token out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tokenizers import Tokenizer

from entitymill.errors import ModelError
from entitymill.tagger import bundle, network
from entitymill.tagger.batching import Batch, plan
from entitymill.tagger.encoding import Encoder, Pieces, wordpiece_tokenizer
from entitymill.tagger.network import Precision
from entitymill.tagger.windows import Windows, plan_windows

PLANNED_SENTENCES = 1024
"""Sentences sorted and planned together: enough for tight batches, little enough to stay in cache."""
SPECIAL_PIECES = 2


@dataclass(frozen=True)
class Tags:
    """What the tagger says of a list of sentences.

    tags: [tokens] int16, indices into the labels.
    confidences: [tokens] float32, the probability of each token's own tag.
    split: [sentences] bool, which sentences were longer than the model's limit.
    """

    tags: NDArray[np.int16]
    confidences: NDArray[np.float32]
    split: NDArray[np.bool_]


@dataclass
class Seconds:
    """Wall seconds a tagger has spent so far."""

    encoding: float = 0.0
    inference: float = 0.0


class Tagger:
    """A compiled model with its tokenizer; one per process, not shared between threads."""

    def __init__(self, model: ov.CompiledModel, encoder: Encoder, labels: tuple[str, ...], max_length: int) -> None:
        self.labels = labels
        self.seconds = Seconds()
        self._request = model.create_infer_request()
        self._encoder = encoder
        self._max_length = max_length

    @classmethod
    def load(
        cls, files: dict[str, Path], manifest: bundle.Manifest, precision: Precision, threads: int = 1, where: str = ""
    ) -> Tagger:
        """Check a bundle's files, then compile.

        Args:
            files: file name -> local path, for every file the manifest lists.
            manifest: what the files must match.
            precision: of execution; always set, since OpenVINO left alone picks one by the processor.
            threads: of inference; no more than the task has cores.
            where: the bundle's address, for messages.

        Raises:
            ModelError: a file is missing or altered, or the parts do not fit each other or the precision.
        """
        where = where or manifest.name
        bundle.check_files(files, manifest, where)
        labels = bundle.read_labels(files[bundle.LABELS])
        tokenizer = read_tokenizer(files, manifest)
        model = network.read(files[bundle.NETWORK], files[bundle.WEIGHTS], where)
        network.check(model, vocabulary=tokenizer.get_vocab(), labels=len(labels), where=where)
        compiled = network.compile_model(model, precision, threads, manifest.precision, calibrated=manifest.calibrated)
        return cls(compiled, Encoder(tokenizer, manifest.max_length - SPECIAL_PIECES), labels, manifest.max_length)

    def tag(self, tokens: Sequence[str], lengths: NDArray[np.int64]) -> Tags:
        """Tag sentences.

        Args:
            tokens: of all sentences, one after the other.
            lengths: [sentences] tokens of each; 0 is allowed.
        """
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        tags = np.zeros(len(tokens), np.int16)
        confidences = np.zeros(len(tokens), np.float32)
        split = np.zeros(len(lengths), np.bool_)
        filled = np.flatnonzero(lengths)
        for at in range(0, len(filled), PLANNED_SENTENCES):
            chosen = filled[at : at + PLANNED_SENTENCES]
            first, last = starts[chosen[0]], starts[chosen[-1] + 1]
            part = self._tag(tokens[first:last], lengths[chosen])
            tags[first:last], confidences[first:last], split[chosen] = part.tags, part.confidences, part.split
        return Tags(tags, confidences, split)

    def _tag(self, tokens: Sequence[str], lengths: NDArray[np.int64]) -> Tags:
        began = perf_counter()
        pieces = self._encoder.encode(tokens)
        sentence_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        rows = plan_windows(pieces.starts, sentence_starts, self._max_length - SPECIAL_PIECES)
        row_pieces = pieces.starts[rows.last] - pieces.starts[rows.first] + SPECIAL_PIECES
        batches = plan(row_pieces, self._max_length)
        encoded = perf_counter()
        tags = np.zeros(len(tokens), np.int16)
        confidences = np.zeros(len(tokens), np.float32)
        for batch in batches:
            self._run(batch, pieces, rows, tags, confidences)
        split = np.zeros(len(lengths), np.bool_)
        split[rows.split_sentences] = True
        self.seconds.encoding += encoded - began
        self.seconds.inference += perf_counter() - encoded
        return Tags(tags, confidences, split)

    def _run(
        self,
        batch: Batch,
        pieces: Pieces,
        rows: Windows,
        tags: NDArray[np.int16],
        confidences: NDArray[np.float32],
    ) -> None:
        ids = np.full((len(batch.rows), batch.length), self._encoder.pad_id, np.int64)
        mask = np.zeros_like(ids)
        ids[:, 0] = self._encoder.cls_id
        owned, logits_at = [], []
        for line, row in enumerate(batch.rows):
            begin = pieces.starts[rows.first[row]]
            count = pieces.starts[rows.last[row]] - begin
            ids[line, 1 : count + 1] = pieces.ids[begin : begin + count]
            ids[line, count + 1] = self._encoder.sep_id
            mask[line, : count + SPECIAL_PIECES] = 1
            own = slice(rows.own_first[row], rows.own_last[row])
            owned.append(np.arange(own.start, own.stop))
            # A token's tag is read off its first piece; +1 for [CLS].
            logits_at.append(pieces.starts[own] - begin + 1 + line * batch.length)
        logits = self._request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)[0]
        at = np.concatenate(owned)
        chosen = logits.reshape(-1, logits.shape[-1])[np.concatenate(logits_at)]
        tags[at] = chosen.argmax(axis=1)
        confidences[at] = 1 / np.exp(chosen - chosen.max(axis=1, keepdims=True)).sum(axis=1)


def read_tokenizer(files: dict[str, Path], manifest: bundle.Manifest) -> Tokenizer:
    """The bundle's tokenizer: its own tokenizer.json, or what its vocab.txt and casing mean.

    Raises:
        ModelError: the file is not a tokenizer.
    """
    if bundle.TOKENIZER not in manifest.files:
        return wordpiece_tokenizer(files[bundle.VOCABULARY], lowercase=manifest.casing == "uncased")
    try:
        return Tokenizer.from_file(str(files[bundle.TOKENIZER]))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{bundle.TOKENIZER} of {manifest.name} is not a tokenizer that can be read.") from error
