"""Example of a DAG that runs whenever the entities of `speeches` have passed their check, if that table is configured."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import DAG, Asset, task

from entitymill_dags.tables import load

FOLLOWED = "speeches"

if any(table.name == FOLLOWED for table in load().tables):
    with DAG(
        dag_id="follow_speeches",
        schedule=[Asset(name="speeches_entities", uri="x-entitymill://entities/speeches", group="entitymill")],
        catchup=False,
        tags=["entitymill", "example"],
    ) as dag:

        @task
        def report(**context: Any) -> list[dict[str, Any]]:
            """Log the runs that triggered this one, with their counts."""
            events = [event.extra for found in context["triggering_asset_events"].values() for event in found]
            for extra in events:
                logging.getLogger(__name__).info("run %(run_id)s: %(documents)s documents, %(entities)s entities", extra)
            return events

        report()
