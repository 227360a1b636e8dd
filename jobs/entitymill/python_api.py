"""The API for Python programs: find mentions in texts without Spark, and run the job without its command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from entitymill.errors import ModelError, SettingsError
from entitymill.recognition import hardware, sentences
from entitymill.recognition.recognizer import Recognizer
from entitymill.recognition.tagger import Decoding, Execution, Markup, Precision, bundle, check_choice, check_flags
from entitymill.recognition.tagger.inference import Tagger
from entitymill.workers.child_process import WINDOW_CHARS, cut_texts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from entitymill.run.summary import Summary

_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_THREADS = 1024
DETECTOR = "sentence_detector"
"""Name of the directory from which the sentence detector is loaded by default; it is next to the model's directory."""


@dataclass(frozen=True)
class Mention:
    """One mention of an entity in a text. Offsets count code points, and ends are exclusive: text[begin:end] == entity.

    Attributes:
        begin: offset of the mention's first code point in the text.
        end: offset after the mention's last code point.
        entity: text of the mention.
        label: PER, ORG, LOC, MISC, or another label of the model.
        confidence: mean, over the mention's tokens, of the probability of the assigned tag; scaled if manifest.json in the
            model bundle has a scaling for the label.
        token_count: number of the mention's tokens.
        sentence_id: number of the mention's sentence in the text, from 0.
        sentence_begin: offset of the sentence's first code point in the text.
        sentence_end: offset after the sentence's last code point.
    """

    begin: int
    end: int
    entity: str
    label: str
    confidence: float
    token_count: int
    sentence_id: int
    sentence_begin: int
    sentence_end: int


_FIELDS = [field.name for field in fields(Mention)]


