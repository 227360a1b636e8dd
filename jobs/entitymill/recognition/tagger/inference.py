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

from entitymill import extensions
from entitymill.errors import ModelError, is_rust_panic
from entitymill.recognition.decoding import ViterbiDecoder
from entitymill.recognition.model_loading import loading
from entitymill.recognition.offsets import utf16_length
from entitymill.recognition.tagger import Decoding, Encoding, Execution, Tags, bundle, check_precision, network, packing
from entitymill.recognition.tagger.encoding import Encoder, wordpiece_tokenizer
from entitymill.recognition.tagger.model_rows import SPECIAL_PIECES, CompleteRows, RowMaker, Rows
from entitymill.recognition.tagger.packing import Batch

_HARMLESS = ("The", "quick", "brown", "fox", "jumps", "over", "13", "lazy", "dogs", ".")
PLANNED_SENTENCES = 1024
"""Sentences packed together: enough for full rows, little enough to stay in cache."""


@dataclass
class Seconds:
    """Wall seconds a tagger has spent so far."""

    encoding: float = 0.0
    inference: float = 0.0


class Tagger:
    """A compiled model with its tokenizer; one per process, not shared between threads."""

    def __init__(
        self,
        model: ov.CompiledModel,
        maker: RowMaker,
        labels: tuple[str, ...],
        positions: NDArray[np.int64] | None,
        scheme: bundle.Scheme = "iob2",
        decoding: Decoding = "argmax",
    ) -> None:
        """`positions` as `packing.pack` returns them; none for a network that takes one sentence a row."""
        self.labels = labels
        self.scheme = scheme
        self.seconds = Seconds()
        self._request = model.create_infer_request()
        self._maker = maker
        self._positions = positions
        # In IOB1 every sequence is valid. Spark NLP's encoding may leave tokens out or tag one twice.
        self._decoder = ViterbiDecoder(labels) if decoding == "viterbi" and scheme == "iob2" else None

    @classmethod
    def load(cls, files: dict[str, Path], manifest: bundle.Manifest, how: Execution, where: str = "") -> Tagger:
        """Check a bundle's files, then compile.

        Args:
            files: file name -> local path, for every file the manifest lists.
            manifest: what the files must match.
            how: it is run.
            where: the bundle's address, for messages.

        Raises:
            ModelError: a file is missing or altered, or the parts do not fit each other or the precision.
        """
        where = where or manifest.name
        bundle.check_files(files, manifest, where)
        labels = bundle.read_labels(files[bundle.LABELS])
        check_precision(how.precision, manifest.precision)
        tokenizer = read_tokenizer(files, manifest, where)
        with loading(f"{where}/{_tokenizer_file(manifest)}"):
            maker = row_maker(tokenizer, manifest, how.encoding)
            # Alone, so that what fails here is not taken for the network's fault.
            maker.rows(_HARMLESS, np.array([0, len(_HARMLESS)]), _begins(_HARMLESS))
        model = network.read(files[bundle.NETWORK], files[bundle.WEIGHTS], where)
        # What Spark NLP would find is joined as its NerConverter joins it, whatever the model was trained on.
        scheme = manifest.scheme if how.encoding == "complete" else "iob2"
        with loading(f"{where}/{bundle.NETWORK}"):
            network.check(model, vocabulary=tokenizer.get_vocab(), labels=len(labels), where=where)
            network.check_window(model, maker.max_length, where)
            positions = packing.pack(model, maker.max_length, maker.cls_id)
            tagger = cls(
                network.compile_model(model, how.precision, how.threads), maker, labels, positions, scheme, how.decoding
            )
            tagger.tag(_HARMLESS, np.array([len(_HARMLESS)]))
        tagger.seconds = Seconds()
        return tagger

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
            begins = _begins(tokens)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        split = np.zeros(len(lengths), np.bool_)
        filled = np.flatnonzero(lengths)
        done = [_nothing(len(self.labels))]
        for at in range(0, len(filled), PLANNED_SENTENCES):
            chosen = filled[at : at + PLANNED_SENTENCES]
            first, last = starts[chosen[0]], starts[chosen[-1] + 1]
            found, probabilities, longer = self._tag(tokens[first:last], lengths[chosen], begins[first:last])
            split[chosen[longer]] = True
            if self._decoder is None:
                best = probabilities.argmax(axis=1)
            else:
                best = self._decoder.decode(probabilities, np.searchsorted(starts, found + first, side="right"))
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
        kept, same = packing.distinct(rows.ids, rows.first, rows.last)
        pieces = (rows.last - rows.first)[kept] + SPECIAL_PIECES
        batches = list(packing.plan(pieces, self._maker.max_length, packed=self._positions is not None))
        encoded = perf_counter()
        # Every distinct row's scores, [CLS] and [SEP] included, one row after the other.
        offsets = np.cumsum(pieces) - pieces
        logits = np.zeros((int(pieces.sum()), len(self.labels)), np.float32)
        for batch in batches:
            self._run(batch, rows, np.array(kept)[batch.items], offsets[batch.items], logits)
        tagged = np.diff(rows.starts)
        read = logits[np.repeat(offsets[same], tagged) + rows.positions]
        powers = np.exp(read - read.max(axis=1, keepdims=True)) if len(read) else read
        self.seconds.encoding += encoded - began
        self.seconds.inference += perf_counter() - encoded
        return rows.tokens, powers / powers.sum(axis=1, keepdims=True), rows.split

    def _run(
        self, batch: Batch, rows: Rows, chosen: NDArray[np.int64], offsets: NDArray[np.int64], logits: NDArray[np.float32]
    ) -> None:
        """Fill in the logits of a batch.

        Args:
            batch: what goes where.
            rows: all that there are.
            chosen: [items] which of these the batch has.
            offsets: [items] where each one's logits start.
            logits: of all pieces, to be filled in.
        """
        counts = (rows.last - rows.first)[chosen] + SPECIAL_PIECES
        starts = np.cumsum(counts) - counts
        within = np.arange(int(counts.sum())) - np.repeat(starts, counts)
        values = rows.ids[np.minimum(np.repeat(rows.first[chosen], counts) + np.maximum(within - 1, 0), len(rows.ids) - 1)]
        values[starts] = self._maker.cls_id
        values[starts + counts - 1] = self._maker.sep_id
        places = np.repeat(batch.row * batch.length + batch.column, counts) + within
        ids = np.full(batch.rows * batch.length, self._maker.pad_id, np.int64)
        ids[places] = values
        # Numbered through the batch, and none where nothing is, which sees itself alone.
        segments = np.full_like(ids, -1)
        segments[places] = np.repeat(np.arange(len(chosen)), counts)
        feed = {packing.IDS: ids}
        if self._positions is None:
            feed[packing.MASK] = (segments >= 0).astype(np.int64)
        else:
            feed[packing.SEGMENTS] = segments
            feed[packing.POSITIONS] = np.full_like(ids, self._positions[0])
            feed[packing.POSITIONS][places] = self._positions[within]
        shaped = {name: value.reshape(batch.rows, batch.length) for name, value in feed.items()}
        found = self._request.infer(shaped, share_inputs=True)[0]
        logits[np.repeat(offsets, counts) + within] = found.reshape(-1, found.shape[-1])[places]


