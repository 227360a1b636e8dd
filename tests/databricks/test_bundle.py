"""Check the bundle with Databricks' own classes, which are generated from the bundle schema and the API's definition."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import bundle
import pytest
from databricks.bundles.jobs import Job
from databricks.bundles.volumes import Volume
from databricks.sdk.service.jobs import JobSettings, SubmitTask

from entitymill_dags import arguments, factory, tables

TARGETS = ("dev", "prod")

EXAMPLES = bundle.ROOT / "airflow_dags" / "tables.example.yaml"


@pytest.mark.parametrize("target", TARGETS)
def test_the_job_is_one_by_the_bundle_schema(target: str) -> None:
    job = _typed(bundle.job(target))
    assert Job.from_dict(job).as_dict() == job
    for volume in bundle.resources("volumes").values():
        resolved = bundle.resolved(volume, target)
        assert Volume.from_dict(resolved).as_dict() == resolved


def test_the_schema_check_sees_faults() -> None:
    for wrong in ({"schedul": {}}, {"max_concurrent_runs": "one"}, {"health": {"rules": [{"metric": "NONE"}]}}):
        with pytest.raises((TypeError, ValueError)):
            Job.from_dict({**_typed(bundle.job("dev")), **wrong})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("target", TARGETS)
def test_the_job_is_one_by_the_api(target: str) -> None:
    job = _typed(bundle.job(target))
    # `from_dict` drops unknown keys, so a job with such keys would not be equal.
    assert JobSettings.from_dict(job).as_dict() == job


def test_what_airflow_submits_is_a_run_by_the_api() -> None:
    entry = next(table for table in tables.load(EXAMPLES).tables if table.runner == "databricks_submit")
    operator = factory.make_dag(entry, bundle.ROOT).get_task("extract")
    operator.tasks = operator.tasks(context=_context(), jinja_env=None)  # type: ignore[attr-defined]  # as Airflow renders it
    payload = operator._prepare_submit_json(_context())  # type: ignore[attr-defined]
    [task] = payload["tasks"]
    # Airflow sends numbers and booleans as text.
    cluster = {**task["new_cluster"], "num_workers": int(task["new_cluster"]["num_workers"])}
    assert SubmitTask.from_dict({**task, "new_cluster": cluster}).as_dict() == {**task, "new_cluster": cluster}
    line = task["python_wheel_task"]
    assert line == {"package_name": "entitymill", "entry_point": "entitymill", "parameters": line["parameters"]}
    assert f"source.where={arguments.build_condition(entry, _context())}" in line["parameters"]


def test_what_airflow_sets_are_parameters_of_the_job() -> None:
    entry = next(table for table in tables.load(EXAMPLES).tables if table.runner == "databricks_run_now")
    line = bundle.command_line("prod", **arguments.build_job_parameters(entry, _context()))
    assert entry.databricks.job_name == bundle.job("prod")["name"]
    assert f"source.where={arguments.build_condition(entry, _context())}" in line
    assert f"source.path={entry.databricks.parameters['source']}" in line
    assert "output.replace_slice=true" in line


def test_every_variable_is_declared_and_used() -> None:
    files = [bundle.ROOT / "databricks.yml", *sorted((bundle.ROOT / "resources").glob("*.yml"))]
    used = set(re.findall(r"\$\{var\.([a-z_]+)\}", "".join(path.read_text(encoding="utf8") for path in files)))
    assert used == set(bundle.top()["variables"])


def test_every_parameter_of_the_job_is_passed_on() -> None:
    job = bundle.job("prod")
    line = " ".join(job["tasks"][0]["python_wheel_task"]["parameters"])
    assert set(re.findall(r"job\.parameters\.(\w+)", line)) == {parameter["name"] for parameter in job["parameters"]}


def test_the_bundles_own_file_has_known_keys_alone() -> None:
    """The CLI only warns about unknown keys. Known keys: https://docs.databricks.com/dev-tools/bundles/reference."""
    top = bundle.top()
    assert top.keys() <= {"bundle", "include", "variables", "artifacts", "sync", "targets"}
    assert all(variable.keys() == {"description", "default"} for variable in top["variables"].values())
    assert all(artifact.keys() <= {"type", "path", "build"} for artifact in top["artifacts"].values())
    assert top["sync"].keys() == {"paths"}
    for target in top["targets"].values():
        assert target.keys() <= {"mode", "default", "variables", "workspace", "run_as", "permissions"}
        assert target.get("variables", {}).keys() <= top["variables"].keys()


def test_the_targets_are_what_their_names_say() -> None:
    targets = bundle.top()["targets"]
    assert {name: target["mode"] for name, target in targets.items()} == {"dev": "development", "prod": "production"}
    assert targets["dev"]["default"]
    assert "run_as" in targets["prod"]
    assert targets["prod"]["workspace"]["root_path"].startswith("/Workspace/Users/"), "others may write elsewhere"
    assert bundle.values("dev")["var.output_schema"] != bundle.values("prod")["var.output_schema"]


def test_the_cluster_fits_the_job() -> None:
    cluster = bundle.job("prod")["job_clusters"][0]["new_cluster"]
    assert cluster["spark_version"] == "16.4.x-scala2.12"
    assert cluster["data_security_mode"] == "SINGLE_USER"
    lines = (bundle.ROOT / "conf" / "spark-defaults.conf").read_text(encoding="utf8").splitlines()
    defaults = dict(line.split(None, 1) for line in lines if line and not line.startswith("#"))
    assert cluster["spark_conf"].items() <= defaults.items()


def test_the_wheel_is_built_where_nothing_else_is_removed() -> None:
    """Before a build, the CLI removes `build` and `dist` in the artifact's directory."""
    [path] = [artifact["path"] for artifact in bundle.top()["artifacts"].values()]
    assert path == "resources", "relative to whose files the libraries are"
    assert not (bundle.ROOT / path / "build").exists()
    [library] = bundle.job("prod")["tasks"][0]["libraries"]
    assert library == {"whl": "dist/*.whl"}


def test_the_wheel_brings_no_second_spark(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = {name.rsplit("/", 1)[-1]: archive.read(name).decode() for name in archive.namelist() if "dist-info" in name}
    needed = re.findall(r"^Requires-Dist: (.*)$", text["METADATA"], re.MULTILINE)
    assert needed
    assert not [line for line in needed if re.match(r"(pyspark|delta-spark)\b", line) and "extra ==" not in line]
    task = bundle.job("prod")["tasks"][0]["python_wheel_task"]
    assert f"{task['entry_point']} = entitymill.cli:entry" in text["entry_points.txt"]
    assert "entitymill-maintain = entitymill.commands.maintain:entry" in text["entry_points.txt"]


def _typed(job: dict[str, Any]) -> Any:
    """Return the job with an integer number of workers. In the YAML, all variables are text, which the CLI converts."""
    [named] = job["job_clusters"]
    cluster = {**named["new_cluster"], "num_workers": int(named["new_cluster"]["num_workers"])}
    return {**job, "job_clusters": [{**named, "new_cluster": cluster}]}


def _context() -> dict[str, Any]:
    import pendulum  # noqa: PLC0415

    start = pendulum.datetime(2026, 7, 1, tz="UTC")
    params = {"max_reject_ratio": 0.05, "settings": []}
    return {"params": params, "data_interval_start": start, "data_interval_end": start.add(days=1)}
