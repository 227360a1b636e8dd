"""Test the DAG files as Airflow reads them, and the functions of the DAG factory, without Spark."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, ParamValidationError
from airflow_home import ROOT
from pydantic import ValidationError

from entitymill.settings import secret_masking
from entitymill.settings.sections import LimitSettings
from entitymill_dags import arguments, factory, tables
from entitymill_dags.spark import SubmitJob, parse_final_code

PARSED_WITHIN = 5.0
"""Maximum time to parse a DAG file, in seconds. It takes 0.3 s on an idle machine; Airflow gives up after 30 s."""
HEAVY = ("deltalake", "pandas", "numpy", "pyarrow", "pyspark", "databricks.sql")
ARTICLES = {
    "name": "articles",
    "config": "conf/articles.yaml",
    "output": {"path": "/data/out"},
    "schedule": "0 0 * * *",
    "timezone": "Europe/Berlin",
    "start_date": "2026-01-01",
    "slice": {"column": "published", "type": "date"},
}

JOB = {"job_name": "extract", "parameters": {"source": "main.raw.articles"}}


def table(**others: Any) -> tables.Table:
    return tables.Table.model_validate({**ARTICLES, **others})


def context(start: str = "2026-06-30T22:00:00Z", end: str = "2026-07-01T22:00:00Z", **params: Any) -> dict[str, Any]:
    chosen = {"max_reject_ratio": 0.05, "settings": [], **params}
    return {"params": chosen, "data_interval_start": pendulum.parse(start), "data_interval_end": pendulum.parse(end)}


@pytest.mark.parametrize("examples", [True, False])
def test_the_dag_files_parse_quickly_without_heavy_imports(tmp_path: Path, examples: bool) -> None:
    """The example file defines four DAGs, and the shipped tables.yaml none."""
    program = f"""
import json, sys
from airflow.dag_processing.dagbag import DagBag
before = set(sys.modules)
bag = DagBag(dag_folder={str(ROOT / "airflow_dags")!r})
heavy = sorted((set(sys.modules) - before) & {set(HEAVY)!r})
slowest = max(stat.duration.total_seconds() for stat in bag.dagbag_stats)
print("RESULT", json.dumps([sorted(bag.dags), bag.import_errors, slowest, heavy]))
"""
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "airflow_dags")}
    if examples:
        environment["ENTITYMILL_TABLES"] = str(ROOT / "airflow_dags" / "tables.example.yaml")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    dags, errors, slowest, heavy = json.loads(line.removeprefix("RESULT"))

    assert errors == {}
    shown = ["extract_articles", "extract_speeches", "extract_tickets", "follow_speeches"] if examples else []
    assert dags == shown
    assert slowest < PARSED_WITHIN
    assert heavy == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"schedul": "@daily"}, "Extra inputs"),
        ({"schedule": "61 * * * *"}, "not a cron expression"),
        ({"timezone": "Mars/Olympus"}, "not a time zone"),
        ({"schedule": None}, "set a schedule"),
        ({"schedule": "0 */6 * * *"}, "at most once a day"),
        ({"output": {"path": "/a", "schema": "b.c"}}, "either output.path or output.schema"),
        ({"config": None}, "needs config"),
        ({"runner": "databricks_run_now"}, "needs databricks.job_name"),
        ({"runner": "databricks_run_now", "databricks": {"job_name": "j"}}, "and databricks.parameters.source"),
        ({"runner": "databricks_run_now", "databricks": JOB}, "takes output.schema"),
        ({"runner": "databricks_run_now", "databricks": {**JOB, "parameters": {"where": "true"}}}, "should match"),
        ({"runner": "databricks_submit"}, "needs databricks.cluster"),
        ({"name": "a b"}, "String should match"),
        ({"after": ["s3://lake/articles"], "slice": None}, "either schedule or after"),
        ({"after": ["s3://lake/articles"], "schedule": None}, "slice needs data intervals"),
        ({"deferrable": True}, "deferrable needs a Databricks runner"),
        ({"settings": ["spark.conf.spark.hadoop.fs.s3a.secret.key=hunter2"]}, r"secret\.key holds a secret"),
        ({"spark_submit": {"conf": {"spark.hadoop.fs.s3a.access.key": "hunter2"}}}, r"access\.key holds a secret"),
        (
            {"spark_submit": {"conf": {"spark.driver.extraJavaOptions": "-Da.password=hunter2"}}},
            "Options holds a secret",
        ),
        ({"settings": ["lineage.url=http://me:hunter2@marquez:5000"]}, r"lineage\.url holds a secret"),
        ({"settings": ["spark.conf={spark.hadoop.fs.s3a.secret.key: hunter2}"]}, r"secret\.key holds a secret"),
        ({"output": {"path": "s3a://key:hunter2@bucket/x"}}, "path holds a secret"),
        ({"databricks": {"cluster": {"spark_env_vars": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}}}, "KEY holds a secret"),
        ({"schedule": "* * * * * 5"}, "is not a cron expression of five fields"),
        ({"schedule": "@daily"}, "is not a cron expression of five fields"),
    ],
)
def test_a_wrong_entry_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        table(**wrong)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "key",
    [
        "spark.kubernetes.driver.secretKeyRef.AWS_ACCESS_KEY_ID",
        "spark.kubernetes.executor.secrets.entitymill-s3",
        "spark.hadoop.fs.azure.sas.token.provider.type.lake.dfs.core.windows.net",
        "spark.hadoop.fs.azure.account.keyprovider.lake.dfs.core.windows.net",
        "spark.hadoop.fs.s3a.aws.credentials.provider",
    ],
)
def test_where_a_secret_comes_from_is_none(key: str) -> None:
    assert table(spark_submit={"conf": {key: "x"}}).spark_submit.conf == {key: "x"}


def test_databricks_may_look_up_a_secret() -> None:
    variables = {"AWS_SECRET_ACCESS_KEY": "{{secrets/lake/key}}"}
    assert table(databricks={"cluster": {"spark_env_vars": variables}}).databricks.cluster["spark_env_vars"] == variables


def test_a_slash_at_the_end_of_a_path_is_left_out() -> None:
    """Delta's client refuses an address with an empty part."""
    assert table(output={"path": "s3a://lake/out/"}).output.address("runs") == "s3a://lake/out/runs"


