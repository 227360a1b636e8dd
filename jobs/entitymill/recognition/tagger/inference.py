"""Run a compiled model: `Tagger` takes the tokens of sentences, and returns a tag and its probability for each token.

Other modules prepare the network's input. `tokens_to_model_input` splits tokens into pieces (subwords), and puts the pieces
of a sentence into one row, or into several overlapping rows. `sequence_packing` removes duplicates, and packs several of
these rows into one row of the network's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tokenizers import Tokenizer

from entitymill.errors import ModelError, is_rust_panic
from entitymill.recognition.best_tags_and_confidence import Scaling, ViterbiDecoder
from entitymill.recognition.model_loading_limits import convert_loading_errors
from entitymill.recognition.offsets import utf16_length
from entitymill.recognition.tagger import (
    Decoding,
    Encoding,
    Execution,
    Tags,
    bundle,
    check_precision,
    network,
    sequence_packing,
)
from entitymill.recognition.tagger.sequence_packing import Batch
from entitymill.recognition.tagger.tokens_to_model_input import (
    SPECIAL_PIECES,
    CompleteRows,
    Encoder,
    RowMaker,
    Rows,
    build_wordpiece_tokenizer,
)
from entitymill.spark import installation

_TEST_SENTENCE = ("The", "quick", "brown", "fox", "jumps", "over", "13", "lazy", "dogs", ".")
SENTENCES_AT_ONCE = 1024
"""Maximum number of sentences that are packed together: enough to fill the rows, few enough for the processor's cache."""


@dataclass
class Seconds:
    """Wall-clock seconds spent so far on each part of recognition; `schemas.PARTS` has the names of the fields.

    The tagger measures encoding and inference, and the recognizer measures segmentation and mentions.
    """

    segmentation: float = 0.0
    encoding: float = 0.0
    inference: float = 0.0
    mentions: float = 0.0


