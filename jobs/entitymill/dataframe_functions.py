"""Find the mentions of entities in a text column of any Spark DataFrame, batch or streaming.

The job (`entitymill extract`) finds the same mentions if its settings have the same values as the options here. A call of
`mentions` or `udf` reads and checks the model on the driver, and sends the model to the executors. Spark reads the texts
only when it computes the result. Neither function writes a table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import pandas_udf

from entitymill import errors, schemas
from entitymill.errors import SettingsError, WorkerError
from entitymill.recognition.sentences import DetectorKind, choose_detector_kind
from entitymill.recognition.tagger import Decoding, Execution, Markup, Precision, check_choice, check_flags, check_precision
from entitymill.settings.sections import DETECTOR_MODEL
from entitymill.spark import session
from entitymill.spark.sql_text import quote_part
from entitymill.workers import engine_openvino
from entitymill.workers.worker import RecognitionOptions, Worker

if TYPE_CHECKING:
    import pandas as pd

_FIELDS = tuple(schemas.MENTIONS.elementType.names)  # type: ignore[attr-defined]
_ADVICE = "; remove the text, or run the job (entitymill extract), which records the document in the table rejects"


def mentions(
    df: DataFrame, id_column: str = "id", text_column: str = "text", *, model: str | os.PathLike[str], **options: Any
) -> DataFrame:
    """Return a DataFrame with one row for each mention in a column of texts.

    Args:
        df: any DataFrame, batch or streaming; rows whose text is null have no mentions.
        id_column: name of a column of any type, which is copied to each returned row.
        text_column: name of a column of strings.
        model: directory of a model bundle, such as models/demo, on any file system that Spark can read.
        options: detector, detector_model, precision, trim, decoding, consistent_labels, markup and batch_seconds. `load`
            explains all but the last. Unlike in `load`, the default of detector_model is models/sentence_detector.
            batch_seconds is the time limit for a batch of texts, in seconds, like the setting `limits.batch_seconds`.

    Returns:
        A lazy DataFrame with the id column and one column per field of `Mention`. When Spark computes it, a task fails if
        the model crashes on a text, or needs more than batch_seconds for a single text.

    Raises:
        ModelError: a model is missing, altered or damaged, or precision is int8 but the model's weights are not.
        SettingsError: an option is unknown or has a value that is not allowed; the DataFrame lacks the id or text column; or
            the id column has the name of a field of `Mention`.
    """
    names = _read_column_names(df)
    for column in (id_column, text_column):
        if names is not None and column not in names:
            raise SettingsError(f"the DataFrame has no column {column}; it has {', '.join(names)}.")
    if id_column.lower() in _FIELDS:
        raise SettingsError(f"id_column: {id_column} is also a field of Mention; rename the column first.")
    worker = _ship_worker(df.sparkSession, model, _Options(**_check_options(options)))
    if names is None:
        return _find_without_schema(df, id_column, text_column, worker)
    id_, texts = (df[quote_part(column)] for column in (id_column, text_column))  # in unquoted names, a dot selects a field
    # Bytes that are not valid UTF-8 are replaced with U+FFFD.
    text = F.coalesce(F.decode(F.encode(texts, "UTF-8"), "UTF-8"), F.lit(""))
    rows = df.select(
        F.coalesce(id_.cast("string"), F.lit("null")).alias("doc_id"),
        F.lit("").alias("text_hash"),
        F.length(text).alias("chars"),
        text.alias("text"),
        F.struct(id_.alias("id")).alias("passthrough"),
    )
    returned = T.StructType([*schemas.RECOGNIZED, rows.schema["passthrough"]])
    found = rows.mapInArrow(worker, returned)
    reason = F.concat_ws(", ", "failure.code", "failure.detail")
    failure = F.concat(F.lit("recognition failed on a text: "), reason, F.lit(_ADVICE))
    listed = F.when(F.col("failure").isNotNull(), F.raise_error(failure)).otherwise(F.col("mentions"))
    return _split_mentions(found.select(F.col("passthrough.id").alias("id"), F.explode(listed).alias("mention")), id_column)


def _read_column_names(df: DataFrame) -> list[str] | None:
    """Return the names of a DataFrame's columns; None if this code runs in a query function of a declarative pipeline.

    Spark does not let such query functions read the schema of a DataFrame.
    """
    try:
        return df.columns
    except PySparkException as error:
        if "ATTEMPT_ANALYSIS_IN_PIPELINE_QUERY_FUNCTION" not in str(error):
            raise
        return None


def _find_without_schema(df: DataFrame, id_column: str, text_column: str, worker: Worker) -> DataFrame:
    """Return the result of `mentions` for a DataFrame whose schema is not known; `worker` finds the mentions.

    `mentions` itself calls `mapInArrow`, which needs the type of the id column. This function calls a pandas UDF instead.
    """
    make_udf: Any = pandas_udf
    find = make_udf(_ColumnRecognizer(worker).build_function(), schemas.MENTIONS)
    id_, texts = (F.col(quote_part(column)) for column in (id_column, text_column))
    text = F.decode(F.encode(texts, "UTF-8"), "UTF-8")
    return _split_mentions(df.select(id_.alias("id"), F.explode(find(text)).alias("mention")), id_column)


def _split_mentions(rows: DataFrame, id_column: str) -> DataFrame:
    """Return the rows with the column `id` renamed to `id_column`, and the fields of the column `mention` as columns."""
    return rows.select(F.col("id").alias(id_column), *(F.col(f"mention.{name}") for name in _FIELDS))


def udf(*, model: str | os.PathLike[str], spark: SparkSession | None = None, **options: Any) -> Any:
    """Return a pandas UDF, for DataFrames and Spark SQL, that takes a column of texts and returns their mentions.

    To use the UDF in SQL, register it first: `spark.udf.register("entities", entitymill.udf(model="models/demo"))`. Then run
    `SELECT id, explode(entities(text)) FROM texts`.

    Args:
        model: directory of a model bundle, such as models/demo, on any file system that Spark can read.
        spark: session whose executors get the model; None for the active session or, without one, this process's session.
        options: the same options that `mentions` accepts.

    Returns:
        A pandas UDF with the result type schemas.MENTIONS. For each text, its result is an array of structs with the fields
        of `Mention`, or null if the text is null. When Spark calls the UDF, a task fails if the model crashes on a text, or
        needs more than batch_seconds for a single text.

    Raises:
        ModelError: a model is missing, altered or damaged, or precision is int8 but the model's weights are not.
        SettingsError: an option is unknown or has a value that is not allowed; or `spark` is None and this process has no
            session.
    """
    opened = spark or session.find_session()
    if opened is None:
        raise SettingsError(
            "There is no Spark session in this process: start one, or pass one to udf as the argument `spark`."
        )
    make_udf: Any = pandas_udf  # the type hints of pandas_udf do not allow an array of structs
    worker = _ship_worker(opened, model, _Options(**_check_options(options)))
    return make_udf(_ColumnRecognizer(worker).build_function(), schemas.MENTIONS)


@dataclass(frozen=True)
class _Options:
    """The options of `mentions` and `udf`.

    detector, detector_model: kind of sentence detector, and directory of its saved model; None for the default.
    precision: number format in which the model runs: f32, bf16 or int8.
    trim: whether to remove possessive endings and stray punctuation from mentions.
    decoding: viterbi for the most probable valid sequence of tags, or argmax for each token's most probable tag.
    consistent_labels: whether all mentions with the same spelling in a text get the same label.
    markup: `html` to ignore HTML tags in the texts, `none` to treat them as text.
    batch_seconds: time limit for a batch of texts, in seconds.
    """

    detector: DetectorKind | None = None
    detector_model: str | os.PathLike[str] | None = None
    precision: Precision = "f32"
    trim: bool = True
    decoding: Decoding = "viterbi"
    consistent_labels: bool = True
    markup: Markup = "none"
    batch_seconds: float = 300.0


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Check the names and values of options, and return the options that are not None. None stands for the default.

    Raise SettingsError if a name is unknown, or if an option has a value that is not allowed.
    """
    names = tuple(_Options.__dataclass_fields__)
    unknown = [name for name in options if name not in names]
    if unknown:
        raise SettingsError(f"{unknown[0]} is not an option; the options are {', '.join(names)}.")
    given = {name: value for name, value in options.items() if value is not None}
    for name, allowed in (("detector", DetectorKind), ("precision", Precision), ("decoding", Decoding), ("markup", Markup)):
        if name in given:
            check_choice(name, given[name], allowed)
    check_flags(**{name: given[name] for name in ("trim", "consistent_labels") if name in given})
    seconds = given.get("batch_seconds", 1.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise SettingsError(f"batch_seconds must be a positive number of seconds, not {seconds!r}.")
    return given


def _ship_worker(spark: SparkSession, model: str | os.PathLike[str], chosen: _Options) -> Worker:
    """Send this package, the model and the sentence detector to the executors, and return the worker that uses them.

    The worker is a callable for `mapInArrow`: it takes an iterator of Arrow batches, and yields Arrow batches. `chosen` are
    the user's options. Raise ModelError if a model is missing, altered or damaged, or lacks the weights for precision int8.
    """
    session.ship_package(spark)
    kind = choose_detector_kind(chosen.detector, chosen.detector_model)
    detector = engine_openvino.ship_detector(spark, kind, os.fspath(chosen.detector_model or DETECTOR_MODEL))
    shipped = engine_openvino.ship_model(spark, os.fspath(model))
    check_precision(chosen.precision, shipped.manifest.precision)
    threads = int(spark.conf.get("spark.task.cpus", "1") or "1")
    execution = Execution(chosen.precision, threads=threads, decoding=chosen.decoding)
    recognition = RecognitionOptions(
        execution,
        kind,
        chosen.trim,
        consistent_labels=chosen.consistent_labels,
        markup=chosen.markup,
        memory_share=engine_openvino.compute_memory_share(spark),
    )
    return Worker(shipped, detector, recognition, chosen.batch_seconds, engine_openvino.FACTORY, errors.SIGNATURE)


@dataclass(frozen=True)
class _ColumnRecognizer:
    """Finds the mentions in pandas columns of texts, for the pandas UDFs of `udf` and `_find_without_schema`."""

    worker: Worker

    def build_function(self) -> Callable[[Iterator[pd.Series]], Iterator[pd.Series]]:
        """Return the function to pass to `pandas_udf`, with the type hints that `pandas_udf` needs."""
        import pandas as pd  # noqa: PLC0415

        def recognize(columns: Iterator[pd.Series]) -> Iterator[pd.Series]:
            """Yield a column of mentions for each column of texts."""
            for column in columns:
                yield pd.Series(self.recognize(column), index=column.index, dtype=object)

        recognize.__annotations__ = {"columns": Iterator[pd.Series], "return": Iterator[pd.Series]}
        return recognize

    def recognize(self, column: pd.Series) -> list[list[dict[str, Any]] | None]:
        """Return, for each text, a list of its mentions as dicts, or None if the text is null (None or NaN).

        A value that is not a string is converted to one. Raise WorkerError if the model crashes on a text, or needs more
        than the option batch_seconds for a single text.
        """
        texts = [None if text is None or text != text else str(text) for text in column]  # noqa: PLR0124  # NaN
        if not texts:
            return []
        unused = pa.array([""] * len(texts), pa.string())
        strings = pa.array([text or "" for text in texts], pa.large_string())
        chars = pa.array([len(text or "") for text in texts], pa.int32())
        batch = pa.RecordBatch.from_arrays([unused, unused, chars, strings], ["doc_id", "text_hash", "chars", "text"])
        found: list[list[dict[str, Any]] | None] = []
        for result in self.worker([batch]):
            for row in result.to_pylist():
                failure = row["failure"]
                if failure is not None:
                    raise WorkerError(f"recognition failed on a text: {failure['code']}, {failure['detail']}{_ADVICE}")
                found.append([{name: mention[name] for name in _FIELDS} for mention in row["mentions"]])
        return [None if text is None else rows for text, rows in zip(texts, found, strict=True)]
