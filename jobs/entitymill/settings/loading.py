"""Load all settings and validate them; an unknown key is an error.

Settings are read in layers, and later layers override earlier ones: first `base.yaml` in the directory of the settings file,
then the settings file, then environment variables `ENTITYMILL__KEY__PATH`, then options `--set key.path=value`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from entitymill.errors import SettingsError
from entitymill.recognition.tagger import Decoding
from entitymill.settings import report_sections, secret_masking, sections
from entitymill.settings.layers import Layers, suggest_keys

_KINDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text; put true, false and dates in quotes",
    "tuple_type": "a list, such as [a, b]",
    "list_type": "a list, such as [a, b]",
    "dict_type": "names with values, such as {a: b}",
}
"""Dict from the type of a pydantic error to what the setting must be."""

if TYPE_CHECKING:  # recognition.sentences imports sentencex, which settings do not need
    from pydantic_core import ErrorDetails

    from entitymill.recognition.sentences import Kind


class Settings(sections.Section):
    """All settings of one run."""

    source: sections.SourceSettings
    output: sections.OutputSettings
    segmentation: sections.SegmentationSettings = sections.SegmentationSettings()
    model: sections.ModelSettings = sections.ModelSettings()
    recognition: sections.RecognitionSettings = sections.RecognitionSettings()
    mentions: sections.MentionSettings = sections.MentionSettings()
    entities: sections.EntitySettings = sections.EntitySettings()
    incremental: sections.IncrementalSettings = sections.IncrementalSettings()
    limits: sections.LimitSettings = sections.LimitSettings()
    cost: report_sections.CostSettings = report_sections.CostSettings()
    report: report_sections.ReportSettings = report_sections.ReportSettings()
    metrics: report_sections.MetricsSettings = report_sections.MetricsSettings()
    lineage: report_sections.LineageSettings = report_sections.LineageSettings()
    spark: sections.SparkSettings = sections.SparkSettings()
    log: str | None = Field(None, description="file for the log and stack traces, or stderr; empty: a new temporary file")

    @model_validator(mode="after")
    def _check_slice(self) -> Settings:
        """Check that `source.where` is set if the run replaces only part of the output: the condition selects this part."""
        if self.output.replace_slice and self.source.where is None:
            raise ValueError("output.replace_slice needs source.where, the condition that selects the rows to replace")
        return self

    @model_validator(mode="after")
    def _check_date_column(self) -> Settings:
        """Check that the column of dates for the report page is a passthrough column."""
        column = self.report.date_column
        if column is not None and column not in self.source.passthrough:
            raise ValueError(f"report.date_column: {column} must be one of the columns in source.passthrough")
        return self

    @model_validator(mode="after")
    def _check_detector(self) -> Settings:
        """Check that the selected engine has the selected sentence detector."""
        if self.segmentation.detector == "sentencex" and self.recognition.engine == "sparknlp":
            raise ValueError(
                "`segmentation.detector: sentencex` needs `recognition.engine: openvino`: Spark NLP has no such detector"
            )
        return self

    @model_validator(mode="after")
    def _check_markup(self) -> Settings:
        """Check that the selected engine can ignore HTML tags, if the texts are HTML."""
        if self.source.markup != "none" and self.recognition.engine == "sparknlp":
            raise ValueError(
                "`source.markup: html` needs `recognition.engine: openvino`, because Spark NLP reads tags as text"
            )
        return self

    @model_validator(mode="after")
    def _check_decoding(self) -> Settings:
        """Check that `viterbi` decoding is not selected together with Spark NLP's engine or encoding."""
        if self.mentions.decoding == "viterbi" and self._follows_sparknlp:
            raise ValueError(
                "`mentions.decoding: viterbi` needs `recognition.engine: openvino` and `recognition.encoding: complete`, "
                "because Spark NLP always takes each token's most probable tag"
            )
        return self

    @property
    def _follows_sparknlp(self) -> bool:
        """Whether `recognition.engine` or `recognition.encoding` is `sparknlp`, so that results must equal Spark NLP's."""
        return self.recognition.engine == "sparknlp" or self.recognition.encoding == "sparknlp"

    @property
    def detector(self) -> Kind:
        """Return the sentence detector to use: segmentation.detector or, if it is None, the default.

        The default is `dl` if segmentation.model is set, or if engine or encoding is `sparknlp`; otherwise `sentencex`.
        """
        names_model = self.segmentation.model is not None
        return self.segmentation.detector or ("dl" if names_model or self._follows_sparknlp else "sentencex")

    @property
    def detector_model(self) -> str:
        """Return the path of the saved model for the detector `dl`: segmentation.model or, if it is None, DETECTOR_MODEL."""
        return self.segmentation.model or sections.DETECTOR_MODEL

    @property
    def trims_mentions(self) -> bool:
        """Return whether to remove possessive endings and stray punctuation from mentions.

        If mentions.trim is None, the result is True unless engine or encoding is `sparknlp`.
        """
        return not self._follows_sparknlp if self.mentions.trim is None else self.mentions.trim

    @property
    def makes_labels_consistent(self) -> bool:
        """Return whether to give the same label to all mentions of a document that are spelled alike.

        If mentions.consistent_labels is None, the result is True unless engine or encoding is `sparknlp`.
        """
        chosen = self.mentions.consistent_labels
        return not self._follows_sparknlp if chosen is None else chosen

    @property
    def decoding(self) -> Decoding:
        """Return how tags are chosen from the model's probabilities: `viterbi` or `argmax`.

        If mentions.decoding is None, the result is `viterbi` unless engine or encoding is `sparknlp`.
        """
        return self.mentions.decoding or ("argmax" if self._follows_sparknlp else "viterbi")

    def dump_masked(self) -> dict[str, Any]:
        """Return the settings as plain data without credentials, for printing, logging and the `runs` table.

        `source.where` is not masked, since it shows which rows a run covered.
        """
        return secret_masking.mask_settings(self.model_dump(by_alias=True, mode="json"))


