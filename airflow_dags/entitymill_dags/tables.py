"""Load and validate `tables.yaml`, which lists the tables that Airflow extracts; unknown keys are refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from croniter import croniter
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

HERE = Path(__file__).parents[1]
"""The directory of the DAG files."""
CHECKED_FIRINGS = 100
"""How many of a schedule's firings are checked, to find out whether the schedule fires twice on one day."""
_SECRET = re.compile(
    r"secret|password|passwd|passphrase|pwd$|api[._-]?key|access[._]?key|account\.?key|private\.key$|session\.token|sas\.token|"
    r"\bsas\.",
    re.IGNORECASE,
)
_SECRET_REFERENCE = re.compile(
    r"(provider|provider\.path|\.file|\.endpoint)$|provider\.type|keyprovider|secretKeyRef\.|\.kubernetes\.\w+\.secrets\.",
    re.IGNORECASE,
)
"""Matches keys that match _SECRET, but only say where a secret is stored."""
_SECRET_WORDS = r"(?:password|passwd|pwd|secret|token|api_?key|access_?key|account_?key|sig|signature)"
_SECRET_VALUES = (
    re.compile(r"://[^/@:\s]*:(?!\d+(?:[/,]|$))\S+@"),
    re.compile(r"https?://[^/@:\s]+@", re.IGNORECASE),  # in abfss://texts@lake, `texts` is a container, not a user
    re.compile(rf"[?&;][\w.-]*{_SECRET_WORDS}=[^&;\s]", re.IGNORECASE),
    re.compile(rf"-D[\w.]*{_SECRET_WORDS}=\S", re.IGNORECASE),
    re.compile(r"^(?:Shared)?A(?:ccount|ccess)Key=\S", re.IGNORECASE),
)
"""Match a password or token in a URI, in its query string, or in Java options. The patterns for secrets are copied from
entitymill.settings.secret_masking, which Airflow cannot import."""
_DATABRICKS_REFERENCE = re.compile(r"\{\{secrets/[^{}]+\}\}")
"""Matches a reference to a secret, {{secrets/SCOPE/KEY}}, which Databricks itself replaces by the secret."""


class _Section(BaseModel):
    """Base class of all sections of `tables.yaml`: an unknown key is an error."""

    # Airflow shows import errors to everybody, so they must not contain the values.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Slice(_Section):
    """The column by which a data interval selects its slice (its part of the source's rows), and the column's type."""

    column: str = Field(min_length=1)
    type: Literal["date", "timestamp"] = Field("date", description="date: whole days in the table's time zone")


class Output(_Section):
    """Where the job writes its tables: a directory or a catalog schema."""

    path: str | None = Field(None, min_length=1)
    schema_: str | None = Field(None, min_length=1, alias="schema")

    @model_validator(mode="after")
    def _check_path_or_schema(self) -> Output:
        """Refuse an output that has both a path and a schema, or neither."""
        if (self.path is None) == (self.schema_ is None):
            raise ValueError("set either output.path or output.schema")
        return self

    def setting(self) -> str:
        """Return the output as a setting of the job, `output.path=…` or `output.schema=…`."""
        return f"output.path={self.path}" if self.path is not None else f"output.schema={self.schema_}"

    def address(self, table: str) -> str:
        """Return the address of one of the output's tables, such as `entities`, for the package deltalake."""
        return f"{self.path.rstrip('/')}/{table}" if self.path is not None else f"uc://{self.schema_}.{table}"


class SparkSubmit(_Section):
    """Options of spark-submit."""

    connection: str = "spark_default"
    binary: str = Field("airflow_dags/spark-submit", description="relative to home, or absolute")
    application: str = Field(
        "jobs/extract_entities.py", description="in cluster mode, its address on the driver's machine: local:///..."
    )
    deploy_mode: Literal["client", "cluster"] = Field(
        "client", description="with cluster, `config` is passed unchanged, because the driver opens it on another host"
    )
    properties_file: str = "conf/spark-defaults.conf"
    jars: tuple[str, ...] = Field(
        ("build/jars",), description="directories with jars, or addresses of jars; empty if the cluster has them"
    )
    files: tuple[str, ...] = Field((), description="files to copy to the driver's directory, in cluster mode on YARN")
    archives: str | None = Field(None, description="PATH#NAME: unpacked as NAME for every executor")
    conf: dict[str, str] = Field(default_factory=dict, description="any Spark property")


