"""`tables.yaml`: the tables that are extracted on a schedule, typed and checked; an unknown key is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from croniter import croniter
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

HERE = Path(__file__).parents[1]
FIRINGS_LOOKED_AT = 100
_SECRET = re.compile(
    r"secret|password|passwd|passphrase|pwd$|api[._-]?key|access[._]?key|account\.?key|private\.key$|session\.token|sas\.token|"
    r"\bsas\.",
    re.IGNORECASE,
)
_WHENCE = re.compile(
    r"(provider|provider\.path|\.file|\.endpoint)$|provider\.type|keyprovider|secretKeyRef\.|\.kubernetes\.\w+\.secrets\.",
    re.IGNORECASE,
)
"""Keys of secrets, but not of where they come from; as in secret_masking, which Airflow's environment is without."""


class _Section(BaseModel):
    # An import error is shown to everybody: without what was entered.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Slice(_Section):
    """The column whose values a data interval selects, and what they are."""

    column: str = Field(min_length=1)
    type: Literal["date", "timestamp"] = Field("date", description="date: whole days in the table's time zone")


class Output(_Section):
    """Where the four tables go: a directory, or a catalog schema."""

    path: str | None = Field(None, min_length=1)
    schema_: str | None = Field(None, min_length=1, alias="schema")

    @model_validator(mode="after")
    def _one_place(self) -> Output:
        if (self.path is None) == (self.schema_ is None):
            raise ValueError("set either output.path or output.schema")
        return self

    def setting(self) -> str:
        """As --set takes it."""
        return f"output.path={self.path}" if self.path is not None else f"output.schema={self.schema_}"

    def address(self, table: str) -> str:
        """Of one of the tables, as the package deltalake takes it."""
        return f"{self.path}/{table}" if self.path is not None else f"uc://{self.schema_}.{table}"


class SparkSubmit(_Section):
    """How spark-submit is called."""

    connection: str = "spark_default"
    binary: str = Field("airflow_dags/spark-submit", description="from the home, or absolute")
    application: str = Field(
        "jobs/extract_entities.py", description="in cluster mode where the driver finds it: local:///..."
    )
    deploy_mode: Literal["client", "cluster"] = Field(
        "client", description="cluster: `config` is passed as it stands, since it is the driver who opens it, elsewhere"
    )
    properties_file: str = "conf/spark-defaults.conf"
    jars: tuple[str, ...] = Field(("build/jars",), description="directories, or jars by address; none: the cluster has them")
    files: tuple[str, ...] = Field((), description="for the driver's directory in cluster mode on YARN")
    archives: str | None = Field(None, description="PATH#NAME: unpacked under that name for every executor")
    conf: dict[str, str] = Field(default_factory=dict, description="any Spark property")

    @field_validator("conf")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        _refuse_secrets(value)
        return value


JobParameters = dict[Annotated[str, Field(pattern="^(config|source|model|sentence_detector)$")], str]


class Databricks(_Section):
    """Which job is run there, or on what a run is submitted."""

    connection: str = "databricks_default"
    job_name: str | None = Field(None, min_length=1, description="of the bundle's job, for runner databricks_run_now")
    parameters: JobParameters = Field(default_factory=dict, description="of that job, which are this table's own")
    cluster: dict[str, Any] = Field(default_factory=dict, description="new_cluster, for runner databricks_submit")
    libraries: list[dict[str, Any]] = Field(default_factory=list, description="wheel and Maven, for databricks_submit")