class Tagger:
    """A compiled model with its tokenizer, which predicts the tags of tokens. Not thread-safe."""

    def __init__(
        self,
        model: ov.CompiledModel,
        maker: RowMaker,
        labels: tuple[str, ...],
        positions: NDArray[np.int64] | None,
        scheme: bundle.Scheme = "iob2",
        decoding: Decoding = "argmax",
        scalings: Mapping[str, Scaling] | None = None,
        encoding: Encoding = "complete",
    ) -> None:
        """Create a tagger for a compiled model; every timer in the attribute `seconds` starts at 0.

        Args:
            maker: turns the tokens of sentences into rows of the network's input.
            labels: the model's tags, in the order of its outputs: O, B-PER, I-PER, …
            positions: the position numbers of a sentence's pieces, from `sequence_packing.convert_to_packed`; None if the
                model takes only one sentence per row.
            scheme: the tagging scheme of the labels, which says how tags join to mentions (see `bundle.Scheme`).
            decoding: how tags are chosen from their probabilities (see `Execution`).
            scalings: dict from a label to the scaling of its mentions' confidences; None or empty for no scaling.
            encoding: how `maker` turns tokens into pieces (see `Execution`); stored as an attribute, for callers.
        """
        self.encoding = encoding
        self.scalings = dict(scalings or {})
        self.labels = labels
        self.scheme = scheme
        self.seconds = Seconds()
        self._request = model.create_infer_request()
        self._maker = maker
        self._positions = positions
        # In IOB1 every sequence of tags is valid, so Viterbi's algorithm is not needed. The settings do not allow viterbi
        # with encoding sparknlp, which may omit tokens or tag a token twice.
        self._decoder = ViterbiDecoder(labels) if decoding == "viterbi" and scheme == "iob2" else None

    @classmethod
    def load(cls, files: dict[str, Path], manifest: bundle.Manifest, execution: Execution, where: str = "") -> Tagger:
        """Return a tagger, after checking a bundle's files, compiling its network and tagging a test sentence.

        With encoding sparknlp, ignore the manifest's scaling of confidences and its scheme: Spark NLP joins tags as IOB2.

        Args:
            files: dict from file names to local paths, for every file that the manifest lists.
            where: path or URI of the bundle, for error messages; if empty, they contain the model's name instead.

        Raises:
            ModelError: a file is missing or altered, the files do not fit each other, the model cannot run in
                `execution.precision`, or it computes NaN or infinity for the test sentence.
            SettingsError: the encoding is sparknlp, but the extension entitymill_sparknlp is not installed.
        """
        where = where or manifest.name
        bundle.check_files(files, manifest, where)
        labels = bundle.read_tags(files[bundle.LABELS])
        check_precision(execution.precision, manifest.precision)
        tokenizer = read_tokenizer(files, manifest, where)
        with convert_loading_errors(f"{where}/{_tokenizer_file_name(manifest)}"):
            maker = build_row_maker(tokenizer, manifest, execution.encoding)
            # The tokenizer is tested before the network, so that the error for a bad tokenizer names the right file.
            maker.make_rows(_TEST_SENTENCE, np.array([0, len(_TEST_SENTENCE)]), _compute_begins(_TEST_SENTENCE))
        model = network.read_network(files[bundle.NETWORK], files[bundle.WEIGHTS], where)
        # Spark NLP's NerConverter joins all tags as IOB2, even if the model was trained with another tagging scheme.
        scheme = manifest.scheme if execution.encoding == "complete" else "iob2"
        scalings = manifest.confidence if execution.encoding == "complete" else {}
        with convert_loading_errors(f"{where}/{bundle.NETWORK}"):
            network.check_signature(model, vocabulary=tokenizer.get_vocab(), labels=len(labels), where=where)
            network.check_max_length(model, maker.max_length, where)
            positions = sequence_packing.convert_to_packed(model, maker.max_length, maker.cls_id)
            tagger = cls(
                network.compile_model(model, execution.precision, execution.threads),
                maker,
                labels,
                positions,
                scheme,
                execution.decoding,
                scalings,
                execution.encoding,
            )
            tags = tagger.tag(_TEST_SENTENCE, np.array([len(_TEST_SENTENCE)]))
        if not np.isfinite(tags.confidences).all():
            raise ModelError(f"The network of {where} computes NaN or infinity for a test sentence: train the model again.")
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
        """Return the tags of all sentences' tokens, and add the time spent on encoding and inference to `seconds`.

        Args:
            tokens: the tokens of all sentences, concatenated.
            lengths: number of tokens of each sentence, shape [sentences]; 0 is allowed.
            begins: offset of each token in its document, in UTF-16 code units, shape [tokens]; used only by encoding
                sparknlp. With None, offsets are computed as if one blank separated the tokens.
            scores: whether to return the probability of every one of the model's tags for each token.
        """
        if begins is None:
            begins = _compute_begins(tokens)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        split = np.zeros(len(lengths), np.bool_)
        filled = np.flatnonzero(lengths)
        results = [_empty_result(len(self.labels))]
        for at in range(0, len(filled), SENTENCES_AT_ONCE):
            chosen = filled[at : at + SENTENCES_AT_ONCE]
            first, last = starts[chosen[0]], starts[chosen[-1] + 1]
            tagged, probabilities, longer = self._compute_probabilities(
                tokens[first:last], lengths[chosen], begins[first:last]
            )
            split[chosen[longer]] = True
            if self._decoder is None:
                best = probabilities.argmax(axis=1)
            else:
                best = self._decoder.decode(probabilities, np.searchsorted(starts, tagged + first, side="right"))
            confidences = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0]
            returned = probabilities if scores else results[0][3]
            results.append((tagged + first, best.astype(np.int16), confidences, returned))
        tagged, tags, confidences, returned = (np.concatenate(parts) for parts in zip(*results, strict=True))
        return Tags(tagged, tags, confidences, returned if scores else None, split)

    def _compute_probabilities(
        self, tokens: Sequence[str], lengths: NDArray[np.int64], begins: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Return the tagged tokens, the probability of every tag for each, and the sentences longer than the model's limit.

        Tokens and sentences are returned as indices into the arguments; the shapes are [tagged], [tagged, labels] and [long
        sentences]. `tag` explains the arguments, but here no sentence may be empty. The time spent is added to `seconds`.
        """
        began = perf_counter()
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        rows = self._maker.make_rows(tokens, starts, begins)
        distinct, index = sequence_packing.find_distinct_rows(rows.ids, rows.begin, rows.end)
        pieces = (rows.end - rows.begin)[distinct] + SPECIAL_PIECES
        batches = list(sequence_packing.plan_batches(pieces, self._maker.max_length, packed=self._positions is not None))
        encoded = perf_counter()
        # The logits of all distinct rows, concatenated, including those of [CLS] and [SEP].
        offsets = np.cumsum(pieces) - pieces
        logits = np.zeros((int(pieces.sum()), len(self.labels)), np.float32)
        for batch in batches:
            self._run_batch(batch, rows, np.array(distinct)[batch.items], offsets[batch.items], logits)
        tagged = np.diff(rows.starts)
        chosen = logits[np.repeat(offsets[index], tagged) + rows.positions]
        powers = np.exp(chosen - chosen.max(axis=1, keepdims=True)) if len(chosen) else chosen
        self.seconds.encoding += encoded - began
        self.seconds.inference += perf_counter() - encoded
        return rows.tokens, powers / powers.sum(axis=1, keepdims=True), rows.split

    def _run_batch(
        self, batch: Batch, rows: Rows, chosen: NDArray[np.int64], offsets: NDArray[np.int64], logits: NDArray[np.float32]
    ) -> None:
        """Run the network on a batch, and write the logits of the batch's pieces into `logits`, in place.

        Each item of the batch is one row of `rows`: a sentence, or a part of a long sentence. `chosen` has each item's index
        in `rows`. `offsets` has, for each item, the index in `logits` of the item's first piece. `logits` has the shape
        [pieces of all distinct rows, labels].
        """
        counts = (rows.end - rows.begin)[chosen] + SPECIAL_PIECES
        starts = np.cumsum(counts) - counts
        within = np.arange(int(counts.sum())) - np.repeat(starts, counts)
        values = rows.ids[np.minimum(np.repeat(rows.begin[chosen], counts) + np.maximum(within - 1, 0), len(rows.ids) - 1)]
        values[starts] = self._maker.cls_id
        values[starts + counts - 1] = self._maker.sep_id
        cells = np.repeat(batch.row * batch.length + batch.column, counts) + within
        ids = np.full(batch.rows * batch.length, self._maker.pad_id, np.int64)
        ids[cells] = values
        # Each item of the batch is a segment (see `sequence_packing`). Padding has segment -1: it attends only to padding.
        segments = np.full_like(ids, -1)
        segments[cells] = np.repeat(np.arange(len(chosen)), counts)
        feed = {sequence_packing.IDS: ids}
        if self._positions is None:
            feed[sequence_packing.MASK] = (segments >= 0).astype(np.int64)
        else:
            feed[sequence_packing.SEGMENTS] = segments
            feed[sequence_packing.POSITIONS] = np.full_like(ids, self._positions[0])
            feed[sequence_packing.POSITIONS][cells] = self._positions[within]
        shaped = {name: value.reshape(batch.rows, batch.length) for name, value in feed.items()}
        output = self._request.infer(shaped, share_inputs=True)[0]
        logits[np.repeat(offsets, counts) + within] = output.reshape(-1, output.shape[-1])[cells]


def _compute_begins(tokens: Sequence[str]) -> NDArray[np.int64]:
    """Return the offset of each token, in UTF-16 code units, in a text in which one blank separates the tokens."""
    lengths = np.fromiter(map(utf16_length, tokens), np.int64)
    return np.asarray(np.cumsum(lengths + 1) - lengths - 1)


def _empty_result(labels: int) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.float32], NDArray[np.float32]]:
    """Return empty arrays of tokens, tags, confidences and scores (see `Tags`); `labels` is how many tags the model has."""
    return np.zeros(0, np.int64), np.zeros(0, np.int16), np.zeros(0, np.float32), np.zeros((0, labels), np.float32)


def build_row_maker(tokenizer: Tokenizer, manifest: bundle.Manifest, encoding: Encoding) -> RowMaker:
    """Return the object that turns the tokens of sentences into rows for the model, for a value of `recognition.encoding`.

    Raises:
        ModelError: the vocabulary lacks a special piece, such as [CLS].
        SettingsError: the encoding is sparknlp, but the extension entitymill_sparknlp is not installed.
    """
    if encoding == "complete":
        return CompleteRows(Encoder(tokenizer, manifest.max_length - SPECIAL_PIECES), manifest.max_length)
    extension = installation.import_extension(
        f"{installation.SPARKNLP}.subwords_as_in_sparknlp", "recognition.encoding: sparknlp"
    )
    maker: RowMaker = extension.SparkNlpRows(tokenizer, manifest.sparknlp_max_length, lowercase=manifest.casing == "uncased")
    return maker


def read_tokenizer(files: dict[str, Path], manifest: bundle.Manifest, where: str = "") -> Tokenizer:
    """Return a bundle's tokenizer, read from tokenizer.json or, if the manifest does not list it, from vocab.txt.

    Raise a ModelError if the file cannot be read as a tokenizer; the error names `where`, or the model if `where` is empty.
    """
    name, where = _tokenizer_file_name(manifest), where or manifest.name
    with convert_loading_errors(f"{where}/{name}"):
        if name == bundle.VOCABULARY:
            return build_wordpiece_tokenizer(files[name], lowercase=manifest.casing == "uncased")
        try:
            return Tokenizer.from_file(str(files[name]))
        except BaseException as error:
            if not (isinstance(error, Exception) or is_rust_panic(error)):  # the package tokenizers raises Exception
                raise
            raise ModelError(f"{where}/{name} cannot be read as a tokenizer. Prepare the model again.") from error


def _tokenizer_file_name(manifest: bundle.Manifest) -> str:
    """Return the name of the tokenizer's file: tokenizer.json if the manifest lists it, otherwise vocab.txt."""
    return bundle.TOKENIZER if bundle.TOKENIZER in manifest.files else bundle.VOCABULARY