JobParameters = dict[Annotated[str, Field(pattern="^(config|source|model)$")], str]


class Databricks(_Section):
    """Options of the Databricks runners: the job to run, or the cluster on which a run is submitted."""

    connection: str = "databricks_default"
    job_name: str | None = Field(None, min_length=1, description="name of the bundle's job, for runner databricks_run_now")
    parameters: JobParameters = Field(default_factory=dict, description="parameters of that job for this table")
    cluster: dict[str, Any] = Field(default_factory=dict, description="new_cluster, for runner databricks_submit")
    libraries: list[dict[str, Any]] = Field(default_factory=list, description="wheel and Maven, for databricks_submit")


class Table(_Section):
    """One text table, which has one DAG."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,99}$")
    config: str | None = Field(None, min_length=1, description="--config of the job: relative to home, or absolute")
    output: Output
    schedule: str | None = Field(None, description="five cron fields; null: runs start manually, or by `after`")
    after: tuple[str, ...] = Field((), description="URIs of assets: a run starts when all of them have been updated")
    timezone: str = "UTC"
    start_date: datetime
    end_date: datetime | None = Field(None, description="no data interval after this date is scheduled")
    catchup: bool = Field(False, description="whether to run intervals from before the DAG was enabled")
    slice: Slice | None = Field(None, description="null: each run updates the output to the complete source")
    runner: Literal["spark_submit", "databricks_run_now", "databricks_submit"] = "spark_submit"
    spark_submit: SparkSubmit = SparkSubmit()
    databricks: Databricks = Databricks()
    max_reject_ratio: float = Field(0.05, ge=0, le=1)
    settings: tuple[str, ...] = Field((), description="further --set values, key.path=value")
    retries: int = Field(2, ge=0)
    retry_minutes: float = Field(5, gt=0)
    timeout_hours: float = Field(12, gt=0)
    max_active_runs: int = Field(1, ge=1)
    pool: str = Field("default_pool", min_length=1, description="Airflow's pool for the task extract")
    deferrable: bool = Field(False, description="whether extract waits without a worker; on Databricks only")
    alert: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        description="module.function that Airflow calls with the context when a run has failed after all retries",
    )
    owner: str = "entitymill"
    tags: tuple[str, ...] = ()

    @field_validator("schedule")
    @classmethod
    def _check_cron(cls, value: str | None) -> str | None:
        """Refuse a schedule that is not a cron expression of five fields; a sixth field, for seconds, is not supported."""
        if value is not None and not (len(value.split()) == 5 and croniter.is_valid(value)):
            raise ValueError(f"{value!r} is not a cron expression of five fields")
        return value

    @field_validator("timezone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        """Refuse an unknown time zone."""
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not a time zone") from error
        return value

    @model_validator(mode="after")
    def _check_no_secrets(self) -> Table:
        """Refuse secrets in a table's values, which become part of a command line that all users of the machine can read."""
        keys = list(_find_secrets(self.model_dump(include={"output", "spark_submit", "databricks"})))
        keys += find_secret_settings(self.settings)
        if keys and keys[0].startswith("databricks."):
            raise ValueError(f"{keys[0]} holds a secret: let Databricks look it up, with {{{{secrets/SCOPE/KEY}}}}")
        if keys:
            raise ValueError(
                f"{keys[0]} holds a secret, which the command line would show: set it in the worker's "
                "environment, or use a credentials provider"
            )
        return self

    @model_validator(mode="after")
    def _check_combinations(self) -> Table:
        """Refuse contradictory values of `schedule`, `after`, `slice`, `deferrable` and `runner`."""
        if self.after and self.schedule is not None:
            raise ValueError("set either schedule or after")
        if self.deferrable and self.runner == "spark_submit":
            raise ValueError("deferrable needs a Databricks runner, because spark-submit itself must wait for the job")
        if self.slice is not None and self.schedule is None:
            raise ValueError("slice needs data intervals, which come from a schedule: set a schedule, or remove slice")
        if self.slice is not None and self.slice.type == "date" and _fires_twice_a_day(self.schedule or "", self.start_date):
            raise ValueError("slice.type date needs a schedule that fires at most once a day; or use slice.type timestamp")
        return self

    @model_validator(mode="after")
    def _check_runner_settings(self) -> Table:
        """Refuse a table that lacks a setting that its runner needs, or has one that its runner does not take."""
        if self.runner == "databricks_run_now":
            if self.databricks.job_name is None or "source" not in self.databricks.parameters:
                raise ValueError("runner databricks_run_now needs databricks.job_name and databricks.parameters.source")
            if self.output.schema_ is None or self.settings or self.config:
                raise ValueError(
                    "runner databricks_run_now takes output.schema and databricks.parameters, but no settings or config"
                )
            return self
        if self.config is None:
            raise ValueError(f"runner {self.runner} needs config")
        if self.runner == "databricks_submit" and not (self.databricks.cluster and self.databricks.libraries):
            raise ValueError("runner databricks_submit needs databricks.cluster and databricks.libraries")
        return self

    @property
    def dag_id(self) -> str:
        """Id of the table's DAG."""
        return f"extract_{self.name}"

    @property
    def asset(self) -> str:
        """Name of the asset of the table's entities."""
        return f"{self.name}_entities"