class Table(_Section):
    """One text table, one DAG."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,99}$")
    config: str | None = Field(None, min_length=1, description="--config of the job: from the home, or absolute")
    output: Output
    schedule: str | None = Field(description="five cron fields; null: by hand only")
    timezone: str = "UTC"
    start_date: datetime
    end_date: datetime | None = Field(None, description="no interval after it is scheduled")
    catchup: bool = Field(False, description="whether intervals that passed before the DAG was switched on are run")
    slice: Slice | None = Field(None, description="null: each run brings the output up to the whole source")
    runner: Literal["spark_submit", "databricks_run_now", "databricks_submit"] = "spark_submit"
    spark_submit: SparkSubmit = SparkSubmit()
    databricks: Databricks = Databricks()
    max_reject_ratio: float = Field(0.05, ge=0, le=1)
    settings: tuple[str, ...] = Field((), description="further --set values, key.path=value")
    retries: int = Field(2, ge=0)
    retry_minutes: float = Field(5, gt=0)
    timeout_hours: float = Field(12, gt=0)
    max_active_runs: int = Field(1, ge=1)
    alert: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        description="module.function that Airflow calls with the context when a run failed for good",
    )
    owner: str = "entitymill"
    tags: tuple[str, ...] = ()

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None and not croniter.is_valid(value):
            raise ValueError(f"{value!r} is not a cron expression")
        return value

    @field_validator("settings")
    @classmethod
    def _no_secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _refuse_secrets(setting.partition("=")[0] for setting in value)
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not a time zone") from error
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Table:
        if self.slice is not None and self.schedule is None:
            raise ValueError("a slice is what a data interval selects: set a schedule, or no slice")
        if self.slice is not None and self.slice.type == "date" and _fires_twice_a_day(self.schedule or "", self.start_date):
            raise ValueError("slices of days need a schedule that fires at most once a day; or set slice.type: timestamp")
        return self

    @model_validator(mode="after")
    def _runner_has_what_it_needs(self) -> Table:
        if self.runner == "databricks_run_now":
            if self.databricks.job_name is None or "source" not in self.databricks.parameters:
                raise ValueError("runner databricks_run_now needs databricks.job_name and databricks.parameters.source")
            if self.output.schema_ is None or self.settings or self.config:
                raise ValueError("the job of databricks_run_now takes output.schema and databricks.parameters alone")
            return self
        if self.config is None:
            raise ValueError(f"runner {self.runner} needs config")
        if self.runner == "databricks_submit" and not (self.databricks.cluster and self.databricks.libraries):
            raise ValueError("runner databricks_submit needs databricks.cluster and databricks.libraries")
        return self

    @property
    def dag_id(self) -> str:
        """Of the table's DAG."""
        return f"extract_{self.name}"

    @property
    def asset(self) -> str:
        """Name of the asset that stands for the table's entities."""
        return f"{self.name}_entities"


class Tables(_Section):
    """The whole file."""

    home: Path = Field(description="where the repository lies on the Airflow workers; unset: where this file is")
    tables: tuple[Table, ...]

    @field_validator("tables")
    @classmethod
    def _names_differ(cls, value: tuple[Table, ...]) -> tuple[Table, ...]:
        names = [table.name for table in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tables are called {twice[0]}")
        return value


def load(path: Path | None = None) -> Tables:
    """Read and check the file.

    Args:
        path: of it; none: what the environment variable ENTITYMILL_TABLES names, or `tables.yaml` beside the DAG files.

    Raises:
        pydantic.ValidationError: an entry is wrong; the message names it.
    """
    path = path or Path(os.environ.get("ENTITYMILL_TABLES") or HERE / "tables.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf8")) or {}
    content["home"] = os.environ.get("ENTITYMILL_HOME") or content.get("home") or str(HERE.parent)
    return Tables.model_validate(content)


def _refuse_secrets(keys: Iterable[str]) -> None:
    """They would be words of a command line, which every user of the machine can read."""
    for key in keys:
        if _SECRET.search(key) and not _WHENCE.search(key):
            raise ValueError(f"{key} holds a secret: leave it to the worker's environment or a credentials provider")


def _fires_twice_a_day(schedule: str, start: datetime) -> bool:
    firings = (moment.date() for moment in croniter(schedule, start).all_next(datetime))
    return any(one == other for one, other in pairwise(islice(firings, FIRINGS_LOOKED_AT)))
