"""A run submitted to Databricks, whose wheel task takes a command line."""

from __future__ import annotations

from typing import Any

from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator


class SubmitRun(DatabricksSubmitRunOperator):
    """The provider's operator, which puts the DAG's params beside the command line; the API takes one of the two alone."""

    def _prepare_submit_json(self, context: Any) -> dict[str, Any]:
        payload = super()._prepare_submit_json(context)
        for task in payload["tasks"]:
            task["python_wheel_task"].pop("named_parameters", None)
        return payload
