"""The sections of the settings: the allowed values and the meaning of each key."""

from __future__ import annotations

import re
from typing import Any, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from entitymill.recognition.tagger import Decoding, Encoding, Markup, Precision
from entitymill.settings import unsupported_source_formats
from entitymill.spark import sql_text

DAY = 86_400  # seconds
DETECTOR_MODEL = "models/sentence_detector"
"""Default path of the saved model of the sentence detector `dl`."""
PRETRAINED = re.compile(r"pretrained:([^/]+)/([a-z]{2,3})")
"""Matches pretrained:NAME/LANGUAGE, the value of a setting that names a model on Spark NLP's models hub."""


class Section(BaseModel):
    """Base class of all sections: unknown keys are errors, sections are immutable, and numbers are accepted for strings."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)


def _parse_names(names: Any) -> Any:
    """Wrap a single name, as in `passthrough=year`, in a tuple; return () for None, and any other value unchanged.

    Raise a ValueError for a string with commas, which is probably several names without brackets, and for duplicate names.
    """
    if isinstance(names, str) and "," in names:
        raise ValueError(f"write several names as a list: [{names}]")
    strings = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if twice := [name for number, name in enumerate(strings) if name in strings[:number]]:
        raise ValueError(f"the list contains {twice[0]!r} twice; remove one")
    return () if names is None else (names,) if isinstance(names, str) else names


def _write_booleans(properties: Any) -> Any:
    """Replace True and False in Spark properties by the strings `true` and `false`; return anything but a dict unchanged."""
    if not isinstance(properties, dict):
        return properties
    return {key: str(value).lower() if isinstance(value, bool) else value for key, value in properties.items()}


class SourceSettings(Section):
    """The text table that the job reads."""

    format: Literal["delta", "parquet", "table"] = Field("delta", description="format of the source; table: a catalog table")
    path: str = Field(min_length=1, description="path of the source, or the table's name with format table")
    id_column: str = Field("id", min_length=1, description="column with unique ids, of any single-valued type")
    text_column: str = Field("text", min_length=1, description="string column with the texts")
    where: str | None = Field(
        None, description="Spark SQL condition that selects rows; a run ignores all others; logs show it unmasked"
    )
    passthrough: tuple[str, ...] = Field(
        (), description="source columns copied to every row of entities", json_schema_extra={"type": ["array", "string"]}
    )
    markup: Markup = Field("none", description="html: tags are not part of sentences and mentions, but count in offsets")
    max_chars: int = Field(1_000_000, ge=1, le=100_000_000, description="largest number of code points of a valid text")
    time_zone: str = Field("UTC", description="time zone of times in source.where and in ids; Spark's own is not used")

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, time_zone: str) -> str:
        """Return `time_zone` unchanged; raise a ValueError if it is not the name of a time zone that Python knows."""
        if time_zone not in available_timezones():
            raise ValueError(f"{time_zone} is not a time zone of the tz database, such as UTC or Europe/Berlin")
        return time_zone

    @field_validator("format", mode="before")
    @classmethod
    def _check_format(cls, format_: Any) -> Any:
        """Return the format unchanged; for CSV and JSON, raise a ValueError that says how to convert the files."""
        kind = unsupported_source_formats.detect_text_format(str(format_))
        if kind is not None:
            advice = unsupported_source_formats.describe_conversion(kind, f"texts.{format_}").removesuffix(".")
            raise ValueError(f"{format_} is not supported; {advice}")
        return format_

    _list = field_validator("passthrough", mode="before")(_parse_names)

    @model_validator(mode="after")
    def _check_table_name(self) -> SourceSettings:
        """Raise a ValueError if `format` is `table`, but `path` is not a valid table name."""
        if self.format == "table":
            sql_text.check_name(self.path, sql_text.MAX_LEVELS)
        return self

    @field_validator("where")
    @classmethod
    def _check_condition(cls, where: str | None) -> str | None:
        """Return `where`; raise a ValueError if it calls a function, such as input_file_name(), that depends on the run."""
        if where is not None:
            sql_text.check_condition(where)
        return where


class OutputSettings(Section):
    """Where the tables are written: a directory, or a catalog schema."""

    path: str | None = Field(None, min_length=1, description="directory of the tables, or else set output.schema")
    schema_: str | None = Field(None, min_length=1, alias="schema", description="catalog schema, instead of output.path")
    format: Literal["delta", "parquet"] = Field("delta", description="format of `entities`; other tables are always Delta")
    annotations: bool = Field(False, description="also write the `annotations` table (Spark NLP's columns ner, ner_chunk)")
    target_file_mb: int = Field(64, ge=1, le=4096, description="target size of a data file of `entities`")
    deletion_vectors: Literal["auto"] | bool = Field(
        "auto",
        description="true: mark deleted rows, and do not rewrite their files; auto: true for tables of 32 MB and more",
    )
    change_feed: bool = Field(False, description="turn on Delta's change data feed of `entities` and `documents`")
    adopt_source: bool = Field(False, description="let a run with a different source take over this output")
    replace_slice: bool = Field(
        False, description="replace only what earlier runs with the same source.where wrote, and keep the rest"
    )

    @model_validator(mode="after")
    def _check_target(self) -> OutputSettings:
        """Raise a ValueError unless exactly one of `path` and a valid `schema` is set; the format `parquet` needs `path`."""
        if (self.path is None) == (self.schema_ is None):
            raise ValueError("set either output.path or output.schema, and the other to null")
        if self.schema_ is not None:
            sql_text.check_name(self.schema_, sql_text.MAX_LEVELS - 1)
        if self.schema_ is not None and self.format == "parquet":
            raise ValueError("`output.format: parquet` needs output.path, because catalog tables are always Delta")
        return self


class SegmentationSettings(Section):
    """How documents are split into sentences."""

    detector: Literal["dl", "rules", "sentencex"] | None = Field(
        None,
        description="sentence detector; empty: dl if segmentation.model is set or if engine or encoding is sparknlp, "
        "otherwise sentencex",
    )
    model: str | None = Field(
        None, min_length=1, description=f"saved SentenceDetectorDLModel for detector dl; empty: {DETECTOR_MODEL}"
    )


class ModelSettings(Section):
    """The model that predicts a tag for each token."""

    path: str = Field("models/demo", min_length=1, description="model bundle")


class RecognitionSettings(Section):
    """How the model runs: engine, encoding (how tokens become the model's input), and precision."""

    engine: Literal["openvino", "sparknlp"] = Field(
        "openvino", description="openvino: in the Python workers; sparknlp: Spark NLP's own engine in the JVM"
    )
    encoding: Encoding = Field(
        "complete",
        description="how a token becomes the model's input; complete: all its pieces (subwords); "
        "sparknlp: as Spark NLP does, always with engine sparknlp",
    )
    precision: Precision = Field(
        "f32", description="number format of the computation; int8 is usually fastest, and needs 8-bit weights"
    )
    sparknlp_model: str | None = Field(
        None, min_length=1, description="for engine sparknlp: saved classifier or PipelineModel, or pretrained:NAME/LANGUAGE"
    )

    @model_validator(mode="after")
    def _check_model(self) -> RecognitionSettings:
        """Raise a ValueError if the engine is `sparknlp`, but `sparknlp_model` is not set."""
        if self.engine == "sparknlp" and self.sparknlp_model is None:
            raise ValueError(
                "`engine: sparknlp` needs recognition.sparknlp_model: a saved Spark NLP model, or pretrained:NAME/LANGUAGE"
            )
        return self


class MentionSettings(Section):
    """How the model's tags become mentions."""

    trim: bool | None = Field(
        None,
        description="remove possessive endings and stray punctuation from mentions; empty: yes, except with engine or "
        "encoding sparknlp",
    )
    decoding: Decoding | None = Field(
        None,
        description="viterbi: most probable valid sequence; argmax: the best tag of each token; empty: viterbi, "
        "except with engine or encoding sparknlp",
    )
    consistent_labels: bool | None = Field(
        None,
        description="give mentions spelled alike within a document the same label; empty: yes, except with engine or "
        "encoding sparknlp",
    )


def _parse_probability(value: Any) -> float:
    """Return a value as a number; raise ValueError or TypeError if it is not a number from 0 to 1."""
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError
    return number


class EntitySettings(Section):
    """Which mentions become rows of `entities`."""

    labels: tuple[str, ...] = Field(
        (), description="only mentions with these labels; empty: all labels", json_schema_extra={"type": ["array", "string"]}
    )
    min_confidence: float | dict[str, float] = Field(
        0.0, description="smallest confidence of a mention: one number, or one per label, as in {PER: 0.8} (other labels: 0)"
    )

    _list = field_validator("labels", mode="before")(_parse_names)

    @field_validator("min_confidence", mode="before")
    @classmethod
    def _parse_probabilities(cls, value: Any) -> Any:
        """Convert the value of `min_confidence` to one number, or to a dict from labels to numbers; {} becomes 0.

        Raise a ValueError if the value, or one in the dict, is not a number from 0 to 1.
        """
        try:
            by_label = {label: _parse_probability(raw) for label, raw in value.items()} if isinstance(value, dict) else None
            return _parse_probability(value) if by_label is None else by_label or 0.0
        except (TypeError, ValueError, OverflowError) as error:
            expected = "must be a number from 0 to 1, or one number per label, such as {PER: 0.8, ORG: 0.5}"
            raise ValueError(expected) from error

    @model_validator(mode="after")
    def _check_labels(self) -> EntitySettings:
        """Raise a ValueError if `labels` is not empty, but does not list each label that `min_confidence` names."""
        others = [label for label in self.by_label if self.labels and label not in self.labels]
        if others:
            raise ValueError(f"min_confidence has the label {others[0]}, which is not in labels: list it in both or neither")
        return self

    @property
    def by_label(self) -> dict[str, float]:
        """Return `min_confidence` if it is a dict from labels to numbers; if it is one number, return an empty dict."""
        return self.min_confidence if isinstance(self.min_confidence, dict) else {}

    @property
    def referenced_labels(self) -> tuple[str, ...]:
        """Return the labels that `labels` or `min_confidence` names, without duplicates."""
        return tuple(dict.fromkeys((*self.labels, *self.by_label)))


class IncrementalSettings(Section):
    """What a run does with unchanged documents if the model or settings have changed."""

    on_fingerprint_change: Literal["reprocess", "refuse", "ignore"] = Field(
        "reprocess", description="what to do if the model, the precision or another setting that affects results has changed"
    )


class LimitSettings(Section):
    """How much a run may reject, remove, use and cost, and how long it waits for the model's process and for other runs."""

    max_reject_ratio: float = Field(0.05, ge=0, le=1, description="share of rejected rows above which nothing is published")
    max_removed_ratio: float = Field(
        0.2, ge=0, le=1, description="largest share of the documents that a run may remove; --allow-removals lifts it once"
    )
    batch_seconds: float = Field(
        300, gt=0, le=DAY, description="time limit for each window (batch) of about 1,024 sentences; larger ones get more"
    )
    tagger_mb: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="MB of memory for a tagger (process that runs the model), besides the model; "
        "texts that need more are rejected",
    )
    unit_rows: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="largest number of documents in a unit (committed together); empty: depends on the cores",
    )
    unit_mb: int | None = Field(
        None, ge=1, le=1_000_000, description="largest size of a unit, in million characters; empty: depends on the cores"
    )
    max_core_hours: float | None = Field(
        None, gt=0, le=1_000_000_000, description="core-hours after which a run starts no other unit and exits with code 7"
    )
    lease_seconds: int = Field(
        120, ge=1, le=7 * DAY, description="seconds after a run's last heartbeat until another run may take over its output"
    )
    wait_seconds: int = Field(
        900, ge=0, le=7 * DAY, description="how many seconds a run waits for another run on the same output"
    )


class SparkSettings(Section):
    """The Spark session, if this program starts one. Under spark-submit and in a notebook, only `partitions` is used."""

    master: str = Field("local[*]", description="address of the Spark master")
    jars: str = Field("build/jars", description="directories with jars, separated by commas")
    class_archive: Literal["use", "make", "off"] = Field(
        "use",
        description="archive of Java classes, so that local runs start faster; use: an existing one; make: also create it",
    )
    conf: dict[str, str] = Field(default_factory=dict, description="any Spark property")
    partitions: int | None = Field(
        None, ge=1, le=1_000_000, description="number of tasks for the documents; empty: depends on their size"
    )

    _conf = field_validator("conf", mode="before")(_write_booleans)