class Tables(_Section):
    """The content of `tables.yaml`."""

    home: Path = Field(
        description="the repository's directory on the Airflow workers; by default, the one that contains this file"
    )
    tables: tuple[Table, ...]

    @field_validator("tables")
    @classmethod
    def _check_names_differ(cls, value: tuple[Table, ...]) -> tuple[Table, ...]:
        """Refuse two tables with the same name."""
        names = [table.name for table in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tables are called {twice[0]}: rename one of them")
        return value


def load(path: Path | None = None) -> Tables:
    """Read and validate `tables.yaml`; the environment variable ENTITYMILL_HOME overrides its `home`.

    Args:
        path: the file. None for the value of the environment variable ENTITYMILL_TABLES or, if it is not set, `tables.yaml`
            next to the DAG files.

    Raises:
        ValueError: the file has no keys, or a value is invalid; pydantic's message names its key.
    """
    path = path or Path(os.environ.get("ENTITYMILL_TABLES") or HERE / "tables.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf8")) or {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} must have the key `tables`, with the list of tables below it")  # noqa: TRY004
    content["home"] = os.environ.get("ENTITYMILL_HOME") or content.get("home") or str(HERE.parent)
    return Tables.model_validate(content)


def find_secret_settings(settings: Iterable[str]) -> list[str]:
    """Return the keys of the settings, each `key.path=value`, that hold a secret; `source.where` may hold any text."""
    pairs = [setting.partition("=") for setting in settings]
    return [found for key, _, text in pairs if key != "source.where" for found in _find_secrets(_parse_value(text), key)]


def _find_secrets(value: Any, key: str = "") -> Iterator[str]:
    """Yield the key path of each text in `value`, at any depth, that looks like a secret, or whose key is that of a secret.

    `key` is the key path of `value` itself. A reference {{secrets/SCOPE/KEY}} does not count as a secret.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _find_secrets(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _find_secrets(inner, key)
    elif value is not None and not isinstance(value, bool):
        is_named = _SECRET.search(key) and not _SECRET_REFERENCE.search(key)
        is_reference = _DATABRICKS_REFERENCE.fullmatch(str(value)) is not None
        if not is_reference and (is_named or any(pattern.search(str(value)) for pattern in _SECRET_VALUES)):
            yield key


def _parse_value(text: str) -> Any:
    """Return the value of a setting, which is YAML; a text that is not valid YAML is returned unchanged."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _fires_twice_a_day(schedule: str, start: datetime) -> bool:
    """Return whether a cron schedule fires twice on one day, among its first CHECKED_FIRINGS times after `start`."""
    firings = (moment.date() for moment in croniter(schedule, start).all_next(datetime))
    return any(one == other for one, other in pairwise(islice(firings, CHECKED_FIRINGS)))