class TextTagger:
    """Finds mentions in texts; the job finds the same ones with the same settings. Threads must not share an instance."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer

    @overload
    def __call__(self, texts: str) -> list[Mention]: ...

    @overload
    def __call__(
        self, texts: Iterable[str | None]
    ) -> Any: ...  # pyarrow has no type hints, and its arrays are iterable, too

    def __call__(self, texts: str | Iterable[str | None]) -> Any:
        """Return the mentions in one or several texts.

        Args:
            texts: one text, several texts (a list, or a pandas or Polars column), or an Arrow array of strings.

        Returns:
            For one text, a list of its mentions. For several texts, one such list per text, in order; the list is empty if
            the text is None, NA or NaN. For an Arrow array, a list array of structs with the fields of `Mention`; the list
            of a null text is null.

        Raises:
            TypeError: a text is neither a string nor None, NA or NaN; or `texts` is a DataFrame.
        """
        if isinstance(texts, str):
            return self._tag_list([texts])[0]
        if isinstance(texts, (pa.Array, pa.ChunkedArray)):
            return self._tag_arrow(texts)
        if hasattr(texts, "columns"):
            raise TypeError("texts is a DataFrame; pass one of its columns instead, such as df['text']")
        return self._tag_list(list(texts))

    def _tag_list(self, texts: Sequence[object]) -> list[list[Mention]]:
        """Return one list of mentions per text; the list is empty for None, NA and NaN.

        Raise TypeError for any other value that is not a string.
        """
        result = []
        for strings in cut_texts(map(_to_string, texts), WINDOW_CHARS):
            # A lone surrogate cannot be encoded as UTF-8; its replacement is one code point, too, so offsets stay correct.
            found = self.recognizer(pa.array([_SURROGATE.sub("\ufffd", text) for text in strings], pa.large_string()))
            for text, mentions in zip(strings, found.mentions.to_pylist(), strict=True):
                result.append([Mention(**{**row, "entity": text[row["begin"] : row["end"]]}) for row in mentions])
        return result

    def _tag_arrow(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """Return the mentions in an array of texts as a list array of structs; the list of a null text is null.

        Raise TypeError if the array does not contain strings.
        """
        column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        if isinstance(column, pa.ChunkedArray):  # some pyarrow versions return a ChunkedArray if there are no chunks
            column = pa.array([], texts.type)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if str(kind) not in ("string", "large_string", "string_view", "null"):
                raise TypeError(f"texts must be an Arrow array of strings, not {column.type}")
            column = column.cast(pa.large_string())
        # Cut the array into windows: recognition needs some 75 bytes of memory per code point of all texts in one call.
        ends = np.cumsum(pc.fill_null(pc.utf8_length(column), 0).to_numpy()) // WINDOW_CHARS
        starts = [0, *(np.flatnonzero(np.diff(ends)) + 1), len(column)]
        return pa.concat_arrays([self.tag_window(column[first:last]) for first, last in pairwise(starts)])

    def tag_window(self, column: pa.Array) -> pa.ListArray:
        """Return the mentions in an Arrow array of strings as a list array of structs; the list of a null text is null.

        All texts are recognized at once, which takes some 75 bytes of memory per code point. To limit the memory, call the
        TextTagger itself: it cuts the array into windows, and calls this method for one window after the other.
        """
        found = self.recognizer(pc.fill_null(column, "")).mentions
        structs = pa.StructArray.from_arrays([found.flatten().field(name) for name in _FIELDS], names=_FIELDS)
        # In Arrow, a null offset makes the list that begins there null.
        missing = np.append(column.is_null().to_numpy(zero_copy_only=False), False)
        offsets = pa.array(found.offsets.to_numpy(), mask=missing)
        return pa.ListArray.from_arrays(offsets.cast(pa.int32()), structs)


def _to_string(value: object) -> str:
    """Return a string unchanged, and an empty string for None, NA and NaN; raise TypeError for any other value."""
    if value is None or isinstance(value, str):
        return value or ""
    # pandas stores NA or NaN instead of None, depending on the type of the column.
    if type(value).__name__ == "NAType" or (isinstance(value, float | np.floating) and value != value):  # noqa: PLR0124  # NaN
        return ""
    raise TypeError(f"each text must be a string or None, not {type(value).__name__}")


def load(
    model: str | os.PathLike[str],
    *,
    detector: sentences.DetectorKind | None = None,
    detector_model: str | os.PathLike[str] | None = None,
    precision: Precision = "f32",
    trim: bool = True,
    decoding: Decoding = "viterbi",
    consistent_labels: bool = True,
    markup: Markup = "none",
    threads: int | None = None,
) -> TextTagger:
    """Load a model, and return a `TextTagger`, which finds mentions in texts without Spark.

    Args:
        model: directory of a model bundle, such as models/demo; each file must have the SHA-256 in its manifest.json.
        detector: kind of sentence detector: dl (runs a saved SentenceDetectorDLModel of Spark NLP), rules (reimplements
            Spark NLP's rule-based SentenceDetector) or sentencex (the package sentencex). Spark NLP itself is not needed.
            None means dl if `detector_model` is set, otherwise sentencex.
        detector_model: directory of a saved SentenceDetectorDLModel, for detector dl. None means the directory
            `sentence_detector` next to the model's directory. If this directory does not exist, and this program runs from a
            clone of its repository, the clone's models/sentence_detector is used.
        precision: number format in which the model runs: f32, bf16 or int8.
        trim: whether to remove possessive endings and stray punctuation from mentions, and to drop mentions that have no
            letter or digit.
        decoding: viterbi for the most probable valid sequence of tags, or argmax for each token's most probable tag.
        consistent_labels: whether all mentions with the same spelling in a text get the same label: the label whose
            confidences have the greatest sum.
        markup: `html` to ignore HTML tags in the texts, `none` to treat them as text. Offsets always count the tags, too.
        threads: number of threads for inference; None for one per core that this process or its container may use.

    Raises:
        ModelError: a model is missing, altered or damaged, or does not run in `precision`.
        SettingsError: an argument other than `model` and `detector_model` has a value that is not allowed.
    """
    detector = sentences.choose_detector_kind(detector, detector_model)
    for name, value, allowed in (
        ("detector", detector, sentences.DetectorKind),
        ("precision", precision, Precision),
        ("decoding", decoding, Decoding),
        ("markup", markup, Markup),
    ):
        check_choice(name, value, allowed)
    check_flags(trim=trim, consistent_labels=consistent_labels)
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise SettingsError(f"threads must be a whole number from 1 to {MAX_THREADS}, not {threads!r}; None uses all cores.")
    directory = Path(model)
    manifest, files = read_bundle(directory)
    defaults = [directory.resolve().parent / DETECTOR, Path(__file__).parents[2] / "models" / DETECTOR]
    saved = Path(detector_model) if detector_model is not None else next(filter(Path.is_dir, defaults), defaults[0])
    detector_files = sentences.find_detector_files(saved) if detector == "dl" else {}
    opened = sentences.open_detector(detector, detector_files, str(saved))
    execution = Execution(precision, threads=threads or hardware.count_cores(), decoding=decoding)
    tagger = Tagger.load(files, manifest, execution, str(directory))
    return TextTagger(Recognizer(opened, tagger, trim=trim, consistent_labels=consistent_labels, markup=markup))


def read_bundle(directory: Path) -> tuple[bundle.Manifest, dict[str, Path]]:
    """Return the content of a model bundle's manifest.json, and a dict from file names to paths; do not check the files.

    Raise ModelError if the directory is missing or not a bundle, or if the manifest is invalid.
    """
    if not (directory / bundle.MANIFEST).is_file():
        names = [path.name for path in directory.iterdir()] if directory.is_dir() else None
        where = str(directory)
        raise ModelError(bundle.describe_missing(where) if names is None else bundle.describe_other_format(where, names))
    return bundle.read_directory(directory)


def extract(
    config: str | os.PathLike[str] | None = None,
    *overrides: str,
    spark: SparkSession | None = None,
    full: bool = False,
    dry_run: bool = False,
    allow_removals: bool = False,
) -> Summary:
    """Run the job, as `entitymill extract --config CONFIG --set OVERRIDE …` does, and return its summary.

    Unlike the command, this function writes no report page, metrics, lineage or log file, and does not check for drift
    (large differences from earlier runs). As for the command, environment variables override the settings file.

    Args:
        config: YAML file with settings; `base.yaml` in the same directory, if it exists, is read first. None for no file.
        overrides: settings of the form `key.path=value`.
        spark: session to run in. None for the active session or, if there is none, a new one with the settings `spark.*`.
        full: whether to recompute every document, even if nothing changed.
        dry_run: whether to only check the settings, count the documents that a run would process, and write nothing.
        allow_removals: whether to remove all documents that the source no longer has, even if there are more of them than
            limits.max_removed_ratio allows.

    Raises:
        EntityMillError: the run failed for a reason that this program recognizes; the subclass says which.
        PySparkException, Py4JJavaError: Spark or one of its tasks failed; the message may quote a document.
    """
    from entitymill import settings  # noqa: PLC0415  # Spark takes seconds to import, and `load` does not need it
    from entitymill.run import extraction  # noqa: PLC0415
    from entitymill.spark import session  # noqa: PLC0415

    loaded = settings.load(None if config is None else Path(config), overrides)
    sparknlp = loaded.recognition.engine == "sparknlp"
    opened = session.open_session(loaded.spark, "entitymill", sparknlp=sparknlp, spark=spark)
    return extraction.extract(opened, loaded, full=full, dry_run=dry_run, allow_removals=allow_removals)
