"""DAGs that extract entities on a schedule, one for each table in `tables.yaml`."""

from __future__ import annotations

from entitymill_dags.factory import make_dags
from entitymill_dags.tables import load

# Airflow discovers DAGs in a module's globals.
globals().update(make_dags(load()))
