"""Example of a DAG that runs whenever a run of the DAG for the table `speeches` has passed its check.

The DAG exists only if `tables.yaml` has a table `speeches`.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import DAG, Asset, task

from entitymill_dags.tables import load

FOLLOWED_TABLE = "speeches"

if any(table.name == FOLLOWED_TABLE for table in load().tables):
    with DAG(
        dag_id="follow_speeches",
        schedule=[Asset(name="speeches_entities", uri="x-entitymill://entities/speeches", group="entitymill")],
        catchup=False,
        tags=["entitymill", "example"],
    ) as dag:

        @task
        def report(**context: Any) -> list[dict[str, Any]]:
            """Log and return the run id and the number of documents and entities of each run that triggered this one."""
            events = [event.extra for asset_events in context["triggering_asset_events"].values() for event in asset_events]
            for extra in events:
                logging.getLogger(__name__).info("run %(run_id)s: %(documents)s documents, %(entities)s entities", extra)
            return events

        report()
