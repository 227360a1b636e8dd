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
from entitymill.recognition.offsets import utf16_length
from entitymill.recognition.tagger import bundle, network
from entitymill.recognition.tagger.batching import Batch, plan
from entitymill.recognition.tagger.encoding import Encoder, wordpiece_tokenizer
from entitymill.recognition.tagger.network import Precision
from entitymill.recognition.tagger.rows import SPECIAL_PIECES, CompleteRows, Encoding, RowMaker, Rows
from entitymill.recognition.tagger.sparknlp_rows import SparkNlpRows
from entitymill.recognition.tagger.tags import Tags

PLANNED_SENTENCES = 1024
"""Sentences sorted and planned together: enough for tight batches, little enough to stay in cache."""


@dataclass
class Seconds:
    """Wall seconds a tagger has spent so far."""

    encoding: float = 0.0
    inference: float = 0.0


class Tagger:
    """A compiled model with its tokenizer; one per process, not shared between threads."""

    def __init__(self, model: ov.CompiledModel, maker: RowMaker, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.seconds = Seconds()
        self._request = model.create_infer_request()
        self._maker = maker

    @classmethod
    def load(
        cls,
        files: dict[str, Path],
        manifest: bundle.Manifest,
        precision: Precision,
        threads: int = 1,
        where: str = "",
        encoding: Encoding = "complete",
    ) -> Tagger:
        """Check a bundle's files, then compile.

        Args:
            files: file name -> local path, for every file the manifest lists.
            manifest: what the files must match.
            precision: of execution; always set, since OpenVINO left alone picks one by the processor.
            threads: of inference; no more than the task has cores.
            where: the bundle's address, for messages.
            encoding: of tokens: complete, or as Spark NLP does it.

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
        return cls(compiled, row_maker(tokenizer, manifest, encoding), labels)

    def tag(
        self,
        tokens: Sequence[str],
        lengths: NDArray[np.int64],
        begins: NDArray[np.int64] | None = None,
        *,
        scores: bool = False,
    ) -> Tags:
        """Tag sentences.

        Args:
            tokens: of all sentences, one after the other.
            lengths: [sentences] tokens of each; 0 is allowed.
            begins: [tokens] where each starts in its document, in UTF-16 units; for the encoding sparknlp, which without
                them takes tokens to be parted by one blank.
            scores: whether to return the probability of every label.
        """
        if begins is None:
            units = np.fromiter(map(utf16_length, tokens), np.int64)
            begins = np.cumsum(units + 1) - units - 1
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        split = np.zeros(len(lengths), np.bool_)
        filled = np.flatnonzero(lengths)
        done = [_nothing(len(self.labels))]
        for at in range(0, len(filled), PLANNED_SENTENCES):
            chosen = filled[at : at + PLANNED_SENTENCES]
            first, last = starts[chosen[0]], starts[chosen[-1] + 1]
            found, probabilities, longer = self._tag(tokens[first:last], lengths[chosen], begins[first:last])
            split[chosen[longer]] = True
            best = probabilities.argmax(axis=1)
            confidences = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0]
            kept = probabilities if scores else probabilities[:0]
            done.append((found + first, best.astype(np.int16), confidences, kept))
        found, tags, confidences, kept = (np.concatenate(parts) for parts in zip(*done, strict=True))
        return Tags(found, tags, confidences, kept if scores else None, split)

    def _tag(
        self, tokens: Sequence[str], lengths: NDArray[np.int64], begins: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """([tagged] tokens, [tagged, labels] probabilities, sentences over the limit)."""
        began = perf_counter()
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        rows = self._maker.rows(tokens, starts, begins)
        batches = plan(rows.last - rows.first + SPECIAL_PIECES, self._maker.max_length)
        encoded = perf_counter()
        logits = np.zeros((len(rows.tokens), len(self.labels)), np.float32)
        for batch in batches:
            self._run(batch, rows, logits)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.seconds.encoding += encoded - began
        self.seconds.inference += perf_counter() - encoded
        return rows.tokens, powers / powers.sum(axis=1, keepdims=True), rows.split

    def _run(self, batch: Batch, rows: Rows, logits: NDArray[np.float32]) -> None:
        """Fill in the logits of the tokens that a batch of rows tags."""
        ids = np.full((len(batch.rows), batch.length), self._maker.pad_id, np.int64)
        mask = np.zeros_like(ids)
        ids[:, 0] = self._maker.cls_id
        into, at = [], []
        for line, row in enumerate(batch.rows):
            count = rows.last[row] - rows.first[row]
            ids[line, 1 : count + 1] = rows.ids[rows.first[row] : rows.last[row]]
            ids[line, count + 1] = self._maker.sep_id
            mask[line, : count + SPECIAL_PIECES] = 1
            tagged = slice(rows.starts[row], rows.starts[row + 1])
            into.append(np.arange(tagged.start, tagged.stop))
            at.append(rows.positions[tagged] + line * batch.length)
        found = self._request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)[0]
        logits[np.concatenate(into)] = found.reshape(-1, found.shape[-1])[np.concatenate(at)]


def _nothing(labels: int) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros(0, np.int64), np.zeros(0, np.int16), np.zeros(0, np.float32), np.zeros((0, labels), np.float32)


def row_maker(tokenizer: Tokenizer, manifest: bundle.Manifest, encoding: Encoding) -> RowMaker:
    """The encoding of a model.

    Raises:
        ModelError: its vocabulary lacks what the encoding needs.
    """
    if encoding == "complete":
        return CompleteRows(Encoder(tokenizer, manifest.max_length - SPECIAL_PIECES), manifest.max_length)
    return SparkNlpRows(tokenizer, manifest.sparknlp_max_length, lowercase=manifest.casing == "uncased")


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
