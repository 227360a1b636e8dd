"""The sections of the settings: what each key may be, and what it means."""

from __future__ import annotations

import re
from typing import Any, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from entitymill.platform import sql_text
from entitymill.recognition.tagger import Decoding, Encoding, Precision
from entitymill.settings import unsupported_formats

DAY = 86_400
"""Seconds."""
PRETRAINED = re.compile(r"pretrained:([^/]+)/([a-z]{2,3})")
"""How a setting names a model of Spark NLP's models hub: pretrained:NAME/LANGUAGE."""


class Section(BaseModel):
    """One of them: unknown keys are refused, and nothing changes once it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)


def _list_of(names: Any) -> Any:
    """One name is a list of one: passthrough=year."""
    if isinstance(names, str) and "," in names:
        raise ValueError(f"several are written as a list: [{names}]")
    return (names,) if isinstance(names, str) else names


class SourceSettings(Section):
    """The text table."""

    format: Literal["delta", "parquet", "table"] = Field("delta", description="what source.path names; table: of a catalog")
    path: str = Field(min_length=1, description="a path, or with format table a table's name")
    id_column: str = Field("id", min_length=1, description="unique, of any single-valued type")
    text_column: str = Field("text", min_length=1, description="of strings")
    where: str | None = Field(
        None, description="a Spark SQL condition; rows that fail it do not exist for this run; it is logged as it is"
    )
    passthrough: tuple[str, ...] = Field(
        (), description="columns copied to every entity row", json_schema_extra={"type": ["array", "string"]}
    )
    max_chars: int = Field(1_000_000, ge=1, le=100_000_000, description="code points; a longer text is rejected")
    time_zone: str = Field("UTC", description="in which source.where and ids read times; the session's own has no say")

    @field_validator("time_zone")
    @classmethod
    def _a_zone(cls, time_zone: str) -> str:
        if time_zone not in available_timezones():
            raise ValueError(f"{time_zone} is not a time zone of the tz database, such as UTC or Europe/Berlin")
        return time_zone

    @field_validator("format", mode="before")
    @classmethod
    def _a_table(cls, format_: Any) -> Any:
        kind = unsupported_formats.kind(str(format_))
        if kind is not None:
            raise ValueError(
                f"{format_} is not read; {unsupported_formats.advice(kind, f'texts.{format_}')}".removesuffix(".")
            )
        return format_

    _list = field_validator("passthrough", mode="before")(_list_of)

    @model_validator(mode="after")
    def _a_name(self) -> SourceSettings:
        if self.format == "table":
            sql_text.check(self.path, sql_text.MOST_LEVELS)
        return self

    @field_validator("where")
    @classmethod
    def _of_rows(cls, where: str | None) -> str | None:
        if where is not None:
            sql_text.check_condition(where)
        return where


class OutputSettings(Section):
    """Where the four tables go: a directory, or a catalog schema."""

    path: str | None = Field(None, min_length=1, description="directory of the tables, or else output.schema")
    schema_: str | None = Field(None, min_length=1, alias="schema", description="catalog schema of the tables")
    format: Literal["delta", "parquet"] = Field("delta", description="of `entities`; the other tables are always Delta")
    annotations: bool = Field(False, description="also write the table `annotations`: Spark NLP's columns ner and ner_chunk")
    target_file_mb: int = Field(64, ge=1, le=4096, description="aimed size of a data file of `entities`")
    deletion_vectors: bool = Field(
        True, description="a change writes what changed and marks old rows; off for readers that know no deletion vectors"
    )
    adopt_source: bool = Field(False, description="another source than that of the runs before may take this output over")
    replace_slice: bool = Field(
        False, description="the run is about the rows of source.where alone, and replaces what an earlier run of it wrote"
    )

    @model_validator(mode="after")
    def _one_place(self) -> OutputSettings:
        if (self.path is None) == (self.schema_ is None):
            raise ValueError("set either output.path or output.schema")
        if self.schema_ is not None:
            sql_text.check(self.schema_, sql_text.MOST_LEVELS - 1)
        if self.schema_ is not None and self.format == "parquet":
            raise ValueError("output.format parquet needs output.path: a catalog table is always Delta")
        return self


class SegmentationSettings(Section):
    """How documents become sentences and tokens."""

    detector: Literal["dl", "rules", "sentencex"] = Field(
        "dl", description="a saved SentenceDetectorDLModel; Spark NLP's rules; or the package sentencex"
    )
    model: str = Field("models/sentence_detector", description="a saved SentenceDetectorDLModel, for detector dl")


class ModelSettings(Section):
    """The token classifier."""

    path: str = Field("models/demo", min_length=1, description="a model bundle")


class RecognitionSettings(Section):
    """How the model is run."""

    engine: Literal["openvino", "sparknlp"] = Field("openvino", description="in Python workers, or Spark NLP's in the JVM")
    encoding: Encoding = Field(
        "complete",
        description="complete: every piece of a token, the model's own normalization; sparknlp: as Spark NLP does it, which "
        "engine sparknlp always does",
    )
    precision: Precision = Field("f32", description="of execution; int8 is the fastest, and needs 8-bit weights")
    sparknlp_model: str | None = Field(
        None,
        min_length=1,
        description="for engine sparknlp: a saved classifier or PipelineModel, or pretrained:NAME/LANGUAGE",
    )

    @model_validator(mode="after")
    def _model_of_engine(self) -> RecognitionSettings:
        if self.engine == "sparknlp" and self.sparknlp_model is None:
            raise ValueError(
                "engine sparknlp needs recognition.sparknlp_model: a saved Spark NLP model, or pretrained:NAME/LANGUAGE"
            )
        return self


class MentionSettings(Section):
    """What becomes of the spans that were tagged."""

    trim: bool | None = Field(
        None,
        description="take a possessive ending and stray punctuation off their ends; empty: yes, but not with engine or "
        "encoding sparknlp",
    )
    decoding: Decoding | None = Field(
        None,
        description="viterbi: the most probable valid sequence of tags; argmax: each token's most probable tag; empty: "
        "viterbi, but argmax with engine or encoding sparknlp, which allow nothing else",
    )
    consistent_labels: bool | None = Field(
        None,
        description="give mentions that are spelled alike within a document the same label; empty: yes, but not with engine "
        "or encoding sparknlp",
    )


def _probability(given: Any) -> float:
    number = float(given)
    if isinstance(given, bool) or not 0 <= number <= 1:
        raise ValueError
    return number


class EntitySettings(Section):
    """Which mentions become rows of `entities`."""

    labels: tuple[str, ...] = Field(
        (), description="mentions of these labels alone; empty: of all", json_schema_extra={"type": ["array", "string"]}
    )
    min_confidence: float | dict[str, float] = Field(
        0.0, description="mentions below it are left out: a number, or one by label, {PER: 0.8}; labels not named: 0"
    )

    _list = field_validator("labels", mode="before")(_list_of)

    @field_validator("min_confidence", mode="before")
    @classmethod
    def _probabilities(cls, least: Any) -> Any:
        try:
            by_label = {label: _probability(one) for label, one in least.items()} if isinstance(least, dict) else None
            return _probability(least) if by_label is None else by_label or 0.0
        except (TypeError, ValueError, OverflowError) as error:
            wanted = "must be a number from 0 to 1, or one by label, such as {PER: 0.8, ORG: 0.5}"
            raise ValueError(wanted) from error

    @model_validator(mode="after")
    def _of_these(self) -> EntitySettings:
        others = [label for label in self.by_label if self.labels and label not in self.labels]
        if others:
            raise ValueError(f"min_confidence names {others[0]}, which is not among labels")
        return self

    @property
    def by_label(self) -> dict[str, float]:
        """Label -> least confidence; empty where one number is for all."""
        return self.min_confidence if isinstance(self.min_confidence, dict) else {}

    @property
    def named(self) -> tuple[str, ...]:
        """Every label that is named."""
        return tuple(dict.fromkeys((*self.labels, *self.by_label)))


class IncrementalSettings(Section):
    """What becomes of documents that did not change."""

    on_fingerprint_change: Literal["reprocess", "refuse", "ignore"] = Field(
        "reprocess", description="when model, precision or a setting that decides results differs from that of earlier runs"
    )


class LimitSettings(Section):
    """When a run refuses to go on."""

    max_reject_ratio: float = Field(0.05, ge=0, le=1, description="share of refused rows above which nothing is published")
    max_removed_ratio: float = Field(
        0.2, ge=0, le=1, description="largest share of the documents a run may take out; --allow-removals lifts it once"
    )
    batch_seconds: float = Field(
        300, gt=0, le=DAY, description="what a worker's window of some 1,024 sentences may take; more for a larger one"
    )
    unit_rows: int = Field(
        100_000, ge=1, le=1_000_000_000, description="documents that are recognised and committed together, about"
    )
    unit_mb: int = Field(256, ge=1, le=1_000_000, description="million characters of a unit, about")
    lease_seconds: int = Field(
        120, ge=1, le=7 * DAY, description="after so long without a sign of life another run may take over"
    )
    wait_seconds: int = Field(900, ge=0, le=7 * DAY, description="how long a run waits for another one on the same output")


class SparkSettings(Section):
    """The Spark session, where this program starts one; ignored under spark-submit and in a notebook."""

    master: str = Field("local[*]", description="where Spark runs")
    jars: str = Field("build/jars", description="directories of jars, commas between them")
    conf: dict[str, str] = Field(default_factory=dict, description="any Spark property")
    partitions: int | None = Field(
        None, ge=1, le=1_000_000, description="tasks that documents are spread over; empty: by their volume"
    )
