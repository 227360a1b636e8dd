"""The API for Python programs: find mentions in texts without Spark, and run the job without its command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from entitymill.errors import ModelError, SettingsError
from entitymill.recognition import sentences
from entitymill.recognition.recogniser import Recogniser
from entitymill.recognition.tagger import Decoding, Execution, Precision, bundle
from entitymill.recognition.tagger.inference import Tagger

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from entitymill.run.summary import Summary

_SURROGATE = re.compile("[\ud800-\udfff]")
DETECTOR = "sentence_detector"
"""Name of the directory next to a model from which the sentence detector is loaded, unless another is given."""


@dataclass(frozen=True)
class Mention:
    """One mention of an entity in a text; offsets are code points, ends exclusive: text[begin:end] == entity.

    Attributes:
        begin: offset of its first code point in the text.
        end: offset after its last one.
        entity: its text.
        label: PER, ORG, LOC, MISC, or another label of the model.
        confidence: mean probability of the mention's tokens for their own tags.
        token_count: number of its tokens.
        sentence_id: number of its sentence in the text, from 0.
        sentence_begin: offset of that sentence's first code point.
        sentence_end: offset after its last one.
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
    """Finds the mentions of texts, exactly as the job does with the same settings. Threads must not share an instance."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser

    @overload
    def __call__(self, texts: str) -> list[Mention]: ...

    @overload
    def __call__(
        self, texts: Iterable[str | None]
    ) -> Any: ...  # pyarrow has no type hints, and its arrays are iterable, too

    def __call__(self, texts: str | Iterable[str | None]) -> Any:
        """Return the mentions of one or several texts.

        Args:
            texts: one text; several (a list, a pandas or Polars column); or an Arrow array of strings.

        Returns:
            For one text its mentions; for several a list of these for each, in order, empty where a text is None; for an
            Arrow array a list array of structs with the fields of `Mention`, null where a text is null.

        Raises:
            TypeError: something is not a string.
        """
        if isinstance(texts, str):
            return self._tag_list([texts])[0]
        if isinstance(texts, (pa.Array, pa.ChunkedArray)):
            return self._tag_arrow(texts)
        return self._tag_list(list(texts))

    def _tag_list(self, texts: Sequence[object]) -> list[list[Mention]]:
        strings = [_to_string(text) for text in texts]
        # A lone surrogate cannot be encoded as UTF-8; its replacement is one code point, too, so offsets stay correct.
        found = self._recogniser(pa.array([_SURROGATE.sub("\ufffd", text) for text in strings], pa.large_string()))
        result = []
        for text, mentions in zip(strings, found.mentions.to_pylist(), strict=True):
            result.append([Mention(**{**row, "entity": text[row["begin"] : row["end"]]}) for row in mentions])
        return result

    def _tag_arrow(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        if isinstance(column, pa.ChunkedArray):  # some versions return one if there is no chunk at all
            column = pa.array([], texts.type)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if str(kind) not in ("string", "large_string", "string_view", "null"):
                raise TypeError(f"a text is a string, not {column.type}")
            column = column.cast(pa.large_string())
        found = self._recogniser(pc.fill_null(column, "")).mentions
        structs = pa.StructArray.from_arrays([found.flatten().field(name) for name in _FIELDS], names=_FIELDS)
        # An offset that is null makes its list null.
        missing = np.append(column.is_null().to_numpy(zero_copy_only=False), False)
        offsets = pa.array(found.offsets.to_numpy(), mask=missing)
        return pa.ListArray.from_arrays(offsets.cast(pa.int32()), structs)


def _to_string(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    # pandas stores NA or NaN instead of None, depending on the type of the column.
    if type(value).__name__ == "NAType" or (isinstance(value, float) and value != value):  # noqa: PLR0124  # NaN
        return ""
    raise TypeError(f"a text is a string, not {type(value).__name__}")


def load(
    model: str | os.PathLike[str],
    *,
    detector: sentences.Kind = "dl",
    detector_model: str | os.PathLike[str] | None = None,
    precision: Precision = "f32",
    trim: bool = True,
    decoding: Decoding = "viterbi",
    consistent_labels: bool = True,
    threads: int | None = None,
) -> TextTagger:
    """Load a model and return a tagger that works without Spark.

    Args:
        model: a bundle's directory, such as models/demo; each file is checked against the manifest.
        detector: the sentence detector.
        detector_model: for dl: a saved SentenceDetectorDLModel; none: the directory `sentence_detector` next to the model
            or, in a checkout of the repository, the bundled one.
        precision: the number format in which the model runs.
        trim: remove possessive endings and stray punctuation from mentions.
        decoding: viterbi for the most probable valid sequence of tags, or argmax for each token's most probable tag.
        consistent_labels: give the same label to mentions of one text that are spelled alike.
        threads: number of threads for inference; none: one per core.

    Raises:
        ModelError: a model is missing, altered or damaged, or does not run in that precision.
        SettingsError: there is no such detector, precision or decoding.
    """
    for name, value, known in (
        ("detector", detector, sentences.Kind),
        ("precision", precision, Precision),
        ("decoding", decoding, Decoding),
    ):
        if value not in get_args(known):
            raise SettingsError(f"{name}: {value!r} is not one of {', '.join(get_args(known))}.")
    directory = Path(model)
    if not (directory / bundle.MANIFEST).is_file():
        held = [path.name for path in directory.iterdir()] if directory.is_dir() else None
        named = os.fspath(model)
        raise ModelError(bundle.describe_missing(named) if held is None else bundle.describe_other_format(named, held))
    manifest, files = bundle.read_directory(directory)
    places = [directory.resolve().parent / DETECTOR, Path(__file__).parents[2] / "models" / DETECTOR]
    saved = Path(detector_model) if detector_model is not None else next(filter(Path.is_dir, places), places[0])
    found = sentences.open_detector(detector, sentences.find_detector_files(saved) if detector == "dl" else {}, str(saved))
    how = Execution(precision, threads=threads or len(os.sched_getaffinity(0)), decoding=decoding)
    tagger = Tagger.load(files, manifest, how, str(directory))
    return TextTagger(Recogniser(found, tagger, trim=trim, consistent_labels=consistent_labels))


def extract(
    config: str | os.PathLike[str] | None = None,
    *overrides: str,
    spark: SparkSession | None = None,
    full: bool = False,
    dry_run: bool = False,
    allow_removals: bool = False,
) -> Summary:
    """Run the job, as `entitymill extract --config CONFIG --set OVERRIDE …` does, and return its summary.

    Environment variables override the file here, too.

    Args:
        config: a YAML file of settings; `base.yaml` next to it is read first.
        overrides: settings, each `key.path=value`.
        spark: the session to run in; none: the active one, or one that `settings.spark` describes.
        full: reprocess every document, and replace the tables when all are done.
        dry_run: check and count, write nothing.
        allow_removals: remove every document that the source no longer has, whatever limits.max_removed_ratio says.

    Raises:
        EntityMillError: the run failed; the subclass tells why.
    """
    from entitymill import settings  # noqa: PLC0415  # Spark takes seconds to import, and `load` does not need it
    from entitymill.run import extraction  # noqa: PLC0415
    from entitymill.spark import session  # noqa: PLC0415

    loaded = settings.load(None if config is None else Path(config), overrides)
    sparknlp = loaded.recognition.engine == "sparknlp"
    opened = session.open_session(loaded.spark, "entitymill", sparknlp=sparknlp, spark=spark)
    return extraction.extract(opened, loaded, full=full, dry_run=dry_run, allow_removals=allow_removals)