def load(config: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Settings:
    """Return the validated settings from base.yaml, a file, environment variables and overrides; later ones take precedence.

    Args:
        config: YAML file; a base.yaml in its directory is read first. None to use only the environment and overrides.
        overrides: items of the form `key.path=value`.
        environment: environment variables; None for the environment of this process.

    Raises:
        SettingsError: a file cannot be read, or a setting is unknown, missing or invalid; the message names the file or the
            setting.
    """
    all_keys, layers = list(list_keys()), Layers()
    if config is not None:
        base = config.parent / "base.yaml"
        for path in [base, config] if base.is_file() and base != config else [config]:
            layers.add_file(path)
    layers.add_environment(os.environ if environment is None else environment, all_keys)
    for override in overrides:
        layers.add_option(override)
    try:
        return Settings.model_validate(layers.merged)
    except ValidationError as error:
        raise SettingsError(_describe_errors(error, layers, all_keys)) from error


def _describe_errors(error: ValidationError, layers: Layers, all_keys: Sequence[str]) -> str:
    """Return a message with one sentence for each wrong setting, as a list of lines if there are several."""
    faults = itertools.groupby(error.errors(), lambda fault: _find_key(fault, all_keys))
    sentences = [_describe_faults(key, list(found), layers, all_keys) for key, found in faults]
    return sentences[0] if len(sentences) == 1 else "\n- ".join([f"{len(sentences)} settings are wrong:", *sentences])


def _find_key(fault: ErrorDetails, all_keys: Sequence[str]) -> str:
    """Return the key path of the setting to which a validation error belongs.

    If the setting allows several types, pydantic adds the type that did not match to the key path; remove it.
    """
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] in ("extra_forbidden", "missing") or fault["loc"][:2] == ("spark", "conf"):
        return key
    if fault["loc"] and isinstance(fault["loc"][-1], int):  # index in a list
        return key
    while key and key not in all_keys:
        key = key.rpartition(".")[0]
    return key


def _describe_faults(key: str, faults: Sequence[ErrorDetails], layers: Layers, all_keys: Sequence[str]) -> str:
    """Return a sentence for the validation errors of one key; a key that allows several types has an error for each type."""
    kind, origin = faults[0]["type"], layers.describe_origin(key)
    if kind == "extra_forbidden":
        return f"{key} is not a setting{origin}; {suggest_keys(key, all_keys)}"
    if kind == "missing":
        return f"{key} is not set, and has no default: set it in a settings file (--config FILE) or with --set."
    if kind == "model_type":
        inside = ", ".join(name.removeprefix(f"{key}.") for name in all_keys if name.startswith(f"{key}."))
        return f"{key} is a section, not a setting{origin}: below it, set {inside}."
    kinds = [_KINDS.get(fault["type"]) or fault.get("ctx", {}).get("expected") for fault in faults]
    if all(kinds):
        return f"{key}: must be {' or '.join(map(str, kinds))}{origin}."
    messages = [fault["msg"].removeprefix("Value error, ") for fault in faults]
    if not key:  # an error that involves several sections; its message names the settings
        return f"{messages[0]}{origin}."
    within = (message if message[:2].isupper() else f"{message[0].lower()}{message[1:]}" for message in messages)
    return f"{key}: {', or '.join(within)}{origin}."


def list_keys(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Yield the key paths of all settings in a section and of the sections in it, such as `source` and `source.path`.

    `prefix` is the beginning of each key path, such as `source.`.
    """
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from list_keys(kind, f"{key}.")