def test_secrets_are_the_same_as_for_the_job() -> None:
    names = ("_SECRET_REFERENCE", "_SECRET_VALUES")
    assert tables._SECRET == secret_masking._SECRET_KEY
    assert [getattr(tables, name) for name in names] == [getattr(secret_masking, name) for name in names]


def test_a_file_without_its_key_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "tables.yaml").write_text("- name: articles\n")
    with pytest.raises(ValueError, match="must have the key `tables`"):
        tables.load(tmp_path / "tables.yaml")


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two tables are called articles"):
        tables.Tables.model_validate({"home": "/", "tables": [ARTICLES, ARTICLES]})


def test_a_day_is_one_of_the_tables_time_zone() -> None:
    assert (
        arguments.build_condition(table(), context())
        == "`published` >= DATE '2026-07-01' AND `published` < DATE '2026-07-02'"
    )
    column = {"column": "a`b", "type": "timestamp"}
    found = arguments.build_condition(table(slice=column), context())
    assert found == "`a``b` >= TIMESTAMP '2026-06-30T22:00:00Z' AND `a``b` < TIMESTAMP '2026-07-01T22:00:00Z'"
    assert arguments.build_condition(table(slice=None), context()) is None


def test_a_run_without_an_interval_is_about_no_slice() -> None:
    with pytest.raises(AirflowFailException, match="no data interval"):
        arguments.build_condition(table(), {"params": {}, "data_interval_start": None, "data_interval_end": None})


@pytest.mark.parametrize("secret", ["hunter2", "12345678"])
def test_a_person_enters_no_secret_either(secret: str) -> None:
    given = context(settings=[f"spark.conf.spark.hadoop.fs.s3a.secret.key={secret}"])
    with pytest.raises(AirflowFailException, match=r"secret\.key holds a secret, which the command line would show"):
        arguments.build_overrides(table(), given)


def test_what_the_dag_is_about_wins_over_what_a_person_entered() -> None:
    given = context(settings=["source.where=true"], max_reject_ratio=0.5)
    overrides = arguments.build_overrides(table(settings=["recognition.precision=bf16"]), given)
    assert overrides[:2] == ["recognition.precision=bf16", "source.where=true"]
    last = dict(override.split("=", 1) for override in overrides)
    assert last["source.where"].startswith("`published` >= DATE")
    assert last["output.replace_slice"] == "true"
    assert last["limits.max_reject_ratio"] == "0.5"
    assert last["output.path"] == "/data/out"


