"""Load all settings and validate them; an unknown key is an error.

Settings are read in layers, and later layers override earlier ones. First comes `base.yaml`, in the settings file's
directory, then the settings file, environment variables `ENTITYMILL__KEY__PATH`, and options `--set key.path=value`.
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
"""Dict from the type of a pydantic error to a phrase for the message: what the value of the setting must be."""

if TYPE_CHECKING:  # recognition.sentences imports sentencex, which settings do not need
    from pydantic_core import ErrorDetails

    from entitymill.recognition.sentences import DetectorKind


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
        """Raise a ValueError if `output.replace_slice` is set without `source.where`, which selects the rows to replace."""
        if self.output.replace_slice and self.source.where is None:
            raise ValueError("output.replace_slice needs source.where, the condition that selects the rows to replace")
        return self

    @model_validator(mode="after")
    def _check_date_column(self) -> Settings:
        """Raise a ValueError if `report.date_column` is set to a column that is not a passthrough column."""
        column = self.report.date_column
        if column is not None and column not in self.source.passthrough:
            raise ValueError(f"report.date_column: {column} must be one of the columns in source.passthrough")
        return self

    @model_validator(mode="after")
    def _check_detector(self) -> Settings:
        """Raise a ValueError for the sentence detector `sentencex` with the engine `sparknlp`, which lacks this detector."""
        if self.segmentation.detector == "sentencex" and self.recognition.engine == "sparknlp":
            raise ValueError(
                "`segmentation.detector: sentencex` needs `recognition.engine: openvino`: Spark NLP has no such detector"
            )
        return self

    @model_validator(mode="after")
    def _check_markup(self) -> Settings:
        """Raise a ValueError for texts in HTML with the engine `sparknlp`, which cannot ignore HTML tags."""
        if self.source.markup != "none" and self.recognition.engine == "sparknlp":
            raise ValueError(
                "`source.markup: html` needs `recognition.engine: openvino`, because Spark NLP treats HTML tags as text"
            )
        return self

    @model_validator(mode="after")
    def _check_decoding(self) -> Settings:
        """Raise a ValueError for `viterbi` decoding if `recognition.engine` or `recognition.encoding` is `sparknlp`."""
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
    def detector(self) -> DetectorKind:
        """Return the sentence detector to use: segmentation.detector or, if it is None, the default.

        The default is `dl` if segmentation.model is set, or if recognition.engine or recognition.encoding is `sparknlp`;
        otherwise `sentencex`.
        """
        names_model = self.segmentation.model is not None
        return self.segmentation.detector or ("dl" if names_model or self._follows_sparknlp else "sentencex")

    @property
    def detector_model(self) -> str:
        """Return the path of the saved model of the sentence detector `dl`.

        The path is segmentation.model or, if this setting is None, DETECTOR_MODEL.
        """
        return self.segmentation.model or sections.DETECTOR_MODEL

    @property
    def trims_mentions(self) -> bool:
        """Return whether to remove possessive endings and stray punctuation from mentions.

        If mentions.trim is None, the result is True unless recognition.engine or recognition.encoding is `sparknlp`.
        """
        return not self._follows_sparknlp if self.mentions.trim is None else self.mentions.trim

    @property
    def makes_labels_consistent(self) -> bool:
        """Return whether to give the same label to all mentions of a document that are spelled alike.

        If mentions.consistent_labels is None, the result is True unless recognition.engine or recognition.encoding is
        `sparknlp`.
        """
        chosen = self.mentions.consistent_labels
        return not self._follows_sparknlp if chosen is None else chosen

    @property
    def decoding(self) -> Decoding:
        """Return how tags are chosen from the model's probabilities: `viterbi` or `argmax`.

        If mentions.decoding is None, the result is `viterbi` unless recognition.engine or recognition.encoding is
        `sparknlp`.
        """
        return self.mentions.decoding or ("argmax" if self._follows_sparknlp else "viterbi")

    def dump_masked(self) -> dict[str, Any]:
        """Return the settings as plain data without credentials, for printing, logging and the `runs` table.

        `source.where` is not masked, since it shows which rows a run covered.
        """
        return secret_masking.mask_settings(self.model_dump(by_alias=True, mode="json"))


def load(config: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Settings:
    """Read settings from base.yaml, `config`, the environment and `overrides`, and return them after validation.

    If several of these set the same key, the last one in this order wins. After this call, `secret_masking.mask_text`
    also masks the credentials in the addresses of these settings.

    Args:
        config: YAML file; base.yaml in the same directory, if it exists, is read first. None to read no file.
        overrides: values of the option `--set`, each in the form `key.path=value`.
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
        settings = Settings.model_validate(layers.merged)
    except ValidationError as error:
        raise SettingsError(_describe_errors(error, layers, all_keys)) from error
    secret_masking.remember_addresses(settings.model_dump(by_alias=True, mode="json"))
    return settings


def _describe_errors(error: ValidationError, layers: Layers, all_keys: Sequence[str]) -> str:
    """Return a message with one sentence for each wrong setting; if there are several, each sentence is on its own line.

    Each sentence also says which file or environment variable set the setting, as recorded in `layers`. For an unknown key,
    the sentence suggests similar keys of `all_keys`, the key paths of all settings.
    """
    faults = itertools.groupby(error.errors(), lambda fault: _find_key(fault, all_keys))
    sentences = [_describe_faults(key, list(found), layers, all_keys) for key, found in faults]
    return sentences[0] if len(sentences) == 1 else "\n- ".join([f"{len(sentences)} settings are wrong:", *sentences])


def _find_key(fault: ErrorDetails, all_keys: Sequence[str]) -> str:
    """Return the key path of the setting to which a validation error belongs.

    If the setting allows several types, pydantic adds a type to the key path; this function removes the type. The index of
    a wrong item in a list stays. For an error that involves several sections, the result is empty.
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
    """Return one sentence about all validation errors of the setting `key`.

    If the setting allows several types, there is one error per type. The sentence says which file or environment variable
    set the value, as recorded in `layers`. `all_keys` has the key paths of all settings.
    """
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
