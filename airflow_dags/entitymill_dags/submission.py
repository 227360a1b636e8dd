"""Submit a run to Databricks as a wheel task with a command line."""

from __future__ import annotations

from typing import Any

from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator


class SubmitRun(DatabricksSubmitRunOperator):
    """The provider's operator, but without the DAG's params in the request: Databricks refuses them with a command line."""

    def _prepare_submit_json(self, context: Any) -> dict[str, Any]:
        """Return the request that the provider would send to Databricks, without the DAG's params."""
        payload = super()._prepare_submit_json(context)
        for task in payload["tasks"]:
            task["python_wheel_task"].pop("named_parameters", None)
        return payload