def test_full_is_for_tables_without_slices() -> None:
    whole = table(slice=None)
    assert arguments.build_job_arguments(whole, "c.yaml", context(full=True))[-1] == "--full"
    assert "--full" not in arguments.build_job_arguments(whole, "c.yaml", context(full=False))
    assert "full" in factory.make_params(whole)
    assert "full" not in factory.make_params(table())


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("settings", ["recognition.precision=bf16", "limits.unit_rows=1000"], True),
        ("settings", ["source.passthrough=[a, b]"], True),
        ("settings", ["source.where=true"], False),
        ("settings", ["output.path=/elsewhere"], False),
        ("settings", ["--full"], False),
        ("settings", ["spark.conf.spark.jars=x"], False),
        ("settings", "recognition.precision=bf16", False),
        ("max_reject_ratio", 0.5, True),
        ("max_reject_ratio", 1.5, False),
        ("max_reject_ratio", "0.5", False),
        ("full", "yes", False),
    ],
)
def test_params_are_held_against_their_schemas(name: str, value: Any, good: bool) -> None:
    param = factory.make_params(table(slice=None))[name]
    if good:
        assert param.resolve(value) == value
        return
    with pytest.raises(ParamValidationError):
        param.resolve(value)


def test_each_runner_gets_the_slice() -> None:
    databricks = {
        **JOB,
        "cluster": {"spark_version": "16.4.x-scala2.12", "num_workers": 1},
        "libraries": [{"whl": "/Volumes/a/b/c/entitymill.whl"}],
    }
    condition = arguments.build_condition(table(), context())

    def rendered(runner: str, field: str) -> Any:
        config = None if runner == "databricks_run_now" else "conf/articles.yaml"
        entry = table(runner=runner, databricks=databricks, output={"schema": "main.out"}, config=config)
        made = factory.make_dag(entry, Path("/home/em")).get_task("extract")
        assert made.max_active_tis_per_dag == 1
        # A durable task of a backfill would find the earlier run of the same interval, and would end as that run did.
        assert made.durable is False
        return getattr(made, field)(context=context(), jinja_env=None)

    assert f"source.where={condition}" in rendered("spark_submit", "application_args")
    assert rendered("databricks_run_now", "job_parameters") == {
        "source": "main.raw.articles",
        "output_schema": "main.out",
        "where": condition,
        "replace_slice": "true",
        "max_reject_ratio": "0.05",
    }
    [task] = rendered("databricks_submit", "tasks")
    assert task["python_wheel_task"]["parameters"][:2] == ["--config", "conf/articles.yaml"]
    assert f"source.where={condition}" in task["python_wheel_task"]["parameters"]


def test_the_dag_is_what_the_entry_says() -> None:
    dag = factory.make_dag(table(catchup=True, retries=4), Path("/home/em"))
    assert (dag.dag_id, dag.max_active_runs, dag.catchup) == ("extract_articles", 1, True)
    assert type(dag.timetable).__name__ == "CronDataIntervalTimetable"
    assert dag.get_task("extract").retries == 4
    assert dag.get_task("check").upstream_task_ids == {"extract"}
    assert [outlet.name for outlet in dag.get_task("check").outlets] == ["articles_entities"]


def test_a_run_may_wait_for_an_asset_for_a_place_in_a_pool_and_without_a_worker() -> None:
    chosen = {"schedule": None, "slice": None, "after": ["s3://lake/articles", "x-files://tickets"], "pool": "spark"}
    dag = factory.make_dag(table(**chosen), Path("/home/em"))
    assert type(dag.timetable).__name__ == "AssetTriggeredTimetable"
    assert [asset.uri for asset in dag.timetable.asset_condition.objects] == chosen["after"]  # type: ignore[attr-defined]
    assert (dag.get_task("extract").pool, dag.get_task("check").pool) == ("spark", "default_pool")
    entry = table(runner="databricks_run_now", databricks=JOB, output={"schema": "a.b"}, config=None, deferrable=True)
    assert factory.make_dag(entry, Path("/home/em")).get_task("extract").deferrable is True  # type: ignore[attr-defined]
    assert factory.make_dag(table(), Path("/home/em")).get_task("extract").pool == "default_pool"


