"""The sections of the settings for a run's reports: the HTML report page, prices, metrics and lineage events."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import Field, field_validator

from entitymill.settings.sections import Section


def _build_file_check(ending: str, reason: str = "") -> Callable[[str | None], str | None]:
    """Return a validator for a setting: it raises a ValueError unless the value is None or a local path ending in `ending`.

    `reason` is the end of the error's message, such as `: the collector reads only .prom files`.
    """

    def check_path(path: str | None) -> str | None:
        if path is not None and not (path.endswith(ending) and "://" not in path):
            raise ValueError(f"must be a path that ends in {ending}, on the driver's own disk (not a URI){reason}")
        return path

    return check_path


def _build_address_check(example: str) -> Callable[[str | None], str | None]:
    """Return a validator for a setting: it raises a ValueError unless the value is None or an http(s) address.

    `example` is a valid address, which the message of the error shows.
    """

    def check_address(address: str | None) -> str | None:
        if address is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", address):
            raise ValueError(f"must be an address such as {example}")
        return address

    return check_address


class ReportSettings(Section):
    """The HTML report page of a run, and the limits beyond which a run differs too much from earlier runs."""

    path: str | None = Field(None, min_length=1, description="HTML file that a run writes at its end, on the driver's disk")
    date_column: str | None = Field(
        None, min_length=1, description="passthrough column of dates; the page counts mentions per day"
    )
    show_text: bool = Field(False, description="show entities and sentences on the page; whoever has the file can read them")
    fail_on_drift: bool = Field(False, description="end with exit code 6 if a run differs by more than the limits below")
    drift_share: float = Field(0.05, ge=0, le=1, description="largest allowed change of a label's share of the mentions")
    drift_rate: float = Field(
        0.25, ge=0, le=100, description="largest allowed change of mentions per 1,000 sentences, relative to earlier runs"
    )
    drift_confidence: float = Field(0.05, ge=0, le=1, description="largest allowed change of the mean confidence")
    drift_sentences: int = Field(
        1000, ge=1, le=1_000_000_000, description="runs with fewer sentences than this are not compared"
    )

    _file = field_validator("path")(_build_file_check(".html"))


class CostSettings(Section):
    """The price of a core-hour, from which summaries, report pages and dry runs compute what a run costs."""

    per_core_hour: float | None = Field(
        None, ge=0, le=1_000_000, description="price of one core for one hour; empty: no prices are shown"
    )
    currency: str = Field("USD", min_length=1, max_length=8, description="currency of the price")


class MetricsSettings(Section):
    """Where a run writes its metrics for Prometheus: a file, a Pushgateway, or both; by default, nowhere."""

    textfile: str | None = Field(None, min_length=1, description=".prom file for node_exporter's textfile collector")
    pushgateway: str | None = Field(None, min_length=1, description="http:// or https:// address of a Pushgateway")

    _file = field_validator("textfile")(_build_file_check(".prom", ": the collector reads only .prom files"))
    _address = field_validator("pushgateway")(_build_address_check("http://pushgateway:9091"))


class LineageSettings(Section):
    """The OpenLineage receiver to which a run sends lineage events: which tables the run read and wrote."""

    url: str | None = Field(
        None, min_length=1, description="http:// or https:// address of an OpenLineage receiver (Marquez)"
    )
    namespace: str = Field("entitymill", min_length=1, description="OpenLineage namespace of the job and of catalog tables")

    _address = field_validator("url")(_build_address_check("http://marquez:5000"))
