"""DAGs that extract entities on a schedule: one for each table of `tables.yaml`."""

from __future__ import annotations

from entitymill_dags.factory import make_dags
from entitymill_dags.tables import load

# Airflow finds DAGs among a file's globals.
globals().update(make_dags(load()))