def test_no_jars_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make jars"):
        factory.list_jars(tmp_path, ["."])


def test_what_lies_elsewhere_is_named_as_it_is() -> None:
    how = {
        "archives": "hdfs:///lib/environment.tar.gz#environment",
        "files": ["s3a://b/base.yaml"],
        "jars": ["hdfs:///a.jar"],
    }
    submit = factory.make_dag(table(spark_submit=how), Path("/home/em")).get_task("extract")
    assert (submit._archives, submit.files) == (how["archives"], how["files"][0])  # type: ignore[attr-defined]
    assert factory.list_jars(Path("/home/em"), how["jars"]) == "hdfs:///a.jar"  # type: ignore[arg-type]


def test_in_cluster_mode_the_config_is_where_the_driver_finds_it() -> None:
    how = {"deploy_mode": "cluster", "files": ["conf/base.yaml", "conf/articles.yaml"], "jars": []}
    there = factory.make_dag(table(config="articles.yaml", spark_submit=how), Path("/home/em")).get_task("extract")
    assert there.application_args(context=context(), jinja_env=None)[:2] == ["--config", "articles.yaml"]  # type: ignore[attr-defined]
    assert (there.files, there.jars) == ("/home/em/conf/base.yaml,/home/em/conf/articles.yaml", None)  # type: ignore[attr-defined]

    here = factory.make_dag(table(), Path("/home/em")).get_task("extract")
    assert here.application_args(context=context(), jinja_env=None)[:2] == ["--config", "/home/em/conf/articles.yaml"]  # type: ignore[attr-defined]


def test_start_dates_are_of_the_tables_time_zone() -> None:
    dag = factory.make_dag(table(start_date=datetime(2026, 7, 1)), Path("/"))  # noqa: DTZ001  # as YAML gives it
    assert dag.start_date is not None
    assert dag.start_date.astimezone(pendulum.timezone("UTC")).isoformat() == "2026-06-30T22:00:00+00:00"


def fail_with(code: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> AirflowException:
    """Return the error of a SubmitJob whose spark-submit is a stub that ends with this exit code."""
    stub = directory / "spark-submit"
    stub.write_text(f"#!/bin/sh\necho 'error: one sentence.'\nexit {code}\n")
    stub.chmod(0o755)
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", '{"conn_type": "spark", "host": "local[1]"}')
    submit = SubmitJob(task_id="extract", application="job.py", spark_binary=str(stub), durable=False)
    with pytest.raises(AirflowException) as failed:
        submit.execute({})
    return failed.value


@pytest.mark.parametrize(("code", "kind"), [(1, AirflowException), (2, AirflowFailException), (6, AirflowFailException)])
def test_errors_that_a_retry_would_repeat_are_not_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    error = fail_with(code, tmp_path, monkeypatch)
    assert type(error) is kind
    if kind is AirflowFailException:
        assert str(error).startswith(f"exit {code}: ")


def test_after_exit_4_the_error_names_the_limits_and_how_to_raise_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = fail_with(4, tmp_path, monkeypatch)
    assert type(error) is AirflowFailException
    said = str(error)
    assert said.startswith("exit 4: too many rows were rejected, or too many documents would be removed; ")
    assert "trigger a run with a higher max_reject_ratio, or with limits.max_removed_ratio=1 in settings; " in said
    # The params of a manual run and the setting of the job that the error names exist.
    assert {"max_reject_ratio", "settings"} <= set(factory.make_dag(table(), Path("/home/em")).params)
    assert LimitSettings(max_removed_ratio=1).max_removed_ratio == 1


def test_on_kubernetes_the_drivers_exit_code_counts() -> None:
    told = "Cannot execute: spark-submit. Error code is: 0. Kubernetes spark exit code is: 4"
    assert parse_final_code(told) == 4


def test_the_alert_is_looked_for_when_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "our_pager.py").write_text("def page(context):\n    return context['reason']\n")
    monkeypatch.syspath_prepend(tmp_path)
    dag = factory.make_dag(table(alert="our_pager.page"), ROOT)
    assert dag.on_failure_callback({"reason": "failed"}) == "failed"
    assert factory.make_dag(table(), ROOT).on_failure_callback is None
    factory.make_dag(table(alert="nowhere.page"), ROOT)
    with pytest.raises(ValidationError, match="alert"):
        table(alert="no function")