def _begins(tokens: Sequence[str]) -> NDArray[np.int64]:
    """[tokens] where each starts, in UTF-16 units, in the text that joins them by blanks."""
    units = np.fromiter(map(utf16_length, tokens), np.int64)
    return np.asarray(np.cumsum(units + 1) - units - 1)


def _nothing(labels: int) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros(0, np.int64), np.zeros(0, np.int16), np.zeros(0, np.float32), np.zeros((0, labels), np.float32)


def row_maker(tokenizer: Tokenizer, manifest: bundle.Manifest, encoding: Encoding) -> RowMaker:
    """The encoding of a model.

    Raises:
        ModelError: its vocabulary lacks what the encoding needs.
    """
    if encoding == "complete":
        return CompleteRows(Encoder(tokenizer, manifest.max_length - SPECIAL_PIECES), manifest.max_length)
    extension = extensions.load(f"{extensions.SPARKNLP}.sparknlp_rows", "recognition.encoding: sparknlp")
    maker: RowMaker = extension.SparkNlpRows(tokenizer, manifest.sparknlp_max_length, lowercase=manifest.casing == "uncased")
    return maker


def read_tokenizer(files: dict[str, Path], manifest: bundle.Manifest, where: str = "") -> Tokenizer:
    """The bundle's tokenizer: its own tokenizer.json, or what its vocab.txt and casing mean.

    Raises:
        ModelError: the file is not a tokenizer.
    """
    name, where = _tokenizer_file(manifest), where or manifest.name
    with loading(f"{where}/{name}"):
        if name == bundle.VOCABULARY:
            return wordpiece_tokenizer(files[name], lowercase=manifest.casing == "uncased")
        try:
            return Tokenizer.from_file(str(files[name]))
        except BaseException as error:
            if not (isinstance(error, Exception) or is_rust_panic(error)):  # tokenizers raises bare Exception
                raise
            raise ModelError(f"{where}/{name} is not a tokenizer that can be read: prepare the model again.") from error


def _tokenizer_file(manifest: bundle.Manifest) -> str:
    return bundle.TOKENIZER if bundle.TOKENIZER in manifest.files else bundle.VOCABULARY
